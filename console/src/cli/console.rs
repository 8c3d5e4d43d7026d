//! The terminal console: session and screen, joined by two channels.

use std::io::IsTerminal as _;

use signalbox_schemas::error::report;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::mpsc,
    task::JoinSet,
};

use super::exit::{self, Failure};
use crate::{
    client::{ASKS, TOLD, session},
    config::{Config, Desktop, Environment},
    settings::look::{ClipboardVia, Theme},
    tui::{
        keymap::Keymap,
        terminal::{Clipboard, Program},
        theme::Tone,
    },
};

/// Opens the console on a fleet that runs.
///
/// # Errors
/// [`Failure`].
pub async fn alone(config: &Config) -> Result<u8, Failure> {
    if let Some(why) = refusal(&config.environment) {
        let line = format!("cannot open the console: {why}; see `signalbox --help` for commands");
        return Err(Failure::new(exit::USAGE, line));
    }
    open(config).await.map(|()| exit::OK)
}

/// Why there is no console here: no terminal to draw on and to read keys from, or one that cannot be drawn on.
pub fn refusal(environment: &Environment) -> Option<&'static str> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Some("this is no terminal");
    }
    environment.is_dumb().then_some("TERM is not set or says `dumb`")
}

/// Which colours: those that are configured, else what the terminal is said to have.
fn tone(config: &Config) -> Tone {
    match config.settings.look.theme {
        Theme::Auto if config.environment.has_many_colours() => Tone::Auto,
        Theme::Auto | Theme::Sixteen => Tone::Sixteen,
        Theme::Dark => Tone::Dark,
        Theme::Light => Tone::Light,
        Theme::Mono => Tone::Mono,
    }
}

/// By what text comes to the clipboard here: by the terminal, and where there is a desktop by its program, too.
fn clipboard(config: &Config) -> Clipboard {
    let program = config.environment.desktop.map(|desktop| match desktop {
        Desktop::Wayland => Program::WlCopy,
        Desktop::X11 => Program::Xclip,
        Desktop::Mac => Program::Pbcopy,
    });
    match (config.settings.clipboard.via, program) {
        (ClipboardVia::None, _) => Clipboard::Off,
        (ClipboardVia::Native, Some(program)) => Clipboard::Program(program),
        (ClipboardVia::Auto, Some(program)) => Clipboard::Both(program),
        (ClipboardVia::Osc52, _) | (ClipboardVia::Native | ClipboardVia::Auto, None) => Clipboard::Terminal,
    }
}

/// Where the session runs: apart from the screen, so that no page of a list that is being read keeps a key waiting.
/// Who shares a runtime shares what looks for keys and times in it, too.
struct Apart {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Apart {
    fn begin() -> Result<Self, Failure> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("session").enable_all().build();
        let runtime =
            runtime.map_err(|error| Failure::new(exit::FAILED, format!("cannot start: {error}")))?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // What runs there has ended, or is nobody's any more.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Shows the console until it is left.
///
/// # Errors
/// [`Failure`].
pub async fn open(config: &Config) -> Result<(), Failure> {
    let access = config.access().map_err(|error| Failure::client("open the console", &error))?;
    let (asks, asked) = mpsc::channel(ASKS);
    let (tell, told) = mpsc::channel(TOLD);
    let options = crate::tui::TuiOptions {
        no_color: config.environment.no_color || config.settings.look.theme == Theme::Mono,
        ascii: config.settings.look.ascii.or(config.environment.is_ascii()),
        reduced_motion: config.environment.reduced_motion || config.settings.look.reduced_motion,
        who: access.operator.to_string(),
        fleet: config.context.as_ref().map_or_else(|| access.ws.to_string(), |chosen| chosen.name.clone()),
        tone: tone(config),
        clipboard: clipboard(config),
        // What is wrong with it was told when the file was read.
        keymap: Keymap::of(&config.settings.keys).0,
        most_copied: usize::try_from(config.settings.clipboard.max_bytes.bytes).unwrap_or(usize::MAX),
        no_crumbs: !config.settings.look.crumbs,
        mouse: config.settings.look.mouse,
        headless: !config.settings.look.header,
        is_protected: config.is_protected(),
        rule: config.rule(),
        run: config.settings.run.clone(),
        saved: config.settings.commands.clone(),
        place: config.settings.place.label.clone(),
        broker: signalbox_link::shown(&access.nats_url),
        views: config.settings.views.clone(),
        record: config.environment.record.clone().map(|path| (path, config.settings.keys.clone())),
    };
    let apart = Apart::begin()?;
    // Ends with this function: whoever leaves the console leaves the connection.
    let mut tasks = JoinSet::new();
    tasks.spawn_on(session(access, asked, tell), &apart.handle);
    let left = {
        let shown = crate::tui::run(told, asks, options);
        tokio::pin!(shown);
        tokio::select! {
            left = &mut shown => Ok(left),
            // It never connected and never will. One that ends otherwise leaves what is shown to be read.
            Some(Ok(Err(error))) = tasks.join_next() => Err(error),
        }
    };
    tasks.shutdown().await;
    let left = left.map_err(|error| Failure::client("open the console", &error))?;
    left.map_err(|error| Failure::new(exit::FAILED, format!("cannot show the console: {}", report(&error))))
}
