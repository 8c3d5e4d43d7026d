//! One machine as it is shown: foreign text cleaned, figures ready.

use signalbox_schemas::{
    api::{Liveness, MachineView},
    heartbeat::{Disk, Facts, Heartbeat, Metrics},
    id::{MachineId, MachineToken},
    label::{Label, Labels},
    limit,
};

use super::{
    Now,
    history::{History, Sample},
    vitals::{self, Vitals},
};
use crate::tui::text;

/// What a snapshot says of a machine's life is believed unless the machine was heard here this short a time ago: the
/// two come by different ways and may have passed each other.
const JUST_HEARD_MS: u64 = 2_000;

/// What a relay says of itself with each sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Generation of the newest mailbox it has seen; 0 = none.
    pub generation: u64,
    /// Version of the authors document it has; 0 = none.
    pub authors: u64,
    /// Since when its process runs, Unix ms by its own clock.
    pub started_at: u64,
}

/// One machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// What people call it, as it is on the wire: for selectors only.
    pub id: MachineId,
    /// What subjects call it.
    pub token: MachineToken,
    /// What people call it, clean.
    pub name: String,
    /// When it was last heard, ms by our steady clock; `None` = never. Where only the bridge heard it, a time that fits
    /// what the bridge makes of it: the broker's clock and ours may be far apart.
    heard_ms: Option<u64>,
    /// It was heard here, not by the bridge alone.
    is_heard_here: bool,
    /// When the bridge last heard it, Unix ms by the broker's clock: compared with its like only.
    seen_at: Option<u64>,
    /// Runs that its relay has.
    pub running: u32,
    /// Runs that wait for it.
    pub pending: u32,
    /// Facts that wait for their acknowledgement.
    pub outbox: u32,
    /// Version of its relay.
    pub relay: Option<String>,
    /// What its last heartbeat said beside that; `None`: only the bridge heard it.
    pub beat: Option<Beat>,
    /// What it is.
    pub facts: Option<Facts>,
    /// How it is.
    pub metrics: Option<Metrics>,
    /// What it is for: what counts, as it is on the wire. Foreign text: [`Machine::labels_line`] is clean.
    pub labels: Labels,
    /// Its relay has not said its own labels yet.
    pub is_relay_unheard: bool,
    /// How it was.
    pub history: History,
    /// Nothing is known of it at the moment that is shown: not that it was silent either.
    pub is_unknown: bool,
}

impl Machine {
    /// A machine of which only its names are known.
    pub fn new(view: &MachineView) -> Self {
        Self {
            id: view.id.clone(),
            token: view.token.clone(),
            name: text::line(view.id.as_str()),
            heard_ms: None,
            is_heard_here: false,
            seen_at: None,
            running: 0,
            pending: 0,
            outbox: 0,
            relay: None,
            beat: None,
            facts: None,
            metrics: None,
            labels: Labels::new(),
            is_relay_unheard: false,
            history: History::default(),
            is_unknown: false,
        }
    }

    /// Takes what a snapshot says. Answers whether a filter finds other names in it now.
    pub fn refresh(&mut self, view: MachineView, now: Now) -> bool {
        self.believe(&view, now);
        self.running = view.running;
        self.pending = view.pending;
        self.relay = view.relay.as_deref().map(text::line).or(self.relay.take());
        let is_renamed = view.facts.as_ref().is_some_and(|facts| self.learn(facts));
        self.labels = view.labels.into_iter().map(|(key, shown)| (key, shown.label)).collect();
        self.is_relay_unheard = view.labels_unheard;
        // Heartbeats are newer than snapshots.
        if self.metrics.is_none()
            && let (Some(metrics), Some(at_ms)) = (view.metrics, self.heard_ms)
        {
            self.measure(metrics, at_ms);
        }
        is_renamed
    }

    /// The labels that count, in one clean line.
    pub fn labels_line(&self) -> String {
        let pair = |(key, label): (_, &Label)| format!("{key}={}", text::line(label.value.as_str()));
        self.labels.iter().map(pair).collect::<Vec<_>>().join(" ")
    }

    /// Takes over when the bridge heard it, if that says more than what is known.
    fn believe(&mut self, view: &MachineView, now: Now) {
        let is_newer = view.last_seen_at > self.seen_at;
        self.seen_at = view.last_seen_at;
        let is_just_heard =
            self.is_heard_here && self.age_ms(now.ms).is_some_and(|age_ms| age_ms < JUST_HEARD_MS);
        let is_agreed = self.state(now.ms) == view.state && (self.is_heard_here || !is_newer);
        if is_just_heard || is_agreed {
            return;
        }
        self.is_heard_here = false;
        self.heard_ms = view.last_seen_at.map(|at| {
            let by_our_clock = now.wall_ms.saturating_sub(at);
            let age_ms = match view.state {
                Liveness::Online if by_our_clock <= limit::STALE_MS => by_our_clock,
                // The clocks are apart: no older than heartbeats get.
                Liveness::Online => limit::HEARTBEAT_MS,
                Liveness::Stale => by_our_clock.clamp(limit::STALE_MS + 1, limit::OFFLINE_MS),
                Liveness::Offline => by_our_clock.max(limit::OFFLINE_MS + 1),
            };
            now.ms.saturating_sub(age_ms)
        });
    }

    /// Takes a sign of life, received at `at_ms`. Answers whether a filter finds other names in it now.
    pub fn hear(&mut self, at_ms: u64, heartbeat: Heartbeat) -> bool {
        self.heard_ms = if self.is_heard_here { self.heard_ms.max(Some(at_ms)) } else { Some(at_ms) };
        self.is_heard_here = true;
        self.running = heartbeat.running;
        self.outbox = heartbeat.outbox;
        self.beat = Some(Beat {
            generation: heartbeat.generation,
            authors: heartbeat.authors,
            started_at: heartbeat.started_at,
        });
        self.relay = Some(text::line(&heartbeat.relay));
        let is_renamed = self.learn(&heartbeat.facts);
        if let Some(metrics) = heartbeat.metrics {
            self.measure(metrics, at_ms);
        }
        is_renamed
    }

    /// Takes over what the machine is. Answers whether that was not known.
    fn learn(&mut self, facts: &Facts) -> bool {
        let facts = clean_facts(facts);
        let is_new = self.facts.as_ref() != Some(&facts);
        if is_new {
            self.facts = Some(facts);
        }
        is_new
    }

    fn measure(&mut self, mut metrics: Metrics, at_ms: u64) {
        metrics.disks.iter_mut().for_each(|disk| disk.mount = text::line(&disk.mount));
        self.metrics = Some(metrics);
        let sample = Sample {
            at_secs: u32::try_from(at_ms / 1000).unwrap_or(u32::MAX),
            cpu_percent: self.cpu_percent().unwrap_or(0),
            memory_percent: self.memory_percent().unwrap_or(0),
            disk_percent: self.disk_percent(),
            load_tenths: tenths(self.load().unwrap_or(0.0)),
        };
        self.history.push(sample);
    }

    /// What a filter looks into: id, token and host name in lower case, one per line.
    pub fn searched(&self) -> String {
        let hostname = self.facts.as_ref().map_or("", |facts| facts.hostname.as_str());
        format!("{}\n{}\n{hostname}", self.id, self.token).to_lowercase()
    }

    /// How it is, as far as it is sorted and counted by that.
    pub fn vitals(&self) -> Vitals {
        Vitals {
            heard_ms: self.heard_ms,
            cpu_percent: self.cpu_percent(),
            memory_percent: self.memory_percent(),
            disk_percent: self.disk_percent(),
            load: self.load(),
            running: self.running,
            pending: self.pending,
            is_unknown: self.is_unknown,
        }
    }

    /// How long ago it was heard, ms.
    pub fn age_ms(&self, now_ms: u64) -> Option<u64> {
        vitals::age_ms(self.heard_ms, now_ms)
    }

    /// Whether it was heard lately.
    pub fn state(&self, now_ms: u64) -> Liveness {
        Liveness::of(self.age_ms(now_ms))
    }

    /// CPU use, 0 to 100.
    pub fn cpu_percent(&self) -> Option<u8> {
        let percent = self.metrics.as_ref().map(|metrics| f64::from(metrics.cpu_percent));
        percent.filter(|percent| !percent.is_nan()).map(rounded)
    }

    /// Memory in use, 0 to 100.
    pub fn memory_percent(&self) -> Option<u8> {
        let metrics = self.metrics.as_ref()?;
        percent(metrics.memory_used_bytes, metrics.memory_total_bytes)
    }

    /// The fullest disk, 0 to 100.
    pub fn disk_percent(&self) -> Option<u8> {
        self.metrics.as_ref()?.disks.iter().filter_map(disk_percent).max()
    }

    /// Load of the last minute.
    pub fn load(&self) -> Option<f64> {
        self.metrics.as_ref().map(|metrics| metrics.load[0]).filter(|load| load.is_finite())
    }
}

fn clean_facts(facts: &Facts) -> Facts {
    Facts {
        hostname: text::line(&facts.hostname),
        os: text::line(&facts.os),
        kernel: text::line(&facts.kernel),
        arch: text::line(&facts.arch),
    }
}

/// How full a disk is, 0 to 100; `None` for one without size.
pub fn disk_percent(disk: &Disk) -> Option<u8> {
    percent(disk.used_bytes, disk.total_bytes)
}

/// A part of a whole in percent, 0 to 100; `None` of nothing.
pub fn percent(part: u64, whole: u64) -> Option<u8> {
    let percent = u128::from(part) * 100 / u128::from(whole).max(1);
    (whole > 0).then(|| u8::try_from(percent.min(100)).unwrap_or(100))
}

/// Foreign figures may be anything, also below nothing.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped first")]
fn tenths(load: f64) -> u16 {
    (load * 10.0).clamp(0.0, f64::from(u16::MAX)).round() as u16
}

/// Foreign figures may be anything.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=100 first")]
fn rounded(percent: f64) -> u8 {
    percent.clamp(0.0, 100.0).round() as u8
}
