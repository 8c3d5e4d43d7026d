//! Which fleet is meant.
//!
//! | room | holds |
//! |---|---|
//! | [`current`] | the context that is used, and the one before: a file |
//! | [`edit`] | contexts in the text of the configuration, which keeps its comments (pure) |
//!
//! Flags go before the environment, and that before what is used. Within a level a state directory and a context exclude
//! each other: both name a fleet.

pub mod current;
pub mod edit;

use std::path::{Path, PathBuf};

use crate::{
    config::{Asked, Environment},
    settings::{Settings, context::Context, file::resolve, near},
};

/// The name that means no context: everything as it is without any.
pub const NONE: &str = "default";

/// What made a context the one that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// `--context`.
    Flag,
    /// `SIGNALBOX_CONTEXT`.
    Environment,
    /// `signalbox context use`.
    Use,
}

impl By {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Flag => "--context",
            Self::Environment => "SIGNALBOX_CONTEXT",
            Self::Use => "`signalbox context use`",
        }
    }
}

/// The context that is meant, with its paths where they lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// What it is; every path is absolute, and there is a state directory.
    pub context: Context,
    /// Why it is.
    pub by: By,
}

/// A context and a state directory were named at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} and {1} name a fleet each; leave one of them out")]
pub struct Both(pub &'static str, pub &'static str);

/// Whether a flag or the environment names a fleet, so that what is used does not matter.
pub fn is_named(asked: &Asked, environment: &Environment) -> bool {
    asked.context.is_some()
        || asked.state_dir.is_some()
        || environment.context.is_some()
        || environment.state_dir.is_some()
}

/// Which name is meant, and by what; `None`: no context.
///
/// # Errors
/// [`Both`].
pub fn choose(
    asked: &Asked,
    environment: &Environment,
    used: Option<&str>,
) -> Result<Option<(String, By)>, Both> {
    let levels = [
        (asked.context.as_deref(), asked.state_dir.is_some(), By::Flag, "--state-dir"),
        (
            environment.context.as_deref(),
            environment.state_dir.is_some(),
            By::Environment,
            "SIGNALBOX_STATE_DIR",
        ),
        (used, false, By::Use, ""),
    ];
    for (name, names_directory, by, directory) in levels {
        match (name, names_directory) {
            (Some(_), true) => return Err(Both(by.words(), directory)),
            (Some(name), false) => return Ok(Some((name.to_owned(), by)).filter(|(name, _)| name != NONE)),
            (None, true) => return Ok(None),
            (None, false) => {}
        }
    }
    Ok(None)
}

/// There is no such context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no context {name:?}, which {} names{advice}; `signalbox context list` shows those of {}", by.words(), file.display())]
pub struct Unknown {
    name: String,
    by: By,
    advice: String,
    file: PathBuf,
}

/// The context of this name. `file`: where the settings were read; `own`: the folder with what contexts have of their own.
///
/// # Errors
/// [`Unknown`], with the names that are near.
pub fn find(
    settings: &Settings,
    (name, by): (String, By),
    file: &Path,
    own: &Path,
    home: Option<&Path>,
) -> Result<Chosen, Unknown> {
    let Some(context) = settings.contexts.get(&name) else {
        let names = settings.contexts.keys().map(String::as_str);
        let advice = near::advice(&name, names.chain([NONE]));
        return Err(Unknown { advice, name: name.chars().take(64).collect(), by, file: file.to_owned() });
    };
    let to = |path: &Option<PathBuf>| path.as_ref().map(|path| resolve(path, file, home));
    let context = Context {
        state_dir: Some(to(&context.state_dir).unwrap_or_else(|| own.join(&name))),
        login: to(&context.login),
        signing_key: to(&context.signing_key),
        ..context.clone()
    };
    Ok(Chosen { name, context, by })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(
        flag: (Option<&str>, bool),
        environment: (Option<&str>, bool),
        used: Option<&str>,
    ) -> Result<Option<(String, By)>, Both> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let dir = |there: bool| there.then(|| PathBuf::from("/s"));
        let asked = Asked { context: own(flag.0), state_dir: dir(flag.1), nats_url: None };
        let environment = Environment {
            context: own(environment.0),
            state_dir: dir(environment.1),
            ..Environment::default()
        };
        choose(&asked, &environment, used)
    }

    #[test]
    fn flags_go_before_the_environment_and_that_before_what_is_used() {
        let named = |name: &str, by| Ok(Some((name.to_owned(), by)));
        assert_eq!(chosen((Some("a"), false), (Some("b"), false), Some("c")), named("a", By::Flag));
        assert_eq!(chosen((Some("a"), false), (None, true), Some("c")), named("a", By::Flag));
        assert_eq!(chosen((None, false), (Some("b"), false), Some("c")), named("b", By::Environment));
        assert_eq!(chosen((None, false), (None, false), Some("c")), named("c", By::Use));
        for none in [
            chosen((None, true), (Some("b"), false), Some("c")),
            chosen((None, false), (None, true), Some("c")),
            chosen((Some("default"), false), (Some("b"), false), Some("c")),
            chosen((None, false), (None, false), None),
        ] {
            assert_eq!(none, Ok(None));
        }
        assert_eq!(chosen((Some("a"), true), (None, false), None), Err(Both("--context", "--state-dir")));
        let both = Both("SIGNALBOX_CONTEXT", "SIGNALBOX_STATE_DIR");
        assert_eq!(chosen((None, false), (Some("b"), true), None), Err(both));
    }

    #[test]
    fn paths_lead_from_the_folder_of_the_file_or_from_home() {
        let settings = "[contexts.prod]\nlogin = \"prod.creds\"\nsigning_key = \"/k/prod.seed\"\n[contexts.lab]\nstate_dir = \"~/lab\"";
        let settings = Settings::read(settings).unwrap();
        let found = |name: &str| {
            let (file, own) = (Path::new("/c/config.toml"), Path::new("/own"));
            find(&settings, (name.to_owned(), By::Flag), file, own, Some(Path::new("/h")))
        };
        let prod = found("prod").unwrap().context;
        assert_eq!(prod.login.unwrap().as_os_str(), "/c/prod.creds");
        assert_eq!(prod.signing_key.unwrap().as_os_str(), "/k/prod.seed");
        assert_eq!(prod.state_dir.unwrap().as_os_str(), "/own/prod");
        assert_eq!(found("lab").unwrap().context.state_dir.unwrap().as_os_str(), "/h/lab");
        let unknown = found("pord").unwrap_err().to_string();
        assert!(unknown.contains("\"pord\"") && unknown.contains("did you mean \"prod\"?"), "{unknown}");
    }
}
