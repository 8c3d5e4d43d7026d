//! What the program was asked to do, checked and complete. The environment is read in `main` only.

use std::{os::unix::fs::MetadataExt as _, path::PathBuf};

use signalbox_schemas::layout::Layout;

use crate::{
    client::{Access, ClientError},
    contexts::{self, Both, Chosen, Unknown, current::Place},
    question::Rule,
    settings::{
        Settings,
        file::{self, SettingsError},
    },
};

/// The environment, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `SIGNALBOX_STATE_DIR`, if it is not empty.
    pub state_dir: Option<PathBuf>,
    /// `SIGNALBOX_NATS`, if it is not empty.
    pub nats_url: Option<String>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<PathBuf>,
    /// `SIGNALBOX_CONFIG`, if it is not empty.
    pub config_file: Option<PathBuf>,
    /// `SIGNALBOX_RECORD`, if it is not empty.
    pub record: Option<PathBuf>,
    /// `SIGNALBOX_CONTEXT`, if it is not empty.
    pub context: Option<String>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `NO_COLOR`, if it is not empty.
    pub no_color: bool,
    /// The first of `LC_ALL`, `LC_CTYPE`, `LANG` that is not empty.
    pub locale: Option<String>,
    /// `TERM`, if it is not empty.
    pub term: Option<String>,
    /// `SIGNALBOX_REDUCED_MOTION`, if it is not empty.
    pub reduced_motion: bool,
    /// `PATH`.
    pub path: Option<std::ffi::OsString>,
    /// `COLORTERM`, if it is not empty.
    pub colorterm: bool,
    /// What draws windows here, if anything does.
    pub desktop: Option<Desktop>,
}

/// What draws windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desktop {
    /// `WAYLAND_DISPLAY` is set.
    Wayland,
    /// `DISPLAY` is set.
    X11,
    /// This is macOS, and nobody comes in by SSH.
    Mac,
}

impl Environment {
    /// Reads it. `get` is `std::env::var_os`.
    pub fn read(get: impl Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let filled = |name: &str| get(name).filter(|value| !value.is_empty());
        Self {
            state_dir: filled("SIGNALBOX_STATE_DIR").map(PathBuf::from),
            nats_url: filled("SIGNALBOX_NATS").and_then(|url| url.into_string().ok()),
            xdg_state_home: filled("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()),
            xdg_config_home: filled("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute()),
            config_file: filled("SIGNALBOX_CONFIG").map(PathBuf::from),
            record: filled("SIGNALBOX_RECORD").map(PathBuf::from),
            // What is no text names no context, and is refused as such.
            context: filled("SIGNALBOX_CONTEXT").map(|name| name.to_string_lossy().into_owned()),
            home: filled("HOME").map(PathBuf::from),
            no_color: filled("NO_COLOR").is_some(),
            locale: ["LC_ALL", "LC_CTYPE", "LANG"]
                .into_iter()
                .find_map(|name| filled(name)?.into_string().ok()),
            term: filled("TERM").and_then(|term| term.into_string().ok()),
            reduced_motion: filled("SIGNALBOX_REDUCED_MOTION").is_some(),
            path: get("PATH"),
            colorterm: filled("COLORTERM").is_some(),
            desktop: if filled("WAYLAND_DISPLAY").is_some() {
                Some(Desktop::Wayland)
            } else if filled("DISPLAY").is_some() {
                Some(Desktop::X11)
            } else {
                (cfg!(target_os = "macos") && filled("SSH_CONNECTION").is_none()).then_some(Desktop::Mac)
            },
        }
    }

    /// Whether the terminal is said to have more than sixteen colours.
    pub fn has_many_colours(&self) -> bool {
        self.colorterm
            || self.term.as_deref().is_some_and(|term| !matches!(term, "linux" | "ansi" | "xterm" | "screen"))
    }

    /// Whether the home directory is somebody else's, as where a program runs as another user who keeps the environment.
    /// What is closed there was not set by this user.
    fn has_foreign_home(&self) -> bool {
        let home = self.home.as_ref().and_then(|home| std::fs::metadata(home).ok());
        self.config_file.is_none()
            && home.is_some_and(|home| home.uid() != rustix::process::geteuid().as_raw())
    }

    /// Where programs keep their state: `$XDG_STATE_HOME` or `~/.local/state`.
    pub fn state_home(&self) -> Option<PathBuf> {
        let base = self.xdg_state_home.clone();
        base.or_else(|| self.home.as_ref().map(|home| home.join(".local/state")))
    }

    /// Where state lies when the command line does not say: `$SIGNALBOX_STATE_DIR`, `$XDG_STATE_HOME/signalbox`, or
    /// `~/.local/state/signalbox`.
    pub fn default_state_dir(&self) -> Option<PathBuf> {
        self.state_dir.clone().or_else(|| self.state_home().map(|base| base.join("signalbox")))
    }

    /// Whether the terminal is said to know no sequences: nothing is drawn, coloured or written over on it.
    pub fn is_dumb(&self) -> bool {
        self.term.as_deref().is_none_or(|term| term == "dumb")
    }

    /// Whether colours are wanted and known.
    pub fn has_colours(&self) -> bool {
        !self.no_color && !self.is_dumb()
    }

    /// What ends a text that was cut.
    pub fn ellipsis(&self) -> char {
        if self.is_ascii() { '~' } else { '…' }
    }

    /// Whether the terminal is said to show no more than ASCII.
    pub fn is_ascii(&self) -> bool {
        let name = self.locale.as_deref().unwrap_or_default().to_ascii_lowercase();
        !name.contains("utf-8") && !name.contains("utf8")
    }
}

/// What the command line says about the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--nats`.
    pub nats_url: Option<String>,
    /// `--context`.
    pub context: Option<String>,
}

/// Everything a command needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The state directory, by an absolute path.
    pub layout: Layout,
    /// The broker, if named by the user.
    pub nats_url: Option<String>,
    /// The context, if one is meant.
    pub context: Option<Chosen>,
    /// What the operator has set.
    pub settings: Settings,
    /// The environment.
    pub environment: Environment,
}

/// It cannot be said what is meant.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither a flag nor the environment names one.
    #[error("no state directory is known; name one with --state-dir or set HOME")]
    NoStateDir,
    /// The working directory is gone.
    #[error("the working directory cannot be read")]
    WorkingDirectory(#[source] std::io::Error),
    /// The configuration cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Two fleets are named.
    #[error(transparent)]
    Both(#[from] Both),
    /// There is no such context.
    #[error(transparent)]
    Context(#[from] Unknown),
    /// What is used cannot be read.
    #[error("{} cannot be read; choose again with `signalbox context use NAME`", path.display())]
    Used {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Config {
    /// Completes what was typed; what was typed goes before the environment. Nothing is set, and there are no contexts.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(
        state_dir: Option<PathBuf>,
        nats_url: Option<String>,
        environment: Environment,
    ) -> Result<Self, ConfigError> {
        let asked = Asked { state_dir, nats_url, context: None };
        Self::with(asked, environment, Settings::default(), None)
    }

    /// Completes what was typed with the configuration, and with the context that is used. Blocks.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(asked: Asked, environment: Environment) -> Result<Self, ConfigError> {
        let file = file::path(&environment);
        let is_closed = |error: &std::io::Error| {
            error.kind() == std::io::ErrorKind::PermissionDenied && environment.has_foreign_home()
        };
        let settings = match file.as_deref().map_or_else(|| Ok(Settings::default()), file::read) {
            Err(SettingsError::Read { source, .. }) if is_closed(&source) => Settings::default(),
            read => read?,
        };
        let place = Place::of(&environment);
        let used = match place.as_ref().filter(|_| !contexts::is_named(&asked, &environment)).map(Place::read)
        {
            Some(Ok(used)) => used.name,
            Some(Err(error)) if !is_closed(&error) => {
                let path = place.as_ref().map(Place::file).unwrap_or_default();
                return Err(ConfigError::Used { path, source: error });
            }
            Some(Err(_)) | None => None,
        };
        let named = contexts::choose(&asked, &environment, used.as_deref())?;
        let chosen = match named {
            Some(named) => {
                let (file, place) = file.zip(place).ok_or(ConfigError::NoStateDir)?;
                let home = environment.home.as_deref();
                Some(contexts::find(&settings, named, &file, place.folder(), home)?)
            }
            None => None,
        };
        Self::with(asked, environment, settings, chosen)
    }

    fn with(
        asked: Asked,
        environment: Environment,
        settings: Settings,
        context: Option<Chosen>,
    ) -> Result<Self, ConfigError> {
        let of_context = context.as_ref().map(|chosen| &chosen.context);
        let state_dir = asked.state_dir.or_else(|| of_context.and_then(|context| context.state_dir.clone()));
        let state_dir =
            state_dir.or_else(|| environment.default_state_dir()).ok_or(ConfigError::NoStateDir)?;
        let state_dir = std::path::absolute(&state_dir).map_err(ConfigError::WorkingDirectory)?;
        // A context's own address goes before the environment's: that one was set for another fleet, or for none.
        let nats_url = asked.nats_url.or_else(|| of_context.and_then(|context| context.nats.clone()));
        let nats_url = nats_url.or_else(|| environment.nats_url.clone());
        Ok(Self { layout: Layout::new(state_dir), nats_url, context, settings, environment })
    }

    /// Whether commands of this fleet are always asked about.
    pub fn is_protected(&self) -> bool {
        self.context.as_ref().is_some_and(|chosen| chosen.context.protected)
    }

    /// When the number of machines is asked for.
    pub fn rule(&self) -> Rule {
        let context = self.context.as_ref().filter(|chosen| chosen.context.protected);
        Rule::new(&self.settings.run, context.map(|chosen| chosen.name.as_str()))
    }

    /// The operator's identity and the broker's address.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn access(&self) -> Result<Access, ClientError> {
        let context = self.context.as_ref().map(|chosen| &chosen.context);
        match context.and_then(|context| context.login.as_deref().zip(context.signing_key.as_deref())) {
            Some((login, key)) => Access::by_files(login, key, &self.layout, self.nats_url.as_deref()),
            None => Access::local(&self.layout, self.nats_url.as_deref()),
        }
    }
}
