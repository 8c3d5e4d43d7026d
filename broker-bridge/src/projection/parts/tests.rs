//! Parts of one try of a submit or of several, and which of them a spec finds.

use std::time::Duration;

use nkeys::{KeyPair, KeyPairType};
use proptest::prelude::*;
use rstest::rstest;
use signalbox_schemas::{
    id::{MachineId, MachineToken, Workspace},
    label::GivenLabels,
    record::{MachineRecord, RelayKeys},
    signed::SigningKey,
};

use super::*;
use crate::{
    ingest::decode::{Decoder, Event},
    projection::{ApplyError, memory::Memory},
    store::{Store, Txn},
};

const CID: &str = "0193a2b4-0000-7000-8000-000000000000";
/// Machines of every command here.
const MACHINES: usize = 6;

fn key(byte: u8) -> SigningKey {
    let pair = KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).unwrap();
    SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
}

fn mid(n: usize) -> MachineToken {
    MachineToken::new(format!("web-{n}")).unwrap()
}

/// One try of a submit: its spec, which differs from try to try, and its grants in so many parts.
struct Try {
    spec: CommandSpec,
    spec_bytes: Bytes,
    parts: Vec<Bytes>,
}

fn attempt(expires_at: u64, of: usize) -> Try {
    let (ws, cid) = (Workspace::main(), CID.parse().unwrap());
    let spec = serde_json::json!({
        "ws": ws, "cid": cid, "command": "true", "timeout_ms": 1, "created_at": 0, "expires_at": expires_at,
        "max_output": 1, "on": "all", "targets": MACHINES, "by": "operator:local",
    });
    let spec_bytes = Bytes::from(spec.to_string());
    let spec = CommandSpec::from_bytes(&spec_bytes).unwrap();
    let spec_sha256 = Sha256::of(&spec_bytes);
    let grant = |n| {
        let grant = Grant { ws: ws.clone(), cid, mid: mid(n), spec_sha256, expires_at, sealed: None };
        Signed::sign(&grant, &key(3)).unwrap()
    };
    let grants: Vec<_> = (0..MACHINES).map(grant).collect();
    let chunks = grants.chunks(MACHINES / of);
    let count = u32::try_from(chunks.len()).unwrap();
    let part = |(n, grants): (u32, &[Signed<Grant>])| {
        let part = Part { cid, n, of: count, grants: grants.to_vec() };
        Bytes::from(serde_json::to_vec(&part).unwrap())
    };
    let parts = (1..).zip(chunks).map(part).collect();
    Try { spec, spec_bytes, parts }
}

/// A projection with all machines in a folder of its own, and what it has of the command.
struct Bench {
    memory: Memory,
    store: Store,
    decoder: Decoder,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "t").unwrap();
        let mut txn = Txn::new(&store);
        for n in 0..MACHINES {
            let (login_key, signing_key) = (key(4).public().clone(), key(5).public().clone());
            let record = MachineRecord {
                ws: Workspace::main(),
                id: MachineId::new(mid(n).as_str()).unwrap(),
                token: mid(n),
                keys: Some(RelayKeys { login_key, signing_key }),
                enrolled_at: 1,
                enrolled_by: None,
                former_keys: Vec::new(),
                allow_legacy: false,
                labels: GivenLabels::default(),
                revision: 0,
            };
            let table = signalbox_schemas::record::table::MACHINES;
            txn.put_json(crate::store::key::record(table, mid(n).as_str()), &record);
        }
        txn.commit().unwrap();
        let memory = Memory::load(&store, Duration::ZERO).unwrap();
        let decoder = Decoder { ws: Workspace::main(), fleet_key: key(1).public().clone() };
        Self { memory, store, decoder, _dir: dir }
    }

    /// Applies these pieces, one batch each, at their sequences; answers what becomes of the last and what was noted.
    fn apply(&mut self, pieces: &[(u64, Event)]) -> (Outcome, Vec<&'static str>) {
        let (mut outcome, mut notes) = (Ok(Applied::NotYet), Vec::new());
        for (sequence, piece) in pieces {
            let mut projection = Projection::new(&mut self.memory, &self.store, &self.decoder);
            outcome = projection.apply(*sequence, *sequence, piece, true);
            notes.extend(projection.commit(None).unwrap().notes);
        }
        (outcome, notes)
    }

    /// Machines with a grant in memory, and in memory as it is read from the store again.
    fn granted(&self) -> [Vec<MachineToken>; 2] {
        let read = Memory::load(&self.store, Duration::ZERO).unwrap();
        assert_eq!(read.waiting_parts, self.memory.waiting_parts, "parts are counted wrong");
        [&self.memory, &read].map(|memory| {
            let open = memory.open.get(&CID.parse().unwrap());
            let mut machines: Vec<_> = open.iter().flat_map(|open| open.grants.keys().cloned()).collect();
            machines.sort();
            machines
        })
    }
}

fn spec_of(attempt: &Try) -> Event {
    let (spec, bytes) = (Box::new(attempt.spec.clone()), attempt.spec_bytes.clone());
    Event::Spec { cid: attempt.spec.cid, spec, bytes }
}

fn part_of(attempt: &Try, n: usize) -> Event {
    let number = u32::try_from(n + 1).unwrap();
    Event::Part { cid: attempt.spec.cid, n: number, body: attempt.parts[n].clone() }
}

fn all() -> Vec<MachineToken> {
    (0..MACHINES).map(mid).collect()
}

/// Applies these in their order, then the spec of a try.
fn after_parts(parts: Vec<Event>, of: &Try) -> (Bench, Outcome, Vec<&'static str>) {
    let mut bench = Bench::new();
    let pieces: Vec<_> = (1..).zip(parts.into_iter().chain([spec_of(of)])).collect();
    let (outcome, notes) = bench.apply(&pieces);
    (bench, outcome, notes)
}

/// The n-th of all parts, of three tries: whole, in two and in three parts.
fn tries() -> [Try; 4] {
    [attempt(100, 1), attempt(200, 2), attempt(300, 3), attempt(400, 3)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// In whatever order the parts of several tries come, and however often: the spec finds its own, all of them.
    #[test]
    fn a_spec_finds_its_parts_in_any_order(
        which in 0..4_usize,
        extra in prop::collection::vec((0..4_usize, 0..3_usize), 0..24),
        order in any::<u64>(),
    ) {
        let tries = tries();
        let wanted = (0..tries[which].parts.len()).map(|n| (which, n));
        let mut told: Vec<_> =
            extra.into_iter().filter(|(which, n)| *n < tries[*which].parts.len()).chain(wanted).collect();
        // Somehow.
        told.sort_by_key(|(which, n)| Sha256::of(format!("{order} {which} {n}").as_bytes()).to_string());
        let parts = told.iter().map(|(which, n)| part_of(&tries[*which], *n)).collect();
        let (mut bench, outcome, notes) = after_parts(parts, &tries[which]);
        prop_assert!(matches!(outcome, Ok(Applied::Yes)), "{outcome:?}");
        prop_assert_eq!(notes, Vec::<&str>::new());
        prop_assert_eq!(bench.granted(), [all(), all()]);
        prop_assert_eq!(bench.memory.waiting_parts, 0);
        // Read once more from the beginning: nothing changes.
        let parts = told.iter().map(|(which, n)| part_of(&tries[*which], *n));
        let again: Vec<_> = (1..).zip(parts.chain([spec_of(&tries[which])])).collect();
        prop_assert!(matches!(bench.apply(&again).0, Ok(Applied::Yes)));
        prop_assert_eq!(bench.granted(), [all(), all()]);
        prop_assert_eq!(bench.memory.waiting_parts, 0);
    }

    /// Without one of its parts there is no command, whatever parts of others there are.
    #[test]
    fn a_spec_without_all_of_its_parts_is_no_command(
        which in 0..4_usize,
        missing in 0..3_usize,
        extra in prop::collection::vec((0..4_usize, 0..3_usize), 0..24),
    ) {
        let tries = tries();
        let missing = missing % tries[which].parts.len();
        let parts = extra
            .into_iter()
            .filter(|(other, n)| *n < tries[*other].parts.len() && (*other, *n) != (which, missing))
            .map(|(other, n)| part_of(&tries[other], n))
            .collect();
        let (bench, outcome, _) = after_parts(parts, &tries[which]);
        prop_assert!(matches!(outcome, Err(ApplyError::Refused(_))), "{outcome:?}");
        prop_assert_eq!(bench.granted(), [vec![], vec![]]);
    }
}

#[rstest]
#[case(0, "no_grants")]
#[case(1, "parts_missing")]
fn why_there_is_no_command_is_said(#[case] parts: usize, #[case] reason: &str) {
    let of = attempt(100, 2);
    let (_, outcome, _) = after_parts((0..parts).map(|n| part_of(&of, n)).collect(), &of);
    assert!(matches!(outcome, Err(ApplyError::Refused(why)) if why == reason), "{outcome:?}");
}

#[rstest]
#[case(1)]
#[case(3)]
fn however_often_a_submit_was_tried_its_last_parts_count(#[case] of: usize) {
    let tries: Vec<Try> = (100..120).map(|expires_at| attempt(expires_at, of)).collect();
    let parts = tries.iter().flat_map(|it| (0..it.parts.len()).map(|n| part_of(it, n))).collect();
    let (bench, outcome, notes) = after_parts(parts, &tries[19]);
    assert_eq!(outcome.unwrap(), Applied::Yes);
    assert_eq!(notes, vec!["part.dropped"; of * (20 - MAX_WAITING_PARTS)]);
    assert_eq!(bench.granted(), [all(), all()]);
}

#[rstest]
#[case(1)]
#[case(2)]
fn a_part_that_comes_again_is_young_again(#[case] of: usize) {
    // As many as may wait, the first of them once more, and one that has no room.
    let tries = (1..=MAX_WAITING_PARTS as u64).chain([1, 100]).map(|expires_at| attempt(expires_at, of));
    let parts = || tries.clone().flat_map(|it| (0..of).map(move |n| part_of(&it, n))).collect();
    assert_eq!(after_parts(parts(), &attempt(1, of)).1.unwrap(), Applied::Yes);
    assert!(after_parts(parts(), &attempt(2, of)).1.is_err());
}

#[test]
fn what_a_part_without_room_stood_for_is_still_known() {
    let mut bench = Bench::new();
    let tries = (100..120).map(|expires_at| attempt(expires_at, 1));
    let pieces: Vec<_> = (1..).zip(tries.map(|it| part_of(&it, 0))).collect();
    assert_eq!(bench.apply(&pieces).0.unwrap(), Applied::Yes);
    let prefix = crate::store::key::parts(CID.parse().unwrap(), 1);
    let rows = bench.store.scan(&prefix).collect::<Result<Vec<_>, _>>().unwrap();
    let places: Vec<u64> =
        rows.iter().map(|(found, _)| crate::store::key::parse_part(found).unwrap().1).collect();
    assert_eq!(places, (1..=20).collect::<Vec<u64>>());
    let whole = rows.iter().filter(|(_, row)| !parse_row(row).unwrap().1.is_empty()).count();
    assert_eq!((whole, bench.memory.waiting_parts), (MAX_WAITING_PARTS, 20));
}
