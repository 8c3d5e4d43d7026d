//! Colours and glyphs by meaning. Two accents, three severities, the rest in tones; every meaning has a shape
//! or a word too, so that colour alone says nothing.

mod remote;

use ratatui::style::{Color, Modifier, Style};
use signalbox_schemas::{api::Liveness, run::RunState};

pub use self::remote::Remote;
use super::{TuiOptions, state::Severity};

/// CPU and memory are worth a look from this on, and bad from the second on, percent.
const LOAD_LIMITS: (u8, u8) = (75, 90);
/// Disks likewise.
const DISK_LIMITS: (u8, u8) = (85, 95);

/// Which colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// Mid tones of the 256 colours: they read on dark and on light.
    #[default]
    Auto,
    /// For a dark screen.
    Dark,
    /// For a light one.
    Light,
    /// The sixteen colours that the terminal itself has.
    Sixteen,
    /// No colour: weight only.
    Mono,
}

impl Tone {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Dark, Self::Light, Self::Sixteen, Self::Mono];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Dark => "dark",
            Self::Light => "light",
            Self::Sixteen => "16",
            Self::Mono => "mono",
        }
    }

    /// One by its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tone| tone.name() == name)
    }
}

/// What a style means.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    /// Where one is: the cursor, the path, what has the focus.
    pub accent: Style,
    /// What was chosen: marks, filter, sorting.
    pub chosen: Style,
    /// As it should be.
    pub good: Style,
    /// Worth a look.
    pub warn: Style,
    /// Wrong.
    pub bad: Style,
    /// Text.
    pub text: Style,
    /// Text that stands out.
    pub strong: Style,
    /// Heads, units, what explains.
    pub quiet: Style,
    /// What is old or not known, rules.
    pub faint: Style,
    /// Figures as bars and graphs.
    pub figure: Style,
    /// What was looked for, where it was found.
    pub found: Style,
    /// Colours of remote output.
    pub remote: Remote,
    /// Shapes.
    pub glyphs: &'static Glyphs,
}

/// Shapes.
#[derive(Debug)]
pub struct Glyphs {
    /// The row under the cursor.
    pub cursor: &'static str,
    /// A marked row.
    pub mark: &'static str,
    /// Between the parts of the path.
    pub path: &'static str,
    /// Horizontal rule.
    pub rule: &'static str,
    /// Vertical rule.
    pub wall: &'static str,
    /// Corners of a box: top left, top right, bottom left, bottom right.
    pub corners: [&'static str; 4],
    /// Ends a text that was cut.
    pub ellipsis: char,
    /// Full and empty part of a bar.
    pub bar: [&'static str; 2],
    /// Eight heights, lowest first.
    pub heights: [&'static str; 8],
    /// Whether dots in cells (braille) can be drawn.
    pub has_dots: bool,
    /// Nothing was heard.
    pub gap: &'static str,
    /// Downwards, upwards.
    pub arrows: [&'static str; 2],
    /// A group that is closed, and one that is open.
    pub folds: [&'static str; 2],
    /// Around what is chosen by left and right.
    pub choice: [&'static str; 2],
    /// Between small things.
    pub dot: &'static str,
    /// A value that is not known.
    pub unknown: &'static str,
    /// Good, worth a look, bad.
    pub severity: [&'static str; 3],
    /// Online, stale, offline.
    pub liveness: [&'static str; 3],
    /// Run states in the order of [`RunState::ALL`].
    pub runs: [&'static str; 11],
}

static UNICODE: Glyphs = Glyphs {
    cursor: "▌",
    mark: "✓",
    path: "▸",
    rule: "─",
    wall: "│",
    corners: ["╭", "╮", "╰", "╯"],
    ellipsis: '…',
    bar: ["█", "░"],
    heights: ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
    has_dots: true,
    gap: " ",
    arrows: ["▼", "▲"],
    folds: ["▸", "▾"],
    choice: ["‹ ", " ›"],
    dot: "·",
    unknown: "–",
    severity: ["✔", "▲", "✖"],
    liveness: ["●", "◐", "○"],
    runs: ["◌", "○", "◔", "◐", "✔", "✖", "◷", "⊘", "⊖", "⊗", "?"],
};

static ASCII: Glyphs = Glyphs {
    cursor: ">",
    mark: "+",
    path: ">",
    rule: "-",
    wall: "|",
    corners: ["+", "+", "+", "+"],
    ellipsis: '~',
    bar: ["#", "."],
    heights: ["_", ".", ":", "-", "=", "+", "*", "#"],
    has_dots: false,
    gap: " ",
    arrows: ["v", "^"],
    folds: [">", "v"],
    choice: ["< ", " >"],
    dot: "-",
    unknown: "-",
    severity: ["+", "!", "x"],
    liveness: ["*", "~", "o"],
    runs: ["_", "o", "%", ">", "+", "x", "t", "/", "e", "r", "?"],
};

impl Theme {
    /// The theme for this terminal.
    pub fn new(options: &TuiOptions) -> Self {
        let glyphs = if options.ascii { &ASCII } else { &UNICODE };
        let remote = Remote::new(options);
        let indexed = |tones: [u8; 8]| Self::coloured(glyphs, remote, tones.map(Color::Indexed));
        match options.tone {
            _ if options.no_color => Self::plain(glyphs, remote),
            Tone::Auto => indexed([39, 172, 71, 178, 167, 246, 241, 67]),
            Tone::Dark => indexed([81, 215, 114, 221, 210, 249, 244, 110]),
            Tone::Light => indexed([25, 130, 28, 136, 160, 240, 246, 24]),
            Tone::Sixteen => Self::coloured(
                glyphs,
                remote,
                [
                    Color::Cyan,
                    Color::Magenta,
                    Color::Green,
                    Color::Yellow,
                    Color::Red,
                    Color::Reset,
                    Color::DarkGray,
                    Color::Blue,
                ],
            ),
            Tone::Mono => Self::plain(glyphs, remote),
        }
    }

    /// Two accents, three severities, two tones of text, and figures.
    fn coloured(glyphs: &'static Glyphs, remote: Remote, colours: [Color; 8]) -> Self {
        let [accent, chosen, good, warn, bad, quiet, faint, figure] =
            colours.map(|colour| Style::new().fg(colour));
        Self {
            accent: accent.add_modifier(Modifier::BOLD),
            chosen,
            good,
            warn,
            bad: bad.add_modifier(Modifier::BOLD),
            text: Style::new(),
            strong: Style::new().add_modifier(Modifier::BOLD),
            quiet,
            faint,
            figure,
            found: chosen.add_modifier(Modifier::REVERSED),
            remote,
            glyphs,
        }
    }

    /// Without colours: weight only.
    fn plain(glyphs: &'static Glyphs, remote: Remote) -> Self {
        let (plain, bold) = (Style::new(), Style::new().add_modifier(Modifier::BOLD));
        let dim = Style::new().add_modifier(Modifier::DIM);
        Self {
            accent: bold,
            chosen: bold,
            good: plain,
            warn: bold,
            bad: bold,
            text: plain,
            strong: bold,
            quiet: plain,
            faint: dim,
            figure: plain,
            found: plain.add_modifier(Modifier::REVERSED),
            remote,
            glyphs,
        }
    }

    /// Shape and style of a liveness.
    pub fn liveness(&self, liveness: Liveness) -> (&'static str, Style) {
        let [online, stale, offline] = self.glyphs.liveness;
        match liveness {
            Liveness::Online => (online, self.good),
            Liveness::Stale => (stale, self.warn),
            Liveness::Offline => (offline, self.bad),
        }
    }

    /// Shape and style of a run's state.
    pub fn run(&self, state: RunState) -> (&'static str, Style) {
        let at = RunState::ALL.iter().position(|known| *known == state);
        let glyph = at.and_then(|at| self.glyphs.runs.get(at)).copied().unwrap_or(self.glyphs.unknown);
        let style = match state {
            RunState::Held | RunState::Pending => self.quiet,
            RunState::Claimed | RunState::Executing => self.accent,
            RunState::Completed => self.good,
            RunState::Failed | RunState::Lost | RunState::Rejected => self.bad,
            RunState::Timeout | RunState::Cancelled | RunState::Expired => self.warn,
        };
        (glyph, style)
    }

    /// Shape and style of a line about what happened.
    pub fn severity(&self, severity: Severity) -> (&'static str, Style) {
        let [good, warn, bad] = self.glyphs.severity;
        match severity {
            Severity::Good => (good, self.good),
            Severity::Warn => (warn, self.warn),
            Severity::Bad => (bad, self.bad),
        }
    }

    /// How CPU or memory in use is shown.
    pub fn load(&self, percent: u8) -> Style {
        self.limited(percent, LOAD_LIMITS)
    }

    /// How a disk is shown.
    pub fn disk(&self, percent: u8) -> Style {
        self.limited(percent, DISK_LIMITS)
    }

    fn limited(&self, percent: u8, (warn, bad): (u8, u8)) -> Style {
        match percent {
            percent if percent >= bad => self.bad,
            percent if percent >= warn => self.warn,
            _ => self.text,
        }
    }
}
