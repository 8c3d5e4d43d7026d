//! Whether a machine is meant: yes, no, or nobody knows.

use crate::{
    api::Liveness,
    heartbeat::{Facts, Metrics},
    id::{MachineId, MachineToken},
    label::Labels,
};

use super::{
    ast::{Compare, Node},
    field::{Field, Value, Version},
    lex::Sign,
};

/// An answer. Not knowing is one: `not unknown` is unknown, and only what is certainly true is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// Certainly not.
    No,
    /// What is known does not tell.
    Unknown,
    /// Certainly.
    Yes,
}

impl Truth {
    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }

    fn of(known: Option<bool>) -> Self {
        match known {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => Self::Unknown,
        }
    }
}

/// What is known of a machine. `None` is not known; an empty text of [`Facts`] is not known either.
#[derive(Debug, Clone, Copy)]
pub struct Traits<'a> {
    /// What people call it.
    pub id: &'a MachineId,
    /// What subjects call it.
    pub token: &'a MachineToken,
    /// Its labels; one that is not among them is known to be absent.
    pub labels: Option<&'a Labels>,
    /// Its relay has not said its own labels yet: one that is not among those above is not known.
    pub is_relay_unheard: bool,
    /// What it is.
    pub facts: Option<&'a Facts>,
    /// How it is; of a machine that is offline, how it was. Of those only what does not move counts: memory and CPUs.
    pub metrics: Option<&'a Metrics>,
    /// Version of its relay.
    pub relay: Option<&'a str>,
    /// Whether it was heard lately.
    pub state: Option<Liveness>,
    /// How long ago it was heard, ms.
    pub heard_ms: Option<u64>,
    /// Runs that it has.
    pub running: Option<u32>,
    /// Runs that wait for it.
    pub waiting: Option<u32>,
    /// What the machine has in its hand is taken as not known: facts, figures, its version, whether it is heard, what runs there,
    /// and labels that nobody else has set. For commands that bring a secret: it shall not choose itself.
    pub is_own_word_ignored: bool,
}

impl<'a> Traits<'a> {
    /// Of a machine of which only its names are known.
    pub fn named(id: &'a MachineId, token: &'a MachineToken) -> Self {
        Self {
            id,
            token,
            labels: None,
            is_relay_unheard: false,
            facts: None,
            metrics: None,
            relay: None,
            state: None,
            heard_ms: None,
            running: None,
            waiting: None,
            is_own_word_ignored: false,
        }
    }

    fn fact(&self, field: &Field) -> Option<&'a str> {
        if self.is_own_word_ignored {
            return None;
        }
        let fact = match field {
            Field::Host => self.facts?.hostname.as_str(),
            Field::Os => self.facts?.os.as_str(),
            Field::Kernel => self.facts?.kernel.as_str(),
            Field::Arch => self.facts?.arch.as_str(),
            _ => self.relay?,
        };
        (!fact.is_empty()).then_some(fact)
    }

    #[expect(clippy::cast_precision_loss, reason = "sizes and times are far below 2^53")]
    fn number(&self, field: &Field) -> Option<f64> {
        if self.is_own_word_ignored {
            return None;
        }
        match field {
            Field::Heard => return self.heard_ms.map(|ms| ms as f64),
            Field::Running => return self.running.map(f64::from),
            Field::Waiting => return self.waiting.map(f64::from),
            _ => {}
        }
        let metrics = self.metrics?;
        match field {
            Field::Cpus => return (metrics.cpus > 0).then(|| f64::from(metrics.cpus)),
            Field::Memory => {
                return (metrics.memory_total_bytes > 0).then_some(metrics.memory_total_bytes as f64);
            }
            _ => {}
        }
        // What moves is not known of a machine that says nothing any more.
        self.state.filter(|state| *state != Liveness::Offline)?;
        match field {
            Field::Cpu => Some(f64::from(metrics.cpu_percent)),
            Field::Mem => percent(metrics.memory_used_bytes, metrics.memory_total_bytes),
            Field::Disk => {
                let used = metrics.disks.iter().filter_map(|disk| percent(disk.used_bytes, disk.total_bytes));
                used.fold(None, |fullest: Option<f64>, used| Some(fullest.map_or(used, |it| it.max(used))))
            }
            Field::Load => metrics.load.first().copied(),
            Field::Up => Some(metrics.uptime_secs as f64 * 1_000.0),
            _ => None,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
fn percent(used: u64, total: u64) -> Option<f64> {
    (total > 0).then(|| used as f64 / total as f64 * 100.0)
}

impl Node {
    pub(super) fn truth(&self, of: &Traits<'_>) -> Truth {
        match self {
            Self::All => Truth::Yes,
            Self::Name(pattern) => {
                Truth::of(Some(pattern.matches(of.id.as_str()) || pattern.matches(of.token.as_str())))
            }
            Self::Compare(compare) => compare.truth(of),
            Self::Not(inner) => inner.truth(of).not(),
            Self::And(parts) => least(parts, of),
            Self::Or(parts) => most(parts, of),
        }
    }
}

/// The least of them; what comes behind a «no» is not looked at.
fn least(parts: &[Node], of: &Traits<'_>) -> Truth {
    let mut all = Truth::Yes;
    for part in parts {
        all = all.min(part.truth(of));
        if all == Truth::No {
            break;
        }
    }
    all
}

/// The most of them; what comes behind a «yes» is not looked at.
fn most(parts: &[Node], of: &Traits<'_>) -> Truth {
    let mut one = Truth::No;
    for part in parts {
        one = one.max(part.truth(of));
        if one == Truth::Yes {
            break;
        }
    }
    one
}

impl Compare {
    fn truth(&self, of: &Traits<'_>) -> Truth {
        let truth = match &self.field {
            Field::Name => Truth::of(Some(self.text(of.id.as_str()) || self.text(of.token.as_str()))),
            Field::Token => Truth::of(Some(self.text(of.token.as_str()))),
            Field::State => {
                let state = of.state.filter(|_| !of.is_own_word_ignored);
                Truth::of(state.map(|state| self.value == Value::State(state)))
            }
            Field::Host | Field::Os | Field::Kernel | Field::Arch | Field::Relay => {
                of.fact(&self.field).map_or(Truth::Unknown, |fact| self.fact(fact))
            }
            Field::Label(key) => match of.labels.map(|labels| labels.get(key)) {
                None => Truth::Unknown,
                // Its relay could have said it, and did not: that is its word, too.
                Some(None) if of.is_own_word_ignored || of.is_relay_unheard => Truth::Unknown,
                Some(None) => Truth::No,
                Some(Some(label)) if label.source.is_own_word() && of.is_own_word_ignored => Truth::Unknown,
                Some(Some(label)) => self.fact(label.value.as_str()),
            },
            field => Truth::of(of.number(field).map(|number| self.number(number))),
        };
        // These say the contrary of the sign without the mark; orders are their own.
        if matches!(self.sign, Sign::IsNot | Sign::Unlike) { truth.not() } else { truth }
    }

    fn text(&self, text: &str) -> bool {
        matches!(&self.value, Value::Text(pattern) if pattern.matches(text))
    }

    fn fact(&self, fact: &str) -> Truth {
        match &self.value {
            Value::Version(version) => {
                Truth::of(Version::beginning(fact).map(|known| self.holds(known.cmp(version))))
            }
            _ => Truth::of(Some(self.text(fact))),
        }
    }

    fn number(&self, number: f64) -> bool {
        let Value::Number(value) = &self.value else { return false };
        number.partial_cmp(value).is_some_and(|order| self.holds(order))
    }

    fn holds(&self, order: std::cmp::Ordering) -> bool {
        match self.sign {
            Sign::Less => order.is_lt(),
            Sign::AtMost => order.is_le(),
            Sign::More => order.is_gt(),
            Sign::AtLeast => order.is_ge(),
            Sign::Is | Sign::IsNot | Sign::Like | Sign::Unlike => order.is_eq(),
        }
    }
}
