//! What a comparison asks for, and how values of it are written.

use crate::{api::Liveness, label::LabelKey};

use super::pattern::{Manner, Pattern};

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Name,
    Token,
    State,
    Host,
    Os,
    Kernel,
    Arch,
    Relay,
    Cpu,
    Mem,
    Disk,
    Load,
    Cpus,
    Memory,
    Up,
    Heard,
    Running,
    Waiting,
    Label(LabelKey),
}

/// All but labels. The page about selectors has the same list.
pub(super) const FIELDS: [(&str, Field); 18] = [
    ("name", Field::Name),
    ("token", Field::Token),
    ("state", Field::State),
    ("host", Field::Host),
    ("os", Field::Os),
    ("kernel", Field::Kernel),
    ("arch", Field::Arch),
    ("relay", Field::Relay),
    ("cpu", Field::Cpu),
    ("mem", Field::Mem),
    ("disk", Field::Disk),
    ("load", Field::Load),
    ("cpus", Field::Cpus),
    ("memory", Field::Memory),
    ("up", Field::Up),
    ("heard", Field::Heard),
    ("running", Field::Running),
    ("waiting", Field::Waiting),
];

/// What goes before a label that is called like a field.
const LABEL: &str = "label.";

/// How values of a field are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text.
    Text(Manner),
    /// A text that has an order when it begins with dotted numbers.
    Version(Manner),
    /// One of three.
    State,
    /// 0 to 100.
    Percent,
    /// A number.
    Number,
    /// Bytes.
    Size,
    /// Milliseconds.
    Duration,
}

const FACT: Manner = Manner { any_case: true, is_beginning: false };
const BEGINNING: Manner = Manner { any_case: true, is_beginning: true };

impl Field {
    /// The field that a word names; `None`: neither a field nor a label's key.
    pub(super) fn of(word: &str) -> Option<Self> {
        let field = FIELDS.iter().find(|(name, _)| *name == word).map(|(_, field)| field.clone());
        let key = || LabelKey::new(word.strip_prefix(LABEL).unwrap_or(word)).ok().map(Field::Label);
        field.or_else(key)
    }

    pub(super) fn written(&self) -> String {
        let Self::Label(key) = self else {
            let name = FIELDS.iter().find(|(_, field)| field == self).map_or("", |(name, _)| name);
            return name.to_owned();
        };
        let is_plain =
            Self::of(key.as_str()).as_ref() == Some(self) && !super::parse::is_reserved(key.as_str());
        if is_plain { key.to_string() } else { format!("{LABEL}{key}") }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Name | Self::Token => Kind::Text(Manner::EXACT),
            Self::Host | Self::Arch => Kind::Text(FACT),
            Self::Os => Kind::Text(BEGINNING),
            Self::Kernel | Self::Relay => Kind::Version(BEGINNING),
            Self::Label(_) => Kind::Version(Manner::EXACT),
            Self::State => Kind::State,
            Self::Cpu | Self::Mem | Self::Disk => Kind::Percent,
            Self::Load | Self::Cpus | Self::Running | Self::Waiting => Kind::Number,
            Self::Memory => Kind::Size,
            Self::Up | Self::Heard => Kind::Duration,
        }
    }
}

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(Pattern),
    Version(Version),
    State(Liveness),
    Number(f64),
}

/// Dotted numbers, in their order; `1.4` and `1.4.0` are the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(Vec<u64>);

impl Version {
    /// The numbers at the beginning of a text: `6.1.0-18-amd64` is 6.1.0. `None` where it begins with none.
    pub(super) fn beginning(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        Self::exactly(text.get(..end)?.trim_end_matches('.'))
    }

    /// A text that is nothing else: at most eight numbers of at most 18 digits.
    pub(super) fn exactly(text: &str) -> Option<Self> {
        let number = |part: &str| {
            let is_one = (1..=18).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            is_one.then(|| part.parse().ok()).flatten()
        };
        let mut numbers: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
        let is_short = numbers.len() <= 8;
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        is_short.then_some(Self(numbers))
    }
}

const SIZES: [(&str, f64); 13] = [
    ("", 1.0),
    ("B", 1.0),
    ("K", 1024.0),
    ("KiB", 1024.0),
    ("M", 1_048_576.0),
    ("MiB", 1_048_576.0),
    ("G", 1_073_741_824.0),
    ("GiB", 1_073_741_824.0),
    ("T", 1_099_511_627_776.0),
    ("TiB", 1_099_511_627_776.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
];

const DURATIONS: [(&str, f64); 5] = [("ms", 1.0), ("s", 1e3), ("m", 60e3), ("h", 3_600e3), ("d", 86_400e3)];

/// The number that a word means, or what would be one.
pub(super) fn number(kind: Kind, word: &str) -> Result<f64, &'static str> {
    let (read, rule): (Option<f64>, _) = match kind {
        Kind::Percent => {
            let number = plain(word.strip_suffix('%').unwrap_or(word));
            (number.filter(|number| *number <= 100.0), "expected a percentage from 0 to 100, such as `90%`")
        }
        Kind::Size => (with_unit(word, &SIZES), "expected a size, such as `8GiB`, `512MiB` or `16GB`"),
        Kind::Duration => {
            (with_unit(word, &DURATIONS), "expected a duration, such as `90s`, `5m`, `2h` or `3d`")
        }
        _ => (plain(word), "expected a number"),
    };
    read.ok_or(rule)
}

fn with_unit(word: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (number, unit) = word.split_at_checked(end)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    plain(number).map(|number| number * factor)
}

/// Digits with at most one point within; not more than 15 of them, so that each number is the one that was written.
fn plain(text: &str) -> Option<f64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (text.len() <= 15 && is_digits(whole) && is_digits(part)).then(|| text.parse().ok()).flatten()
}
