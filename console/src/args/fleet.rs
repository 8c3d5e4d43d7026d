//! `signalbox context` and `signalbox config`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::choice::one_of;
use crate::settings::context::{Colour, is_name};

/// `signalbox context`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Context {
    /// What to do.
    #[command(subcommand)]
    pub action: ContextAction,
    /// One JSON document per line.
    #[arg(long, global = true)]
    pub json: bool,
}

/// One thing to do with contexts.
#[derive(Debug, Clone, Subcommand)]
pub enum ContextAction {
    /// Lists the contexts; the one that is meant now is marked.
    List,
    /// Shows one: which identity, which broker.
    Show {
        /// Its name [default: the one that is meant now].
        #[arg(value_parser = name)]
        name: Option<String>,
    },
    /// Changes over; `-` goes back to the one before, `default` to none.
    Use {
        /// Its name, `-` or `default`.
        #[arg(value_parser = name_or_back)]
        name: String,
    },
    /// Writes one into the configuration: --state-dir or --login and --signing-key say who you are there, --nats where it is.
    Add(AddContext),
    /// Removes one from the configuration; keys and what was kept stay.
    Remove {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Calls one by another name.
    Rename {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
        /// The new one.
        #[arg(value_parser = name)]
        new: String,
    },
}

/// `signalbox context add`.
#[derive(Debug, Clone, ClapArgs)]
pub struct AddContext {
    /// What it shall be called.
    #[arg(value_parser = name)]
    pub name: String,
    /// The operator's login there, a `.creds` file.
    #[arg(long, value_name = "FILE", requires = "signing_key")]
    pub login: Option<PathBuf>,
    /// The seed that signs for it.
    #[arg(long, value_name = "FILE", requires = "login")]
    pub signing_key: Option<PathBuf>,
    /// The broker's address.
    #[arg(long = "nats", id = "nats_url", value_name = "URL")]
    pub nats_url: Option<String>,
    /// Its name is shown in red, and `run` always asks for the number of machines.
    #[arg(long)]
    pub protected: bool,
    /// How its name is shown.
    #[arg(long, value_name = "COLOUR", value_parser = one_of::<Colour>(COLOURS))]
    pub colour: Option<Colour>,
    /// Changes over to it.
    #[arg(long = "use")]
    pub used: bool,
}

const COLOURS: [&str; 6] = ["red", "yellow", "green", "cyan", "blue", "magenta"];

/// `signalbox config`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Config {
    /// What to do.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// One thing to do with the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigAction {
    /// Says where the file is, whether it exists or not.
    Path,
    /// Prints a file with everything in it, commented, that changes nothing.
    Default,
    /// Lists everything that is wrong; ends with 2 when something is.
    Check {
        /// Another file; `-` is standard input.
        file: Option<PathBuf>,
    },
    /// Prints the JSON schema, for editors.
    Schema,
}

fn name(text: &str) -> Result<String, String> {
    match text {
        crate::contexts::NONE => Err("`default` means no context".to_owned()),
        text if is_name(text) => Ok(text.to_owned()),
        _ => Err("a name has 1 to 63 letters, digits, `.`, `_` and `-`, and begins with a letter or a digit"
            .to_owned()),
    }
}

fn name_or_back(text: &str) -> Result<String, String> {
    match text {
        "-" | crate::contexts::NONE => Ok(text.to_owned()),
        other => name(other),
    }
}
