//! Everything the screen shows. Changed by `update` only; holds no clock, no channel, no terminal.

pub mod chart;
pub mod command;
pub mod commands;
pub mod cursor;
pub mod diff;
pub mod editor;
pub mod fleet;
pub mod folds;
pub mod history;
pub mod lens;
pub mod machine;
pub mod names;
pub mod output;
pub mod page;
pub mod past;
pub mod prompt;
pub mod pulse;
pub mod roster;
pub mod rows;
pub mod scrollback;
pub mod survey;
pub mod tabs;
pub mod vitals;

use std::collections::HashMap;

use signalbox_schemas::{
    api::HealthView,
    id::{CommandId, MachineToken},
};

use self::{
    commands::Commands,
    editor::Editor,
    fleet::Fleet,
    output::{Output, Whose},
    page::CommandPage,
    past::Past,
    prompt::{Prompt, Seen},
    pulse::Pulse,
    rows::Rows,
    survey::Survey,
    tabs::MachinePage,
};
use crate::{
    client::{Ask, LinkView, machine::Part},
    tui::{
        TuiOptions,
        keymap::Mode,
        lists::{self, ListKind, Tab},
        palette::Offer,
        view::layout,
    },
};

/// How long a line about what happened stays, ms.
pub const STATUS_MS: u64 = 6_000;
/// Command texts that are kept for this session.
pub const MOST_TEXTS: usize = 200;

/// Lines of the palette that are kept for this session.
pub const MOST_LINES: usize = 100;
/// What needs a look is looked for this often, ms.
const PULSE_MS: u64 = 900;
/// Screens that can be gone back to.
pub const MOST_SCREENS: usize = 64;

/// What fills the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Screen {
    /// How the fleet is, and what needs a look.
    Pulse,
    /// All machines.
    Machines,
    /// One machine.
    Machine(MachineToken),
    /// All commands.
    Commands,
    /// One command.
    Command(CommandId),
    /// Its output, or that of one of its machines.
    Output(CommandId, Whose),
    /// Another list.
    List(ListKind),
    /// All of one row of it, by its key.
    Item(ListKind, String),
}

/// What lies over the screen and takes the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Modal {
    /// The filter is being written; `before` is what Esc brings back.
    Filter {
        /// The line.
        editor: Editor,
        /// The filter as it was.
        before: String,
    },
    /// A command is being written.
    Prompt(Box<Prompt>),
    /// What to do is being written.
    Palette(Box<Palette>),
    /// Something about the output is being written.
    Line(Line),
    /// Columns are chosen; the one under the cursor.
    Columns {
        /// Its place.
        at: usize,
    },
    /// Something that cannot be taken back waits for a yes.
    Confirm(Confirm),
    /// The keys are explained, from this line on.
    Help {
        /// First line that is seen.
        top: usize,
    },
}

/// What to do, being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Palette {
    /// The line.
    pub editor: Editor,
    /// What it may become.
    pub offers: Vec<Offer>,
    /// The one that is chosen; `None`: the line as it is written.
    pub chosen: Option<usize>,
    /// Which earlier line is shown: place from the newest.
    pub recalled: Option<usize>,
    /// Why the line is not understood.
    pub problem: Option<String>,
}

/// What is asked about before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Every run of it is ended.
    Cancel,
    /// Its waves go on.
    Resume,
    /// No further machine is let go.
    Abort,
}

/// What is written about an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// What is looked for.
    Search,
    /// The file that it is saved to.
    Save,
    /// How far into it one goes, percent.
    Percent,
}

/// Something about the output, being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What.
    pub about: About,
    /// The line.
    pub editor: Editor,
    /// Why it is not understood.
    pub problem: Option<String>,
}

/// An output that is being written to files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saving {
    /// Its tag.
    pub tag: u64,
    /// Where it goes, clean.
    pub path: String,
    /// Bytes that were written.
    pub bytes: u64,
    /// Bytes there are, as far as they are known.
    pub of: u64,
}

/// A question whose safe answer is «no».
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirm {
    /// What.
    pub deed: Deed,
    /// The command.
    pub id: CommandId,
    /// Whether «yes» has the focus.
    pub is_yes: bool,
}

/// How much a line about what happened matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// As wished.
    Good,
    /// Worth a look.
    Warn,
    /// It went wrong.
    Bad,
}

/// A line about what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What.
    pub text: String,
    /// How much it matters.
    pub severity: Severity,
    /// Until when it stays, ms.
    pub until_ms: u64,
}

/// One moment by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// By one that goes on steadily, ms.
    pub ms: u64,
    /// By the one that people set, Unix ms.
    pub wall_ms: u64,
}

/// Everything the screen shows.
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
#[derive(Debug)]
pub struct State {
    /// How it is drawn, who asks, which fleet.
    pub options: TuiOptions,
    /// Columns and rows.
    pub size: (u16, u16),
    /// The moment that is shown, ms: that of the newest event, unless what is shown is held still. It goes on steadily,
    /// whatever is done to the clock. For ages of what happened here.
    pub now_ms: u64,
    /// The same by this machine's clock, Unix ms. For the clock that is shown, and for ages of what others gave a time.
    pub wall_ms: u64,
    /// Now as of the newest event, ms, whatever is shown: for what happens by time.
    pub real_ms: u64,
    /// The same by this machine's clock, Unix ms.
    pub real_wall_ms: u64,
    /// Whether what is shown is held still.
    pub is_frozen: bool,
    /// The connection.
    pub link: LinkView,
    /// Since when the connection is as it is, ms.
    pub link_since_ms: u64,
    /// When machines were last told in full, ms; `None` = never.
    pub snapshot_ms: Option<u64>,
    /// When a snapshot was last asked for, ms.
    pub refreshed_ms: u64,
    /// Whether the session has ended.
    pub is_session_over: bool,
    /// Whether a key was pressed since the start.
    pub is_touched: bool,
    /// Machines.
    pub fleet: Fleet,
    /// The machines as they were, where those are looked at.
    pub past: Past,
    /// Commands.
    pub commands: Commands,
    /// How the fleet is.
    pub pulse: Pulse,
    /// How bridge and broker are; `None` = not told yet.
    pub health: Option<Box<HealthView>>,
    /// Other lists, as far as they were looked at.
    pub lists: HashMap<ListKind, Rows>,
    /// What fills the screen.
    pub screen: Screen,
    /// Where Esc leads, the next last.
    pub under: Vec<Screen>,
    /// Screens that were gone back from, the next last.
    pub ahead: Vec<Screen>,
    /// The screen before this one.
    pub other: Option<Screen>,
    /// First line that is seen of a screen without rows.
    pub top: usize,
    /// What lies over it.
    pub modal: Option<Modal>,
    /// The page of one command.
    pub page: CommandPage,
    /// The page of one machine.
    pub one: MachinePage,
    /// The output that fills the screen.
    pub output: Output,
    /// The output that is being saved.
    pub saving: Option<Saving>,
    /// What happened.
    pub status: Option<Status>,
    /// Texts of commands of this session, the newest last.
    pub texts: Vec<String>,
    /// Lines of the palette of this session, the newest last.
    pub lines: Vec<String>,
    /// Whether the mouse is ours.
    pub has_mouse: bool,
    /// Whether the header is left out.
    pub is_headless: bool,
    /// Tag of the newest ask.
    pub tag: u64,
    /// Set when the console is to be left.
    pub quit: bool,
}

impl State {
    /// The first screen, before anything was told.
    pub fn new(options: TuiOptions, size: (u16, u16), now: Now) -> Self {
        let Now { ms: now_ms, wall_ms } = now;
        let mut fleet = Fleet::default();
        if let Some(view) = options.views.get("machines") {
            fleet.set_view(view, now_ms);
        }
        Self {
            has_mouse: options.mouse,
            is_headless: options.headless,
            options,
            size,
            now_ms,
            wall_ms,
            real_ms: now_ms,
            real_wall_ms: wall_ms,
            is_frozen: false,
            link: LinkView::default(),
            link_since_ms: now_ms,
            snapshot_ms: None,
            refreshed_ms: now_ms,
            is_session_over: false,
            is_touched: false,
            fleet,
            past: Past::default(),
            commands: Commands::default(),
            pulse: Pulse::default(),
            health: None,
            lists: HashMap::new(),
            screen: Screen::Machines,
            under: Vec::new(),
            ahead: Vec::new(),
            other: None,
            top: 0,
            modal: None,
            page: CommandPage::default(),
            one: MachinePage::default(),
            output: Output::default(),
            saving: None,
            status: None,
            texts: Vec::new(),
            lines: Vec::new(),
            tag: 0,
            quit: false,
        }
    }

    /// Now as of the newest event.
    pub fn now(&self) -> Now {
        Now { ms: self.now_ms, wall_ms: self.wall_ms }
    }

    /// The machines that the list of them shows: as they are, or as they were.
    pub fn sight(&self) -> &Fleet {
        self.past.fleet().unwrap_or(&self.fleet)
    }

    /// The same, to be moved in, marked, sorted and filtered.
    pub fn sight_mut(&mut self) -> &mut Fleet {
        self.past.fleet_mut().unwrap_or(&mut self.fleet)
    }

    /// The moment that those machines are shown at, ms by the clock that their signs of life were given.
    pub fn sight_ms(&self) -> u64 {
        self.past.shown_at().unwrap_or(self.now_ms)
    }

    /// What keys mean now.
    pub fn mode(&self) -> Mode {
        match (&self.modal, &self.screen) {
            (Some(Modal::Filter { .. }), _) => Mode::Filter,
            (Some(Modal::Prompt(prompt)), _) if prompt.search.is_some() => Mode::Search,
            (Some(Modal::Prompt(_)), _) => Mode::Prompt,
            (Some(Modal::Palette(_)), _) => Mode::Palette,
            (Some(Modal::Line(_)), _) => Mode::Line,
            (Some(Modal::Columns { .. }), _) => Mode::Columns,
            (Some(Modal::Confirm(_)), _) => Mode::Confirm,
            (Some(Modal::Help { .. }), _) => Mode::Help,
            (None, screen) => screen.mode(),
        }
    }

    /// Says what happened.
    pub fn say(&mut self, severity: Severity, text: impl Into<String>) {
        self.status = Some(Status { text: text.into(), severity, until_ms: self.real_ms + STATUS_MS });
    }

    /// An ask did not leave: who waits for its answer waits no longer, and the line stays to be sent again.
    pub fn unsent(&mut self, ask: &Ask, why: &str) {
        match ask {
            Ask::LookUp { tag, .. } => {
                if let Some(Modal::Prompt(prompt)) = &mut self.modal
                    && prompt.seen == Seen::Asked(*tag)
                {
                    prompt.seen = Seen::Failed(why.to_owned());
                }
            }
            Ask::Run { tag, .. } => {
                if let Some(Modal::Prompt(prompt)) = &mut self.modal
                    && prompt.asked == Some(*tag)
                {
                    prompt.asked = None;
                    prompt.refusal = Some(why.to_owned());
                }
            }
            Ask::Watch { id } => {
                if let Some(command) = self.commands.get_mut(*id) {
                    command.is_watched = false;
                }
            }
            Ask::Look(kind) => {
                if let Some(rows) = self.lists.get_mut(kind) {
                    rows.fail(why.to_owned());
                }
            }
            Ask::LookAt { tab, .. } => {
                self.one.rows_asked_ms = None;
                self.rows_mut(ListKind::Of(*tab)).fail(why.to_owned());
            }
            Ask::Over { time, .. } => {
                self.one.figures_asked_ms = None;
                self.one.fail(time.to.saturating_sub(time.from), why.to_owned());
            }
            Ask::FleetAt(at) => self.past.unsent(*at, why),
            Ask::ReadOutput { from, .. } => {
                if let Some(stored) = &mut self.output.stored {
                    stored.pages.tell(*from, Err(why.to_owned()));
                }
            }
            Ask::Save(save) => {
                self.saving.take_if(|saving| saving.tag == save.tag);
            }
            Ask::Unwatch { .. }
            | Ask::Cancel { .. }
            | Ask::Steer { .. }
            | Ask::Refresh
            | Ask::StopSave { .. } => {}
        }
    }

    /// The list on the screen, or the one that the row on it is of.
    pub fn shown_list(&self) -> Option<ListKind> {
        match self.screen {
            Screen::List(kind) | Screen::Item(kind, _) => Some(kind),
            Screen::Machine(_) => Some(ListKind::Of(self.one.tab)),
            Screen::Pulse | Screen::Machines | Screen::Commands | Screen::Command(_) | Screen::Output(..) => {
                None
            }
        }
    }

    /// The list whose rows are on the screen.
    pub fn list_of_rows(&self) -> Option<ListKind> {
        match self.screen {
            Screen::Item(..) => None,
            _ => self.shown_list(),
        }
    }

    /// Columns of the list on the screen by name, those that are shown first, and whether they are.
    pub fn choice(&self) -> Vec<(&'static str, bool)> {
        if self.screen == Screen::Machines {
            return self.sight().choice();
        }
        let kind = self.list_of_rows();
        kind.and_then(|kind| self.rows(kind)).map(Rows::choice).unwrap_or_default()
    }

    /// The rows of a list.
    pub fn rows(&self, kind: ListKind) -> Option<&Rows> {
        self.lists.get(&kind)
    }

    /// The rows of a list, to be changed.
    pub fn rows_mut(&mut self, kind: ListKind) -> &mut Rows {
        let view = self.options.views.get(kind.name());
        self.lists.entry(kind).or_insert_with(|| {
            let mut rows = Rows::new(kind);
            if let Some(view) = view {
                rows.set_view(view);
            }
            rows
        })
    }

    /// The command on the screen.
    pub fn shown_command(&self) -> Option<CommandId> {
        match self.screen {
            Screen::Command(id) | Screen::Output(id, _) => Some(id),
            Screen::Pulse
            | Screen::Machines
            | Screen::Machine(_)
            | Screen::Commands
            | Screen::List(_)
            | Screen::Item(..) => None,
        }
    }

    /// Puts rows in order and cursors in sight: called once before a frame, however much happened.
    pub fn settle(&mut self) {
        let shown = self.shown_command();
        self.commands.settle(shown, self.real_ms);
        self.settle_prompt();
        let areas = layout::areas(self);
        let rows = usize::from(areas.list.height);
        self.fleet.settle(self.now_ms);
        if let (Some(at), Some(past)) = (self.past.shown_at(), self.past.fleet_mut()) {
            past.settle(at);
        }
        let len = self.sight().seen();
        match &self.screen {
            Screen::Pulse => self.settle_pulse(),
            Screen::Machines => self.sight_mut().cursor.scroll(len, rows),
            Screen::Commands => {
                let len = self.commands.order().len();
                self.commands.cursor.scroll(len, rows);
            }
            Screen::Command(id) => {
                self.page.settle(self.commands.get(*id));
                let len = self.page.rows().len();
                self.page.cursor.scroll(len, rows);
            }
            Screen::Machine(_) | Screen::List(_) => {
                self.settle_facts();
                if let Some(list) = self.list_of_rows().and_then(|kind| self.lists.get_mut(&kind)) {
                    list.cursor.scroll(list.order().len(), rows);
                }
            }
            Screen::Item(..) => self.settle_facts(),
            Screen::Output(..) => self.settle_output(),
        }
    }
}

impl State {
    /// What the machine on the screen is stands here already.
    fn settle_facts(&mut self) {
        let kind = ListKind::Of(Tab::Facts);
        if self.shown_list() != Some(kind) {
            return;
        }
        let machine = self.one.token.as_ref().and_then(|token| self.fleet.get(token));
        let items = lists::machine::items(Tab::Facts, Part::Nothing, machine);
        let (now_ms, wall_ms) = (self.real_ms, self.wall_ms);
        self.rows_mut(kind).tell(items, now_ms, wall_ms);
    }

    /// Looks at the machines that a command is written for.
    fn settle_prompt(&mut self) {
        let Some(Modal::Prompt(prompt)) = &mut self.modal else { return };
        let now_ms = self.now_ms;
        if prompt.survey.as_ref().is_none_or(|survey| survey.is_old(now_ms)) {
            prompt.survey = Some(Survey::of(&self.fleet, &prompt.targets, &self.options.place, now_ms));
        }
    }

    /// Brings the output on the screen up to date. What is to be asked for is asked with the next event.
    fn settle_output(&mut self) {
        let frame = layout::frame(self);
        if let Some(command) = self.shown_command().and_then(|id| self.commands.get(id)) {
            self.output.see(command, frame);
        }
    }

    /// Looks for what needs a look.
    fn settle_pulse(&mut self) {
        // A look at all machines, several times: not for each key.
        let is_old = |made_ms: u64| self.real_ms.saturating_sub(made_ms) >= PULSE_MS;
        if self.pulse.made_ms.is_none_or(is_old) {
            self.pulse.made_ms = Some(self.real_ms);
            self.pulse.concerns = pulse::concerns(self);
            self.pulse.busiest = pulse::busiest(self);
            let keys = self.pulse.keys();
            self.pulse.cursor.find(&keys);
        }
        let rows = usize::from(layout::pulse(self).concerns.height).saturating_sub(1);
        self.pulse.cursor.scroll(self.pulse.concerns.len(), rows);
    }
}

impl Screen {
    /// What keys mean on it.
    pub fn mode(&self) -> Mode {
        match self {
            Self::Pulse => Mode::Pulse,
            Self::Machines => Mode::Machines,
            Self::Machine(_) => Mode::Machine,
            Self::Commands => Mode::Commands,
            Self::Command(_) => Mode::Command,
            Self::Output(..) => Mode::Output,
            Self::List(_) => Mode::List,
            Self::Item(..) => Mode::Item,
        }
    }
}
