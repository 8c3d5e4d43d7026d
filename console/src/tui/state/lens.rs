//! Through what the machines are looked at: a text in their names, or a selector.

use signalbox_schemas::selector::{Selector, Traits};

use super::{
    machine::Machine,
    roster::{Place, Roster},
};
use crate::tui::needle::Needle;

/// What makes a text a selector. A word without any of it is looked for in names.
const SIGNS: [char; 11] = ['=', '<', '>', '~', '*', '?', '[', '{', '(', ',', '"'];
/// Words between words that make it one, too.
const WORDS: [&str; 5] = ["and", "or", "not", "limit", "sample"];

/// What is seen of all machines.
#[derive(Debug, Clone)]
pub enum Lens {
    /// Those with a text in their id, token or host name, or those without.
    Needle(Needle),
    /// Those that a selector means.
    Selector(Box<Selector>),
}

impl Default for Lens {
    fn default() -> Self {
        Self::Needle(Needle::new(""))
    }
}

impl Lens {
    /// What this text means.
    ///
    /// # Errors
    /// Why it is no selector, where it reads like one.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let is_needle = text.starts_with(['!', '/']) || !reads_like_a_selector(text);
        if is_needle {
            let needle = Needle::new(text);
            return match needle.problem() {
                Some(problem) => Err(problem.to_owned()),
                None => Ok(Self::Needle(needle)),
            };
        }
        let selector = Selector::parse(text).map_err(|error| error.why().to_owned())?;
        Ok(Self::Selector(Box::new(selector)))
    }

    /// Whether figures that move may change what is seen.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Selector(_))
    }

    /// Where those stand that are seen, by name.
    pub fn seen(&self, roster: &Roster, now_ms: u64) -> Vec<Place> {
        match self {
            Self::Needle(needle) if needle.is_empty() => roster.places().to_vec(),
            Self::Needle(needle) => roster.named(needle),
            Self::Selector(selector) => {
                let meant = selector.select(roster.by_name(), |(_, machine)| traits(machine, now_ms));
                meant.into_iter().map(|(place, _)| place).collect()
            }
        }
    }
}

/// Those of the machines that a selector means, as far as is known here, in the order in which they come.
pub fn meant<'a>(
    selector: &Selector,
    machines: impl Iterator<Item = &'a Machine>,
    now_ms: u64,
) -> Vec<&'a Machine> {
    selector.select(machines, |machine| traits(machine, now_ms))
}

fn reads_like_a_selector(text: &str) -> bool {
    text.contains(SIGNS) || text.split_whitespace().any(|word| WORDS.contains(&word))
}

/// What is known here of a machine.
fn traits(machine: &Machine, now_ms: u64) -> Traits<'_> {
    Traits {
        labels: Some(&machine.labels),
        is_relay_unheard: machine.is_relay_unheard,
        facts: machine.facts.as_ref(),
        metrics: machine.metrics.as_ref(),
        relay: machine.relay.as_deref(),
        state: (!machine.is_unknown).then(|| machine.state(now_ms)),
        heard_ms: machine.age_ms(now_ms),
        running: (!machine.is_unknown).then_some(machine.running),
        waiting: (!machine.is_unknown).then_some(machine.pending),
        ..Traits::named(&machine.id, &machine.token)
    }
}
