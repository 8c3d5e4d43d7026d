//! What the program was asked to do, checked and complete. The environment is read in `main` only.

use std::path::PathBuf;

use signalbox_schemas::layout::Layout;

use crate::client::{Access, ClientError};

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
            desktop: match () {
                () if filled("WAYLAND_DISPLAY").is_some() => Some(Desktop::Wayland),
                () if filled("DISPLAY").is_some() => Some(Desktop::X11),
                () if cfg!(target_os = "macos") && filled("SSH_CONNECTION").is_none() => Some(Desktop::Mac),
                () => None,
            },
        }
    }

    /// Whether the terminal is said to have more than sixteen colours.
    pub fn has_many_colours(&self) -> bool {
        self.colorterm
            || self.term.as_deref().is_some_and(|term| !matches!(term, "linux" | "ansi" | "xterm" | "screen"))
    }

    /// Where state lies when the command line does not say: `$SIGNALBOX_STATE_DIR`, `$XDG_STATE_HOME/signalbox`, or
    /// `~/.local/state/signalbox`.
    pub fn default_state_dir(&self) -> Option<PathBuf> {
        if let Some(dir) = &self.state_dir {
            return Some(dir.clone());
        }
        let base = self.xdg_state_home.clone();
        let base = base.or_else(|| self.home.as_ref().map(|home| home.join(".local/state")));
        base.map(|base| base.join("signalbox"))
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

/// Everything a command needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The state directory, by an absolute path.
    pub layout: Layout,
    /// The broker, if named by the user.
    pub nats_url: Option<String>,
    /// The environment.
    pub environment: Environment,
}

/// There is no place for state.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither a flag nor the environment names one.
    #[error("no state directory is known; name one with --state-dir or set HOME")]
    NoStateDir,
    /// The working directory is gone.
    #[error("the working directory cannot be read")]
    WorkingDirectory(#[source] std::io::Error),
}

impl Config {
    /// Completes what was typed; what was typed goes before the environment.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(
        state_dir: Option<PathBuf>,
        nats_url: Option<String>,
        environment: Environment,
    ) -> Result<Self, ConfigError> {
        let state_dir =
            state_dir.or_else(|| environment.default_state_dir()).ok_or(ConfigError::NoStateDir)?;
        let state_dir = std::path::absolute(&state_dir).map_err(ConfigError::WorkingDirectory)?;
        let nats_url = nats_url.or_else(|| environment.nats_url.clone());
        Ok(Self { layout: Layout::new(state_dir), nats_url, environment })
    }

    /// The operator's identity and the broker's address.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn access(&self) -> Result<Access, ClientError> {
        Access::local(&self.layout, self.nats_url.as_deref())
    }
}
