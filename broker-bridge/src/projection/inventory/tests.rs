//! What is shown of a list, in whatever order it and the record of its machine are read.

use std::{sync::Arc, time::Duration};

use nkeys::{KeyPair, KeyPairType};
use proptest::prelude::*;
use signalbox_schemas::{
    authors::Authors,
    id::{MachineId, Sha256, Workspace},
    label::{GivenLabels, LabelKey, LabelMap, LabelValue},
    record::RelayKeys,
    sealed::OpeningKey,
    signed::SigningKey,
};

use super::*;
use crate::{
    ingest::decode::{Decoder, Event, Record},
    projection::memory::{AuthorsDoc, Memory},
    store::Store,
};

const BRIDGE: u8 = 9;

fn key(byte: u8) -> SigningKey {
    let pair = KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).unwrap();
    SigningKey::from_seed(&pair.seed().unwrap()).unwrap()
}

fn mid() -> MachineToken {
    MachineToken::new("web-1").unwrap()
}

/// One message of a stream.
#[derive(Debug, Clone, Copy)]
enum Said {
    /// The machine has this key, or none.
    Record(Option<u8>),
    /// A list by this key, of this revision.
    List(u8, u64),
    /// What is no list stands where one stood.
    Rubbish,
}

fn record(signer: Option<u8>, revision: u64) -> Event {
    let key_of = |byte: u8| key(byte).public().clone();
    let keys = signer.map(|byte| RelayKeys { login_key: key_of(byte), signing_key: key_of(byte) });
    let record = MachineRecord {
        ws: Workspace::main(),
        id: MachineId::new("web-1").unwrap(),
        token: mid(),
        keys,
        enrolled_at: 1,
        enrolled_by: None,
        former_keys: Vec::new(),
        allow_legacy: false,
        labels: GivenLabels::default(),
        revision,
    };
    Event::Record(Record::Machine(record), key_of(BRIDGE))
}

fn label(revision: u64) -> (LabelKey, LabelValue) {
    (LabelKey::new("revision").unwrap(), LabelValue::new(revision.to_string()).unwrap())
}

fn list(by: u8, revision: u64) -> Event {
    let by = key(by);
    let list = Inventory {
        ws: Workspace::main(),
        mid: mid(),
        revision,
        sealing_key: OpeningKey::of_machine(&by).unwrap().public().clone(),
        credentials: vec![],
        left_out: 0,
        problem: None,
        labels: LabelMap::from([label(revision)]),
        facts: None,
        crit: vec![],
    };
    Event::Inventory { mid: mid(), list: Ok(Box::new(Signed::sign(&list, &by).unwrap())) }
}

/// A projection in a folder of its own, which knows the bridge.
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
        let mut memory = Memory::load(&store, Duration::ZERO).unwrap();
        let doc = Authors {
            ws: Workspace::main(),
            version: 1,
            issued_at: 0,
            not_after: u64::MAX,
            authors: vec![],
            issuers: vec![],
            bridges: vec![key(BRIDGE).public().clone()],
            former_bridges: vec![],
            next_fleet_key: None,
            crit: vec![],
        };
        memory.authors = Some(AuthorsDoc { doc: Arc::new(doc), sha256: Sha256::of(b"") });
        let decoder = Decoder { ws: Workspace::main(), fleet_key: key(1).public().clone() };
        Self { memory, store, decoder, _dir: dir }
    }

    fn read(&mut self, sequence: u64, event: &Event) -> Outcome {
        let mut projection = Projection::new(&mut self.memory, &self.store, &self.decoder);
        let outcome = projection.apply(sequence, sequence, event, true);
        projection.commit(None).unwrap();
        outcome
    }

    /// Reads these messages, each of which has its sequence in its stream.
    fn read_all(&mut self, said: &[(u64, Said)]) {
        for (sequence, said) in said {
            let event = match said {
                Said::Record(signer) => record(*signer, *sequence),
                Said::List(by, revision) => list(*by, *revision),
                Said::Rubbish => Event::Inventory { mid: mid(), list: Err("payload") },
            };
            let outcome = self.read(*sequence, &event);
            assert!(
                matches!(outcome, Ok(Applied::Yes)) || matches!(said, Said::Rubbish),
                "{said:?}: {outcome:?}"
            );
        }
    }

    /// The labels that count, which are the same after a start from the store; `None` while its relay has said nothing that
    /// counts.
    fn labels(&self) -> Option<LabelMap> {
        let of = |memory: &Memory| {
            let machine = memory.machines.get(&mid()).filter(|machine| !machine.is_relay_unheard())?;
            Some(machine.labels().iter().map(|(key, label)| (key.clone(), label.value.clone())).collect())
        };
        let read = Memory::load(&self.store, Duration::ZERO).unwrap();
        assert_eq!(of(&read), of(&self.memory));
        of(&self.memory)
    }

    /// What is shown, and what is shown after a start from the store.
    fn shown(&self) -> Option<InventoryRow> {
        let read = Memory::load(&self.store, Duration::ZERO).unwrap();
        assert_eq!(read.waiting_lists, self.memory.waiting_lists);
        let row: Option<InventoryRow> = self.store.json(&key::inventory(&mid()), "inventory").unwrap();
        let machine = self.memory.machines.get(&mid());
        row.filter(|row| machine.is_some_and(|machine| row.counts_for(&machine.record)))
    }
}

/// Records and lists, each in the order of its stream, and the order in which a bridge reads the two streams: a record where it is
/// true.
type Streams = (Vec<(u64, Said)>, Vec<(u64, Said)>, Vec<bool>);

fn streams() -> impl Strategy<Value = Streams> {
    let signer = prop_oneof![4 => (1_u8..=2).prop_map(Some), 1 => Just(None)];
    let list = prop_oneof![
        3 => (1_u8..=2, 0_u64..4).prop_map(|(by, revision)| Said::List(by, revision)),
        1 => Just(Said::Rubbish)
    ];
    let numbered = |said: Vec<Said>| (1..).zip(said).collect::<Vec<(u64, Said)>>();
    let records = proptest::collection::vec(signer.prop_map(Said::Record), 0..4).prop_map(numbered);
    let lists = proptest::collection::vec(list, 0..5).prop_map(numbered);
    (records, lists, proptest::collection::vec(any::<bool>(), 9))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn what_is_shown_follows_from_what_the_streams_hold(streams in streams()) {
        let (records, lists, order) = streams;
        let (mut left, mut right) = (records.iter().peekable(), lists.iter().peekable());
        let mut as_read = Vec::new();
        for is_record in order {
            let next = if is_record { left.next().or_else(|| right.next()) } else { right.next().or_else(|| left.next()) };
            as_read.extend(next.copied());
        }
        prop_assert_eq!(as_read.len(), records.len() + lists.len());
        let mut live = Bench::new();
        live.read_all(&as_read);
        // Of lists the broker has the last one only.
        let mut rebuilt = Bench::new();
        rebuilt.read_all(&records);
        rebuilt.read_all(&lists[lists.len().saturating_sub(1)..]);
        prop_assert_eq!(live.shown(), rebuilt.shown());
        let last_signer = records.last().and_then(|(_, said)| match said {
            Said::Record(signer) => *signer,
            _ => None,
        });
        let expected = lists.last().and_then(|(at, said)| match said {
            Said::List(by, _) if Some(*by) == last_signer => Some(*at),
            _ => None,
        });
        prop_assert_eq!(live.shown().map(|row| row.stored_at), expected);
        prop_assert_eq!(live.labels(), rebuilt.labels());
        let expected = match (last_signer, lists.last()) {
            (Some(signer), Some((_, Said::List(by, revision)))) if *by == signer => Some(LabelMap::from([label(*revision)])),
            (None, _) if !records.is_empty() => Some(LabelMap::new()),
            _ => None,
        };
        prop_assert_eq!(live.labels(), expected);
    }
}

#[test]
fn lists_of_unknown_machines_are_bounded_and_make_room_when_the_machine_comes() {
    let mut bench = Bench::new();
    let others = (1..MAX_WAITING_LISTS).map(|n| MachineToken::new(format!("m-{n}")).unwrap());
    bench.memory.waiting_lists = others.collect();
    bench.read(1, &list(1, 1)).unwrap();
    bench.memory.waiting_lists.insert(MachineToken::new("m-0").unwrap());
    bench.memory.waiting_lists.remove(&mid());
    let refused = bench.read(2, &list(1, 2));
    assert!(matches!(refused, Err(ApplyError::Refused("too_many_unknown"))), "{refused:?}");
    bench.memory.waiting_lists.remove(&MachineToken::new("m-0").unwrap());
    bench.read(3, &list(1, 3)).unwrap();
    assert!(bench.memory.waiting_lists.contains(&mid()));
    bench.read(1, &record(Some(1), 1)).unwrap();
    assert!(!bench.memory.waiting_lists.contains(&mid()));
}
