//! The history of figures: how machines were, minute by minute.
//!
//! Machines are dealt into buckets by a hash of their token. Once a minute the bridge that holds the lease writes a
//! [`Frame`] for each bucket that has machines, at `hist.<ws>.<bucket>`. A frame stands for itself: nothing else is needed
//! to read it. It is not signed, since what it says comes from heartbeats, which are not either; nothing is decided by it.
//!
//! On the wire a frame is columns of small whole numbers, -1 where something is not known.

use serde::{Deserialize, Serialize};

use crate::{
    api::Liveness,
    id::{BridgeId, MachineToken, Sha256, Workspace},
    limit,
    mailbox::Position,
};

/// Buckets of a fleet of up to 32,000 machines; there are twice as many for each time that it is twice as large.
pub const BUCKETS: u32 = 16;
/// Most buckets.
pub const MOST_BUCKETS: u32 = 256;
/// Machines of one bucket, about, before there are more buckets.
const PER_BUCKET: usize = 2_000;
/// Most machines of one frame: with the longest names and the largest figures they fit [`FRAME_BYTES`].
pub const FRAME_MACHINES: usize = 4_000;
/// Largest frame.
pub const FRAME_BYTES: usize = 512 * 1024;
/// Most versions of relays that one frame tells apart.
pub const VERSIONS: usize = 32;
/// Longest version of a relay, bytes.
pub const VERSION_BYTES: usize = 32;
/// Largest load in a frame, in tenths.
pub const MOST_LOAD: u32 = 99_999;
/// Most runs in a frame.
pub const MOST_RUNS: u32 = 99_999;
/// Longest silence in a frame, seconds.
pub const MOST_AGE: u32 = 999_999;
/// Marks of relay processes are below this.
pub const MARKS: u16 = 10_000;

/// How many buckets a fleet of so many machines has.
pub fn buckets(machines: usize) -> u32 {
    let mut buckets = BUCKETS;
    while buckets < MOST_BUCKETS && machines > PER_BUCKET * buckets as usize {
        buckets *= 2;
    }
    buckets
}

/// The bucket of a machine, from 0, where there are so many.
pub fn bucket(mid: &MachineToken, buckets: u32) -> u32 {
    let Sha256(bytes) = Sha256::of(mid.as_str().as_bytes());
    let [a, b, c, d, ..] = bytes;
    u32::from_be_bytes([a, b, c, d]) % buckets.max(1)
}

/// What tells one process of a relay from the next, in four digits: by when it started, Unix ms.
pub fn mark(started_at: u64) -> u16 {
    // Below MARKS, and so below 2^16.
    u16::try_from(started_at / 100 % u64::from(MARKS)).unwrap_or_default()
}

/// How the machines of one bucket were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Columns", into = "Columns")]
pub struct Frame {
    /// Workspace.
    pub ws: Workspace,
    /// When, Unix ms by the clock of the bridge.
    pub at: u64,
    /// Who wrote it.
    pub bridge: BridgeId,
    /// How many buckets there were.
    pub buckets: u32,
    /// Sequence of the last event before it, 0 = none: what this frame does not know was told behind that.
    pub events: u64,
    /// Up to where in RUN lost runs have been told.
    pub told_runs: Position,
    /// Machines, sorted by token, at most [`FRAME_MACHINES`].
    pub machines: Vec<Figures>,
}

/// How one machine was. Figures are brought into their ranges when they are written and when they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// The machine.
    pub token: MachineToken,
    /// Whether it was heard lately, as it was told.
    pub state: Liveness,
    /// Whether its clock was told to be off.
    pub is_skewed: bool,
    /// CPU use, 0 to 100.
    pub cpu: Option<u8>,
    /// Memory in use, 0 to 100.
    pub memory: Option<u8>,
    /// Use of the fullest disk, 0 to 100.
    pub disk: Option<u8>,
    /// Load average over 1 minute, in tenths.
    pub load: Option<u32>,
    /// Runs that its relay had.
    pub running: u32,
    /// Runs that waited.
    pub pending: u32,
    /// Since its last heartbeat, seconds; none = never heard.
    pub age: Option<u32>,
    /// Version of its relay; none = never heard, or one too many in this frame.
    pub relay: Option<String>,
    /// What tells its relay's process from the next one; none = not known.
    pub mark: Option<u16>,
}

/// No frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More bytes than a frame may have.
    #[error("frame of {0} bytes is above {FRAME_BYTES}")]
    TooLarge(usize),
    /// It is not the JSON that it should be.
    #[error("malformed frame: {0}")]
    Malformed(String),
}

/// A frame as it is written.
#[derive(Clone, Serialize, Deserialize)]
struct Columns {
    ws: Workspace,
    at: u64,
    bridge: BridgeId,
    buckets: u32,
    events: u64,
    told_runs: Position,
    versions: Vec<String>,
    /// With commas between.
    tokens: String,
    /// 0 online, 1 stale, 2 offline; 4 more where the clock is off.
    state: Vec<u8>,
    cpu: Vec<i32>,
    memory: Vec<i32>,
    disk: Vec<i32>,
    load: Vec<i32>,
    running: Vec<i32>,
    pending: Vec<i32>,
    age: Vec<i32>,
    /// Index into `versions`.
    relay: Vec<i32>,
    mark: Vec<i32>,
}

const SKEWED: u8 = 4;
const STATES: [Liveness; 3] = [Liveness::Online, Liveness::Stale, Liveness::Offline];

impl Frame {
    /// The bytes that are stored.
    pub fn to_json(&self) -> Vec<u8> {
        // Numbers and names always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what is stored.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > FRAME_BYTES {
            return Err(FrameError::TooLarge(bytes.len()));
        }
        serde_json::from_slice(bytes).map_err(|error| FrameError::Malformed(error.to_string()))
    }

    /// The figures of one machine.
    pub fn of(&self, mid: &MachineToken) -> Option<&Figures> {
        let at = self.machines.binary_search_by(|figures| figures.token.cmp(mid)).ok()?;
        self.machines.get(at)
    }
}

fn number(value: Option<u32>, most: u32) -> i32 {
    value.map_or(-1, |value| i32::try_from(value.min(most)).unwrap_or(i32::MAX))
}

fn figure(value: i32, most: u32) -> Option<u32> {
    u32::try_from(value).ok().map(|value| value.min(most))
}

impl From<Frame> for Columns {
    fn from(frame: Frame) -> Self {
        let mut versions: Vec<String> = Vec::new();
        let mut relay = Vec::new();
        for figures in frame.machines.iter().take(FRAME_MACHINES) {
            let version = figures.relay.as_deref().map(cut);
            let known = version.and_then(|version| versions.iter().position(|known| known == version));
            let index = match (known, version) {
                (None, Some(version)) if versions.len() < VERSIONS => {
                    versions.push(version.to_owned());
                    Some(versions.len() - 1)
                }
                (known, _) => known,
            };
            relay.push(index.map_or(-1, |index| i32::try_from(index).unwrap_or(-1)));
        }
        let machines = || frame.machines.iter().take(FRAME_MACHINES);
        let percent = |of: fn(&Figures) -> Option<u8>| -> Vec<i32> {
            machines().map(|figures| number(of(figures).map(u32::from), 100)).collect()
        };
        let tokens: Vec<&str> = machines().map(|figures| figures.token.as_str()).collect();
        let state = |figures: &Figures| {
            let state = STATES.iter().position(|state| *state == figures.state).unwrap_or_default();
            u8::try_from(state).unwrap_or_default() + if figures.is_skewed { SKEWED } else { 0 }
        };
        Self {
            at: frame.at,
            buckets: frame.buckets,
            events: frame.events,
            told_runs: frame.told_runs,
            versions,
            tokens: tokens.join(","),
            state: machines().map(state).collect(),
            cpu: percent(|figures| figures.cpu),
            memory: percent(|figures| figures.memory),
            disk: percent(|figures| figures.disk),
            load: machines().map(|figures| number(figures.load, MOST_LOAD)).collect(),
            running: machines().map(|figures| number(Some(figures.running), MOST_RUNS)).collect(),
            pending: machines().map(|figures| number(Some(figures.pending), MOST_RUNS)).collect(),
            age: machines().map(|figures| number(figures.age, MOST_AGE)).collect(),
            relay,
            mark: machines().map(|it| number(it.mark.map(u32::from), u32::from(MARKS) - 1)).collect(),
            ws: frame.ws,
            bridge: frame.bridge,
        }
    }
}

impl TryFrom<Columns> for Frame {
    type Error = &'static str;

    fn try_from(columns: Columns) -> Result<Self, &'static str> {
        let tokens: Vec<&str> = columns.tokens.split(',').filter(|_| !columns.tokens.is_empty()).collect();
        let numbers = [
            &columns.cpu,
            &columns.memory,
            &columns.disk,
            &columns.load,
            &columns.running,
            &columns.pending,
            &columns.age,
            &columns.relay,
            &columns.mark,
        ];
        if columns.state.len() != tokens.len() || numbers.iter().any(|column| column.len() != tokens.len()) {
            return Err("its columns differ in length");
        }
        if tokens.len() > FRAME_MACHINES {
            return Err("it has too many machines");
        }
        if !(1..=MOST_BUCKETS).contains(&columns.buckets) {
            return Err("it has no number of buckets");
        }
        let machine = |(row, token): (usize, &&str)| columns.row(row, token);
        let machines: Option<Vec<Figures>> = tokens.iter().enumerate().map(machine).collect();
        let machines = machines.ok_or("a machine in it cannot be read")?;
        if !machines.is_sorted_by(|a, b| a.token < b.token) {
            return Err("its machines are not sorted");
        }
        Ok(Self {
            ws: columns.ws,
            at: columns.at,
            bridge: columns.bridge,
            buckets: columns.buckets,
            events: columns.events,
            told_runs: columns.told_runs,
            machines,
        })
    }
}

impl Columns {
    fn row(&self, row: usize, token: &str) -> Option<Figures> {
        let state = *self.state.get(row)?;
        let at = |column: &[i32]| column.get(row).copied().unwrap_or(-1);
        let percent = |column: &[i32]| figure(at(column), 100).and_then(|value| u8::try_from(value).ok());
        let version = usize::try_from(at(&self.relay)).ok().and_then(|index| self.versions.get(index));
        Some(Figures {
            token: MachineToken::new(token).ok()?,
            state: *STATES.get(usize::from(state % SKEWED))?,
            is_skewed: state >= SKEWED,
            cpu: percent(&self.cpu),
            memory: percent(&self.memory),
            disk: percent(&self.disk),
            load: figure(at(&self.load), MOST_LOAD),
            running: figure(at(&self.running), MOST_RUNS).unwrap_or_default(),
            pending: figure(at(&self.pending), MOST_RUNS).unwrap_or_default(),
            age: figure(at(&self.age), MOST_AGE),
            relay: version.map(|version| cut(version).to_owned()),
            mark: figure(at(&self.mark), u32::from(MARKS) - 1).and_then(|mark| u16::try_from(mark).ok()),
        })
    }
}

/// A version of a relay, which is foreign, as long as a frame takes it.
pub fn cut(version: &str) -> &str {
    version.get(..version.floor_char_boundary(VERSION_BYTES)).unwrap_or_default()
}

/// The largest frame: names of 63 bytes and a comma, and of each column the longest number and a comma, beside versions
/// (each byte of them may be six in JSON) and what a frame says of itself.
const _: () = {
    let machine = 64 + 2 + 4 * 3 + 6 + 6 * 2 + 7 + 3 + 5;
    assert!(FRAME_MACHINES * machine + VERSIONS * (VERSION_BYTES * 6 + 3) + 2_048 <= FRAME_BYTES);
    assert!(FRAME_BYTES <= limit::BROKER_PAYLOAD_BYTES / 2);
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn figures(token: &str) -> Figures {
        Figures {
            token: MachineToken::new(token).unwrap(),
            state: Liveness::Stale,
            is_skewed: true,
            cpu: Some(7),
            memory: Some(100),
            disk: None,
            load: Some(12),
            running: 1,
            pending: 2,
            age: Some(30),
            relay: Some("0.1.0".into()),
            mark: Some(9_999),
        }
    }

    fn frame(machines: Vec<Figures>) -> Frame {
        Frame {
            ws: Workspace::main(),
            at: u64::MAX,
            bridge: BridgeId::new("b1").unwrap(),
            buckets: BUCKETS,
            events: u64::MAX,
            told_runs: Position { created: u64::MAX, sequence: u64::MAX },
            machines,
        }
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let never = Figures { age: None, mark: None, relay: None, cpu: None, ..figures("b") };
        for machines in [vec![], vec![figures("a"), never]] {
            let frame = frame(machines);
            assert_eq!(Frame::from_json(&frame.to_json()), Ok(frame.clone()));
        }
        let both = frame(vec![figures("a"), figures("b")]);
        assert_eq!(both.of(&MachineToken::new("b").unwrap()), both.machines.get(1));
        assert_eq!(both.of(&MachineToken::new("c").unwrap()), None);
    }

    #[test]
    fn the_largest_frame_fits() {
        let largest = |n: usize| Figures {
            load: Some(u32::MAX),
            running: u32::MAX,
            pending: u32::MAX,
            age: Some(u32::MAX),
            cpu: Some(100),
            disk: Some(100),
            relay: Some(format!("{n}\u{1}").repeat(100)),
            ..figures(&format!("{n:063}"))
        };
        let json = frame((0..FRAME_MACHINES + 10).map(largest).collect()).to_json();
        assert!(json.len() <= FRAME_BYTES, "{} bytes", json.len());
        let read = Frame::from_json(&json).unwrap();
        assert_eq!(read.machines.len(), FRAME_MACHINES);
        assert_eq!((read.machines[0].load, read.machines[0].age), (Some(MOST_LOAD), Some(MOST_AGE)));
        let told = read.machines.iter().filter(|machine| machine.relay.is_some()).count();
        assert_eq!(told, VERSIONS);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let good = serde_json::to_value(frame(vec![figures("a"), figures("b")])).unwrap();
        let with = |member: &str, value: Value| {
            let mut json = good.clone();
            json[member] = value;
            Frame::from_json(&serde_json::to_vec(&json).unwrap())
        };
        assert!(with("at", json!(1)).is_ok());
        for (member, value) in [
            ("tokens", json!("a")),
            ("tokens", json!("a,a")),
            ("tokens", json!("b,a")),
            ("tokens", json!("a,*")),
            ("cpu", json!([1])),
            ("state", json!([3, 0])),
            ("state", json!([0, -1])),
            ("mark", json!([1.5, 1])),
            ("buckets", json!(0)),
            ("buckets", json!(100_000)),
        ] {
            assert!(with(member, value.clone()).is_err(), "{member}: {value}");
        }
        assert!(Frame::from_json(b"{}").is_err());
        assert_eq!(
            Frame::from_json(&vec![b' '; FRAME_BYTES + 1]),
            Err(FrameError::TooLarge(FRAME_BYTES + 1))
        );
        let wild = with("cpu", json!([101, -7])).unwrap();
        assert_eq!((wild.machines[0].cpu, wild.machines[1].cpu), (Some(100), None));
    }

    #[test]
    fn large_fleets_have_more_buckets_and_each_machine_one() {
        assert_eq!([0, 32_000, 32_001, 64_001, usize::MAX].map(buckets), [16, 16, 32, 64, 256]);
        let mut counts = vec![0; 16];
        for n in 0..10_000 {
            let mid = MachineToken::new(format!("web-{n}")).unwrap();
            counts[bucket(&mid, 16) as usize] += 1;
            assert_eq!(bucket(&mid, 32) % 16, bucket(&mid, 16));
        }
        assert!(counts.iter().all(|count| (500..750).contains(count)), "{counts:?}");
    }

    /// How a machine is in one minute of an hour: figures that move as those of real machines do.
    fn simulated(n: u32, minute: u32) -> Figures {
        let wave = |of: u32| (n.wrapping_mul(2_654_435_761).wrapping_add(of * minute * 7)) >> 8;
        Figures {
            state: Liveness::Online,
            is_skewed: false,
            cpu: u8::try_from(wave(1) % 101).ok(),
            memory: u8::try_from(20 + n % 70 + minute % 3).ok(),
            disk: u8::try_from(30 + n % 60).ok(),
            load: Some(wave(2) % 160),
            running: u32::from(wave(3).is_multiple_of(20)),
            pending: 0,
            age: Some(wave(4) % 11),
            relay: Some("0.1.0".into()),
            mark: Some(u16::try_from(n % 10_000).unwrap()),
            ..figures(&format!("web-{n:04}"))
        }
    }

    #[test]
    fn an_hour_of_a_thousand_machines_takes_no_more_than_is_told() {
        let machines: Vec<Vec<u32>> = (0..BUCKETS)
            .map(|number| {
                let mut of: Vec<u32> =
                    (0..1_000).filter(|n| bucket(&simulated(*n, 0).token, BUCKETS) == number).collect();
                of.sort_unstable();
                of
            })
            .collect();
        let bytes: usize = (0..60)
            .flat_map(|minute| machines.iter().map(move |of| (minute, of)))
            .map(|(minute, of)| frame(of.iter().map(|n| simulated(*n, minute)).collect()).to_json().len())
            .sum();
        let each = bytes / 60 / 1_000;
        assert!(each <= 42, "{each} bytes of a machine and minute");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frame::from_json(&bytes);
        }
    }
}
