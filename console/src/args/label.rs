//! `signalbox label`: what machines are for.

use std::str::FromStr;

use clap::{Args as ClapArgs, Subcommand};
use signalbox_schemas::label::{LabelKey, LabelValue};

use super::Within;
use crate::cli::exit;

/// `signalbox label`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Label {
    /// What to do.
    #[command(subcommand)]
    pub action: LabelAction,
    /// Format and broker.
    #[command(flatten)]
    pub within: Within,
}

/// One thing to do with labels.
#[derive(Debug, Clone, Subcommand)]
pub enum LabelAction {
    /// Lists the labels of machines: those that count, who says them, and what they overrule.
    Ls {
        /// Which machines.
        #[arg(long, value_name = "SELECTOR", default_value = "all")]
        on: String,
    },
    /// Gives labels to machines, in place of those with the same keys. What you set goes before what an assignment or a relay
    /// says.
    #[command(after_help = exit::TABLE)]
    Set {
        /// Which machines.
        #[arg(value_name = "SELECTOR")]
        on: String,
        /// The labels.
        #[arg(value_name = "KEY=VALUE", required = true)]
        labels: Vec<Pair>,
    },
    /// Takes labels from machines that operators have set. What an assignment or a relay says under the same key counts again.
    #[command(after_help = exit::TABLE)]
    Rm {
        /// Which machines.
        #[arg(value_name = "SELECTOR")]
        on: String,
        /// Their keys.
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<LabelKey>,
    },
}

/// A label as it is typed: `role=web`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What it is called.
    pub key: LabelKey,
    /// What it says; may be empty.
    pub value: LabelValue,
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as role=web")?;
        let key = LabelKey::new(key).map_err(|error| error.to_string())?;
        let value = LabelValue::new(value).map_err(|error| error.to_string())?;
        Ok(Self { key, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("role=web", Some(("role", "web")))]
    #[case("note=a=b", Some(("note", "a=b")))]
    #[case("note=", Some(("note", "")))]
    #[case("role", None)]
    #[case("=web", None)]
    #[case("Role=web", None)]
    #[case("role= web", None)]
    fn a_label_is_typed_as_key_and_value(#[case] text: &str, #[case] expected: Option<(&str, &str)>) {
        let pair: Option<Pair> = text.parse().ok();
        let pair = pair.as_ref().map(|pair| (pair.key.as_str(), pair.value.as_str()));
        assert_eq!(pair, expected);
    }
}
