//! What was told last, and what there is to tell. Pure.
//!
//! What was told follows from the streams: from the newest frames, and from the events behind them. So a bridge that starts or
//! takes over tells nothing a second time, and misses nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use signalbox_schemas::{
    api::Liveness,
    event::{Event, kind},
    history::{Frame, cut, mark},
    id::{CommandId, MachineId, MachineToken},
    limit::{OFFLINE_MS, STALE_MS},
    mailbox::Position,
};

use crate::projection::memory::Machine;

/// A clock is off when it differs by more than this from the broker's, ms, and right again below half of it.
const SKEW_MS: u64 = 60_000;
/// For so long, ms: heartbeats that waited in a relay for a connection come late, too.
const SKEW_LASTS_MS: u64 = 30_000;

/// What was told of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) state: Liveness,
    pub(super) is_skewed: bool,
    /// Version of its relay, as a frame takes it.
    pub(super) relay: Option<String>,
    /// What tells its relay's process from the next one.
    pub(super) mark: Option<u16>,
}

/// Nothing was heard of it yet.
pub(super) const SILENT: Known =
    Known { state: Liveness::Offline, is_skewed: false, relay: None, mark: None };

/// What was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) machines: BTreeMap<MachineToken, Known>,
    /// Sequence of the last event that is known; 0 = none.
    pub(super) events: u64,
    /// Up to where in RUN lost runs have been told.
    pub(super) runs: Position,
    /// Whether RUN was told to be nearly full.
    pub(super) is_full: bool,
}

/// Something to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) kind: &'static str,
    pub(super) machine: Option<(MachineToken, MachineId)>,
    pub(super) command: Option<CommandId>,
    pub(super) text: String,
    pub(super) details: BTreeMap<String, Value>,
    pub(super) told_runs: Option<Position>,
}

impl News {
    pub(super) fn of(kind: &'static str, text: String) -> Self {
        Self { kind, text, ..Self::default() }
    }

    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.details.insert(name.to_owned(), value);
        self
    }
}

impl Told {
    /// What frames say, one of each bucket; `events` and `runs` are those of the one that knows least.
    pub(super) fn of(frames: &[Frame]) -> Self {
        let mut told = Self {
            events: frames.iter().map(|frame| frame.events).min().unwrap_or_default(),
            runs: frames.iter().map(|frame| frame.told_runs).max_by_key(at).unwrap_or_default(),
            ..Self::default()
        };
        for machine in frames.iter().flat_map(|frame| &frame.machines) {
            let known = Known {
                state: machine.state,
                is_skewed: machine.is_skewed,
                relay: machine.relay.clone(),
                mark: machine.mark,
            };
            told.machines.insert(machine.token.clone(), known);
        }
        told
    }

    /// An event was stored, by whomever.
    pub(super) fn apply(&mut self, event: &Event) {
        if let Some(runs) = event.told_runs.filter(|runs| at(runs) > at(&self.runs)) {
            self.runs = runs;
        }
        match event.kind.as_str() {
            kind::STREAM_NEARLY_FULL => self.is_full = true,
            kind::STREAM_RELIEVED => self.is_full = false,
            _ => {}
        }
        let Some(mid) = &event.machine else { return };
        let known = self.machines.entry(mid.clone()).or_insert(SILENT);
        if let Some(state) = event.state() {
            known.state = state;
        }
        match event.kind.as_str() {
            kind::CLOCK_SKEW => known.is_skewed = true,
            kind::CLOCK_RIGHT => known.is_skewed = false,
            _ => {}
        }
        let number = event.details.get("mark").and_then(Value::as_u64);
        if let Some(mark) = number.and_then(|mark| u16::try_from(mark).ok()) {
            known.mark = Some(mark);
        }
        if let Some(relay) = event.details.get("relay").and_then(Value::as_str) {
            known.relay = Some(cut(relay).to_owned());
        }
    }

    /// Takes a machine as it is, without a word.
    pub(super) fn take(&mut self, machine: &Machine, now: u64) {
        let mut known = SILENT;
        if let Some(beat) = &machine.beat {
            known.state = Liveness::of(Some(now.saturating_sub(beat.seen_at)));
            known.relay = Some(cut(&beat.beat.relay).to_owned());
            known.mark = mark_of(machine);
        }
        self.machines.insert(machine.record.token.clone(), known);
    }
}

fn at(position: &Position) -> (u64, u64) {
    (position.created, position.sequence)
}

/// Of a relay of the old contract nobody says when it started.
fn mark_of(machine: &Machine) -> Option<u16> {
    machine.beat.as_ref().filter(|beat| beat.beat.legacy.is_none()).map(|beat| mark(beat.beat.started_at))
}

/// The moment of a look, Unix ms by the bridge's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) now: u64,
    /// Since when this bridge hears every heartbeat: who was silent before that was not silent.
    pub(super) listening: u64,
}

/// The state that is to be told of a machine that was told to be `before`. One that is heard is so at once. That one is
/// silent is known only by who has listened for so long.
fn state(before: Liveness, seen_at: Option<u64>, look: Look) -> Liveness {
    let is = Liveness::of(seen_at.map(|at| look.now.saturating_sub(at)));
    if is <= before {
        return is;
    }
    let heard = seen_at.unwrap_or_default().max(look.listening);
    before.max(is.min(Liveness::of(Some(look.now.saturating_sub(heard)))))
}

/// What there is to tell of a machine. `skewed_since` remembers since when clocks are off that were not told to be.
pub(super) fn news(
    known: Option<&Known>,
    machine: &Machine,
    look: Look,
    skewed_since: &mut BTreeMap<MachineToken, u64>,
) -> Vec<News> {
    let id = machine.record.id.clone();
    let about = |kind, text: String| News {
        machine: Some((machine.record.token.clone(), id.clone())),
        ..News::of(kind, text)
    };
    let Some(known) = known else {
        return vec![about(kind::MACHINE_NEW, format!("{id} belongs to the fleet"))];
    };
    let mut news = Vec::new();
    let seen_at = machine.beat.as_ref().map(|beat| beat.seen_at);
    let state = state(known.state, seen_at, look);
    if state != known.state {
        let text = match state {
            Liveness::Online => format!("{id} is heard"),
            Liveness::Stale => format!("{id} was not heard for {} s", STALE_MS / 1_000),
            Liveness::Offline => format!("{id} was not heard for {} s", OFFLINE_MS / 1_000),
        };
        let told = about(kind::of_state(state), text).with("before", json!(known.state));
        news.push(match seen_at {
            Some(at) => told.with("seen_at", json!(at)),
            None => told,
        });
    }
    let Some(beat) = &machine.beat else { return news };
    let mark = mark_of(machine);
    if mark.is_some() && mark != known.mark {
        // The first one that is heard is no other one.
        let kind = known.mark.map(|_| kind::RELAY_RESTARTED);
        news.extend(kind.map(|kind| {
            let told = about(kind, format!("the relay of {id} was started anew"));
            told.with("mark", json!(mark)).with("started_at", json!(beat.beat.started_at))
        }));
    }
    let version = cut(&beat.beat.relay);
    if let Some(before) = known.relay.as_deref().filter(|before| *before != version) {
        let text = format!("the relay of {id} has the version {version}, and had {before}");
        let told = about(kind::RELAY_VERSION, text);
        news.push(told.with("before", json!(before)).with("relay", json!(version)));
    }
    news.extend(clock(known, machine, look.now, skewed_since).map(|(kind, text, off)| {
        about(kind, format!("the clock of {id} {text}")).with("ahead_ms", json!(off))
    }));
    news
}

/// Whether a clock is off, or right again, and by how much it is ahead.
fn clock(
    known: &Known,
    machine: &Machine,
    now: u64,
    skewed_since: &mut BTreeMap<MachineToken, u64>,
) -> Option<(&'static str, String, i64)> {
    let beat = machine.beat.as_ref().filter(|beat| beat.beat.legacy.is_none())?;
    let off = i64::try_from(i128::from(beat.beat.at) - i128::from(beat.seen_at)).unwrap_or(i64::MAX);
    let (is_off, is_right) = (off.unsigned_abs() > SKEW_MS, off.unsigned_abs() < SKEW_MS / 2);
    if !is_off {
        skewed_since.remove(&machine.record.token);
    }
    match known.is_skewed {
        true if is_right => Some((kind::CLOCK_RIGHT, "is right again".to_owned(), off)),
        false if is_off => {
            let since = *skewed_since.entry(machine.record.token.clone()).or_insert(now);
            let side = if off > 0 { "ahead" } else { "behind" };
            let text = format!("is {} s {side}", off.unsigned_abs() / 1_000);
            (now.saturating_sub(since) >= SKEW_LASTS_MS).then_some((kind::CLOCK_SKEW, text, off))
        }
        _ => None,
    }
}

/// What a machine is known to be when nothing has to be told of it: the first version and process that are heard.
pub(super) fn first_heard(known: &mut Known, machine: &Machine) {
    if known.mark.is_none() {
        known.mark = mark_of(machine);
    }
    if let (None, Some(beat)) = (&known.relay, &machine.beat) {
        known.relay = Some(cut(&beat.beat.relay).to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use rstest::rstest;
    use signalbox_schemas::{
        heartbeat::{Facts, Heartbeat},
        id::{BridgeId, Workspace},
        label::{GivenLabels, Labels},
        record::MachineRecord,
    };

    use super::*;
    use crate::projection::memory::Beat;

    const NOW: u64 = 1_795_000_000_000;
    /// Heard all day.
    const LOOK: Look = Look { now: NOW, listening: 0 };

    fn machine(seen_at: Option<u64>) -> Machine {
        let (id, token) = (MachineId::new("web-1").unwrap(), MachineToken::new("web-1").unwrap());
        let beat = |seen_at| Beat {
            beat: Heartbeat {
                ws: Workspace::main(),
                mid: token.clone(),
                at: seen_at,
                relay: "1".into(),
                generation: 0,
                authors: 0,
                running: 0,
                outbox: 0,
                started_at: 500,
                counters: BTreeMap::new(),
                facts: Facts::default(),
                metrics: None,
                legacy: None,
            },
            seen_at,
        };
        Machine {
            beat: seen_at.map(beat),
            record: MachineRecord {
                ws: Workspace::main(),
                id,
                token: token.clone(),
                keys: None,
                enrolled_at: 1,
                enrolled_by: None,
                former_keys: vec![],
                allow_legacy: false,
                labels: GivenLabels::default(),
                revision: 0,
            },
            keys: HashSet::new(),
            said: None,
            labels: Labels::new(),
            queue: BTreeMap::new(),
            running: 0,
        }
    }

    fn known(state: Liveness) -> Known {
        Known { state, is_skewed: false, relay: Some("1".into()), mark: Some(mark(500)) }
    }

    fn kinds(known: Option<&Known>, machine: &Machine, look: Look) -> Vec<&'static str> {
        news(known, machine, look, &mut BTreeMap::new()).into_iter().map(|news| news.kind).collect()
    }

    #[rstest]
    #[case::heard(Liveness::Offline, Some(1), 0, &[kind::MACHINE_ONLINE])]
    #[case::still_there(Liveness::Online, Some(25_000), 90_000, &[])]
    #[case::stale(Liveness::Online, Some(25_001), 90_000, &[kind::MACHINE_STALE])]
    #[case::gone(Liveness::Stale, Some(60_001), 90_000, &[kind::MACHINE_OFFLINE])]
    #[case::never_heard(Liveness::Offline, None, 90_000, &[])]
    #[case::nobody_listened(Liveness::Online, Some(90_000), 20_000, &[])]
    #[case::listened_a_little(Liveness::Online, Some(90_000), 30_000, &[kind::MACHINE_STALE])]
    #[case::listened_long_enough(Liveness::Online, None, 60_001, &[kind::MACHINE_OFFLINE])]
    #[case::restarted_center(Liveness::Online, None, 0, &[])]
    #[case::back_from_silence(Liveness::Offline, Some(30_000), 0, &[kind::MACHINE_STALE])]
    fn silence_counts_while_somebody_listens(
        #[case] before: Liveness,
        #[case] silent: Option<u64>,
        #[case] listened: u64,
        #[case] expected: &[&str],
    ) {
        let look = Look { now: NOW, listening: NOW - listened };
        let machine = machine(silent.map(|ms| NOW - ms));
        assert_eq!(kinds(Some(&known(before)), &machine, look), expected);
    }

    #[test]
    fn another_process_and_version_are_told_and_the_first_are_not() {
        let heard = machine(Some(NOW));
        assert_eq!(kinds(None, &heard, LOOK), [kind::MACHINE_NEW]);
        let mut first = Known { state: Liveness::Online, ..SILENT };
        assert_eq!(kinds(Some(&first), &heard, LOOK), <[&str; 0]>::default());
        first_heard(&mut first, &heard);
        assert_eq!(first, known(Liveness::Online));
        let other = Known { relay: Some("0".into()), mark: Some(1), ..first };
        assert_eq!(kinds(Some(&other), &heard, LOOK), [kind::RELAY_RESTARTED, kind::RELAY_VERSION]);
    }

    #[test]
    fn a_clock_is_off_when_it_stays_so() {
        let mut machine = machine(Some(NOW));
        let mut since = BTreeMap::new();
        let mut told = |known: &Known, machine: &Machine, now| {
            let look = Look { now, ..LOOK };
            let news = news(Some(known), machine, look, &mut since);
            news.into_iter()
                .map(|news| news.kind)
                .filter(|kind| kind.starts_with("clock"))
                .collect::<Vec<_>>()
        };
        let right = known(Liveness::Online);
        machine.beat.as_mut().unwrap().beat.at = NOW - 61_000;
        assert_eq!(told(&right, &machine, NOW), <[&str; 0]>::default());
        assert_eq!(told(&right, &machine, NOW + SKEW_LASTS_MS), [kind::CLOCK_SKEW]);
        let off = Known { is_skewed: true, ..right.clone() };
        assert_eq!(told(&off, &machine, NOW), <[&str; 0]>::default());
        machine.beat.as_mut().unwrap().beat.at = NOW - 29_000;
        assert_eq!(told(&off, &machine, NOW), [kind::CLOCK_RIGHT]);
        machine.beat.as_mut().unwrap().beat.at = u64::MAX;
        assert_eq!(told(&right, &machine, NOW), <[&str; 0]>::default());
        assert_eq!(told(&right, &machine, NOW + SKEW_LASTS_MS), [kind::CLOCK_SKEW]);
    }

    #[test]
    fn whatever_is_told_is_not_told_again() {
        let (mut told, mut since) = (Told::default(), BTreeMap::new());
        for (seen_at, now, expected) in [
            (None, NOW, vec![kind::MACHINE_NEW]),
            (Some(NOW), NOW, vec![kind::MACHINE_ONLINE]),
            (Some(NOW), NOW + 30_000, vec![kind::MACHINE_STALE]),
            (Some(NOW), NOW + 90_000, vec![kind::MACHINE_OFFLINE]),
            (Some(NOW + 90_000), NOW + 90_000, vec![kind::MACHINE_ONLINE]),
        ] {
            let machine = machine(seen_at);
            let look = Look { now, ..LOOK };
            let mid = machine.record.token.clone();
            let news = news(told.machines.get(&mid), &machine, look, &mut since);
            assert_eq!(news.iter().map(|news| news.kind).collect::<Vec<_>>(), expected);
            for news in news {
                told.apply(&Event {
                    ws: Workspace::main(),
                    kind: news.kind.to_owned(),
                    at: now,
                    bridge: BridgeId::new("b1").unwrap(),
                    machine: news.machine.map(|(token, _)| token),
                    machine_id: None,
                    command: None,
                    text: news.text,
                    details: news.details,
                    told_runs: None,
                });
            }
            assert_eq!(kinds(told.machines.get(&mid), &machine, look), <[&str; 0]>::default());
        }
    }
}
