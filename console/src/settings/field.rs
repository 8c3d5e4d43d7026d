//! Every key of the file: its kind, its default and its words.
//!
//! The one place that says so: the check, the default file and the schema are made from it, and a test holds it against the
//! types.

use super::{
    context::CONTEXTS,
    keys::REBINDINGS,
    look::CLIPBOARD_MOST,
    saved::{COMMANDS, NAME},
    views::COLUMNS,
};
use signalbox_schemas::limit;

/// A table of the file.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// How often it is there.
    pub shape: Shape,
    /// What it is, a line each.
    pub words: &'static [&'static str],
    /// Its keys.
    pub fields: &'static [Field],
}

/// How often a table is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Once: `[look]`.
    Once,
    /// Once, with tables of free keys in it: `[keys]` and `[keys.machines]`, this many keys in all.
    Keys(usize),
    /// By name: `[views.machines]`, up to so many. The second is the name in the example.
    Named(usize, &'static str),
    /// As a list: `[[command]]`, up to so many.
    Many(usize),
}

/// A key.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// Whether something must stand there.
    pub required: bool,
    /// What counts when nothing stands there, in TOML; `None`: nothing does.
    pub default: Option<&'static str>,
    /// What the default file shows in its stead where there is no default, in TOML.
    pub example: &'static str,
    /// What it means, a line each.
    pub words: &'static [&'static str],
}

/// What may stand at a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// `"auto"`, `true` or `false`.
    Choice,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text of at most so many bytes, on one line.
    Line(usize),
    /// A text of at most so many bytes.
    Text(usize),
    /// Up to so many names.
    Names(usize),
    /// A whole number from one to the other.
    Count(usize, usize),
    /// A time such as `"30s"`, from one to the other, ms.
    Time(u64, u64),
    /// A size such as `"64KiB"`, from one to the other, bytes.
    Size(u64, u64),
    /// Text that means machines; if the first is set, it may be empty.
    Selector(bool),
    /// The address of a broker.
    Url,
    /// A path: absolute, from `~/`, or from the folder of the file.
    Path,
}

/// Most bytes of a path or an address.
const PATH: usize = 4 * 1024;
/// Most bytes of a name.
const WORD: usize = 128;

const fn field(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    words: &'static [&'static str],
) -> Field {
    Field { name, kind, required: false, default: Some(default), example: default, words }
}

const fn optional(
    name: &'static str,
    kind: Kind,
    example: &'static str,
    words: &'static [&'static str],
) -> Field {
    Field { name, kind, required: false, default: None, example, words }
}

const fn required(
    name: &'static str,
    kind: Kind,
    example: &'static str,
    words: &'static [&'static str],
) -> Field {
    Field { name, kind, required: true, default: None, example, words }
}

/// All tables, in the order of the default file.
pub const SECTIONS: &[Section] = &[LOOK, KEYS, VIEWS, RUN, WHERE, CLIPBOARD, COMMAND, CONTEXT];

const LOOK: Section = Section {
    name: "look",
    shape: Shape::Once,
    words: &["How the console looks."],
    fields: &[
        field(
            "theme",
            Kind::Word(&["auto", "dark", "light", "16", "mono"]),
            r#""auto""#,
            &[
                "Colours: for a dark or a light background, the terminal's own 16, none (mono),",
                "or by what the terminal says of itself (auto). NO_COLOR is always obeyed.",
            ],
        ),
        field(
            "ascii",
            Kind::Choice,
            r#""auto""#,
            &["No characters beyond ASCII: true, false, or by the locale (\"auto\")."],
        ),
        field(
            "reduced_motion",
            Kind::Bool,
            "false",
            &["No animation. SIGNALBOX_REDUCED_MOTION=1 asks for the same."],
        ),
        field(
            "mouse",
            Kind::Bool,
            "false",
            &["Takes the mouse; the terminal then selects text with Shift held down only."],
        ),
        field("header", Kind::Bool, "true", &["The line with the fleet's figures."]),
        field("crumbs", Kind::Bool, "true", &["The line that says where you are."]),
    ],
};

const KEYS: Section = Section {
    name: "keys",
    shape: Shape::Keys(REBINDINGS),
    words: &[
        "What keys mean in the console. Tables [keys.MODE] give single keys another action, or \"none\".",
    ],
    fields: &[field(
        "profile",
        Kind::Word(&["default", "vim", "emacs"]),
        r#""default""#,
        &["The keys that are not named: the console's own, or as in vi or Emacs."],
    )],
};

const VIEWS: Section = Section {
    name: "views",
    shape: Shape::Named(64, "machines"),
    words: &["Columns and order of a view of the console, a table for each view."],
    fields: &[
        optional(
            "columns",
            Kind::Names(COLUMNS),
            r#"["name", "labels", "cpu"]"#,
            &["Its columns, from left to right."],
        ),
        optional(
            "sort",
            Kind::Line(WORD),
            r#""-cpu""#,
            &["The column it is sorted by; with - before it the largest comes first."],
        ),
    ],
};

const RUN: Section = Section {
    name: "run",
    shape: Shape::Once,
    words: &["How commands are run, by the console and by the command line."],
    fields: &[
        field(
            "confirm_above",
            Kind::Count(0, limit::TARGETS),
            "50",
            &["On more machines than this their number is to be typed first."],
        ),
        field(
            "protected",
            Kind::Selector(true),
            r#""""#,
            &[
                "On machines that this selector means (such as \"env=prod\") it is always to be typed; \"\" means none.",
            ],
        ),
        field(
            "timeout",
            Kind::Time(1, *limit::TIMEOUT_MS.end()),
            r#""30s""#,
            &["How long a command may run, up to 2d, unless it says so itself."],
        ),
        field(
            "expires_in",
            Kind::Time(1, limit::MAX_EXPIRES_IN_MS),
            r#""1d""#,
            &["How long it waits for machines that are offline, up to 7d."],
        ),
        field(
            "read_only",
            Kind::Bool,
            "false",
            &[
                "The console only looks: it runs, cancels and steers nothing. The command line goes on as it is.",
            ],
        ),
    ],
};

const WHERE: Section = Section {
    name: "where",
    shape: Shape::Once,
    words: &["Where machines are, for whoever is about to run something on them."],
    fields: &[field("label", Kind::Line(WORD), r#""dc""#, &["The label that says so."])],
};

const CLIPBOARD: Section = Section {
    name: "clipboard",
    shape: Shape::Once,
    words: &["How the console copies."],
    fields: &[
        field(
            "via",
            Kind::Word(&["auto", "osc52", "native", "none"]),
            r#""auto""#,
            &[
                "By the terminal (osc52, works through SSH), by a program of this machine (native), not at all (none),",
                "or what fits (auto).",
            ],
        ),
        field(
            "max_bytes",
            Kind::Size(1, CLIPBOARD_MOST),
            r#""100KiB""#,
            &["What is longer is not copied, up to 16MiB. Many terminals take no more than 100KiB."],
        ),
    ],
};

const COMMAND: Section = Section {
    name: "command",
    shape: Shape::Many(COMMANDS),
    words: &[
        "Saved commands, as many as you like. `signalbox run --saved NAME` runs one, and `:saved NAME` in the console.",
        "{{unit}} in the text is asked for, {{unit=nginx}} has a default. What is filled in is quoted for the shell:",
        "put no quotes around it.",
    ],
    fields: &[
        required("name", Kind::Line(NAME), r#""restart""#, &["What it is called."]),
        required(
            "text",
            Kind::Text(limit::COMMAND_TEXT_BYTES),
            r#""systemctl restart {{unit=nginx}}""#,
            &["What `sh -c` gets."],
        ),
        optional("on", Kind::Selector(false), r#""web-*""#, &["The machines it is for."]),
        optional("timeout", Kind::Time(1, *limit::TIMEOUT_MS.end()), r#""2m""#, &["How long it may run."]),
        Field {
            default: Some("false"),
            ..optional("confirm", Kind::Bool, "true", &["The number of machines is to be typed each time."])
        },
    ],
};

const CONTEXT: Section = Section {
    name: "contexts",
    shape: Shape::Named(CONTEXTS, "prod"),
    words: &[
        "Several fleets, a table for each. `signalbox context use NAME` changes over; --context NAME and",
        "SIGNALBOX_CONTEXT go before that. Paths are absolute, from ~/, or from the folder of this file.",
    ],
    fields: &[
        optional(
            "state_dir",
            Kind::Path,
            r#""~/.local/state/signalbox""#,
            &["The state directory. Without it the context has one of its own for what is kept here."],
        ),
        optional(
            "login",
            Kind::Path,
            r#""prod.creds""#,
            &["Whose login is used instead of the state directory's, and the seed that signs for it."],
        ),
        optional("signing_key", Kind::Path, r#""prod.seed""#, &[]),
        optional("nats", Kind::Url, r#""nats://broker.example:4222""#, &["The broker's address."]),
        Field {
            default: Some("false"),
            ..optional(
                "protected",
                Kind::Bool,
                "true",
                &["Its name is shown in red, and `run` always asks for the number of machines."],
            )
        },
        optional(
            "colour",
            Kind::Word(&["red", "yellow", "green", "cyan", "blue", "magenta"]),
            r#""magenta""#,
            &["How its name is shown."],
        ),
    ],
};

impl Kind {
    /// What may stand there, in words.
    pub fn expected(&self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Choice => "\"auto\", true or false".to_owned(),
            Self::Word(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Self::Line(most) => format!("a text on one line, at most {most} bytes"),
            Self::Text(most) => format!("a text of at most {most} bytes"),
            Self::Names(most) => format!("a list of at most {most} names"),
            Self::Count(least, most) => format!("a whole number from {least} to {most}"),
            Self::Time(least, most) => {
                format!("a time from {least}ms to {}h such as \"30s\", \"5m\" or \"2h\"", most / 3_600_000)
            }
            Self::Size(least, most) => {
                format!("a size from {least}B to {}MiB such as \"64KiB\"", most >> 20)
            }
            Self::Selector(_) => "a selector such as \"web-*\" or \"all\"".to_owned(),
            Self::Url => {
                format!("the address of a broker such as \"nats://host:4222\", at most {PATH} bytes")
            }
            Self::Path => format!("a path of at most {PATH} bytes"),
        }
    }

    /// Most bytes of its text.
    pub(super) fn most_bytes(&self) -> usize {
        match self {
            Self::Line(most) | Self::Text(most) => *most,
            Self::Selector(_) => limit::SELECTOR_BYTES,
            Self::Url | Self::Path => PATH,
            Self::Names(_) | Self::Word(_) | Self::Choice | Self::Time(..) | Self::Size(..) => WORD,
            Self::Bool | Self::Count(..) => 0,
        }
    }
}
