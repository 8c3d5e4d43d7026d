//! What was refused, counted until it is entered: anybody who reaches a front can be refused, and a flood must fill neither
//! memory nor a stream from which nothing can be taken out.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use signalbox_schemas::{api::op, error::ErrorCode};
use tokio::time::Instant;

/// Different refusals that are told apart; the others are counted as one.
const KINDS: usize = 64;
/// Who and what stand for the others, and for what is no operation.
const OTHERS: &str = "others";
/// How long a refusal that was entered only counts.
const PAUSE: Duration = Duration::from_hours(1);

/// Who was refused what, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Refusal {
    /// As in an entry.
    pub(crate) actor: String,
    /// As in an entry.
    pub(crate) action: String,
    /// Why.
    pub(crate) code: ErrorCode,
}

/// How often, since when it was entered last.
#[derive(Debug, Default)]
struct Count {
    times: u64,
    entered_at: Option<Instant>,
}

/// Those that are yet to be entered.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<Refusal, Count>>);

impl Refusals {
    /// Counts one. Only who is nobody, or may not, is worth an entry.
    pub(crate) fn add(&self, actor: &str, action: &str, code: ErrorCode) {
        if !matches!(code, ErrorCode::Forbidden | ErrorCode::Unauthenticated) {
            return;
        }
        let action = if op::ALL.contains(&action) || action == super::HTTP { action } else { OTHERS };
        let refusal = Refusal { actor: actor.to_owned(), action: action.to_owned(), code };
        let mut counts = self.counts();
        let has_room = counts.len() < KINDS || counts.contains_key(&refusal);
        let others = || Refusal { actor: OTHERS.to_owned(), action: OTHERS.to_owned(), code };
        counts.entry(if has_room { refusal } else { others() }).or_default().times += 1;
    }

    /// Those that are due at `now`, and how often; at the end all of them are. What has nothing to say for an hour is
    /// forgotten.
    pub(super) fn due(&self, now: Instant, is_end: bool) -> Vec<(Refusal, u64)> {
        let mut counts = self.counts();
        let is_quiet = |count: &Count| count.entered_at.is_none_or(|at| now.duration_since(at) >= PAUSE);
        counts.retain(|_, count| count.times > 0 || !is_quiet(count));
        let due = counts.iter().filter(|(_, count)| count.times > 0 && (is_end || is_quiet(count)));
        due.map(|(refusal, count)| (refusal.clone(), count.times)).collect()
    }

    /// So many of them stand in the chain.
    pub(super) fn entered(&self, refusal: &Refusal, times: u64, now: Instant) {
        if let Some(count) = self.counts().get_mut(refusal) {
            count.times -= times.min(count.times);
            count.entered_at = Some(now);
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Refusal, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(due: &[(Refusal, u64)]) -> u64 {
        due.iter().map(|(_, times)| times).sum()
    }

    #[test]
    fn a_flood_is_few_entries_and_loses_no_count() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        for n in 0..1_000 {
            refusals.add(&format!("operator:o{n}"), op::COMMANDS_SUBMIT, ErrorCode::Forbidden);
            refusals.add("operator:local", &format!("made.up{n}"), ErrorCode::Forbidden);
            refusals.add("nobody", super::super::HTTP, ErrorCode::Unauthenticated);
            refusals.add("operator:local", op::COMMANDS_SUBMIT, ErrorCode::Invalid);
        }
        let due = refusals.due(now, false);
        assert!(due.len() <= KINDS + 2, "{} kinds", due.len());
        assert_eq!(total(&due), 3_000);
        assert!(due.iter().all(|(refusal, _)| !refusal.action.starts_with("made.up")), "{due:?}");
    }

    #[test]
    fn what_was_entered_only_counts_for_an_hour() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let refuse = || refusals.add("nobody", super::super::HTTP, ErrorCode::Unauthenticated);
        refuse();
        let due = refusals.due(now, false);
        // One more came while it was on its way, and is not lost.
        refuse();
        refusals.entered(&due[0].0, due[0].1, now);
        assert_eq!(refusals.due(now + PAUSE - Duration::from_millis(1), false), []);
        assert_eq!(total(&refusals.due(now + PAUSE, false)), 1);
        // A bridge that stops does not wait for the hour.
        let last = refusals.due(now, true);
        assert_eq!(total(&last), 1);
        refusals.entered(&last[0].0, 1, now);
        assert_eq!(refusals.due(now + PAUSE, false), []);
        assert!(refusals.counts().is_empty(), "who said nothing for an hour is remembered");
    }
}
