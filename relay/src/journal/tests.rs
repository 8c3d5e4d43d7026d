#![expect(clippy::cast_possible_truncation, reason = "numbers of these cases are small")]

use super::*;
use proptest::prelude::*;
use signalbox_schemas::{
    Base64Url,
    id::{CommandId, Nonce},
    limit::DAY_MS,
    output::OutputStream,
};

fn cid(number: u128) -> CommandId {
    CommandId::new(uuid::Builder::from_custom_bytes(number.to_be_bytes()).into_uuid()).unwrap()
}

fn claim(number: u128) -> Entry {
    let instance = Nonce([number as u8; 16]);
    Entry::Claim { cid: cid(number), instance, expires_at: 5, spec: "{}".into(), before: Progress::default() }
}

fn chunk(number: u128, offset: u64, len: u64, is_tail: bool) -> Entry {
    let chunk = ChunkRecord { stream: OutputStream::Stdout, offset, len, is_tail };
    Entry::Chunk { cid: cid(number), chunk }
}

fn fact(number: u128, bytes: usize) -> Entry {
    let body = Base64Url(vec![number as u8; bytes]);
    Entry::Fact { cid: cid(number), report: Report::Exit, expires_at: 5, body }
}

fn mark(number: u8) -> Entry {
    let mark = KeeperMark {
        instance: Nonce([number; 16]),
        pid: 7,
        started_ticks: 8,
        boot_id: "b".into(),
        nonce_sha256: Sha256::of(&[number]),
    };
    Entry::Keeper { mark }
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (0..11_u8, 0..6_u128, 0..40_u64).prop_map(|(kind, number, at)| match kind {
        0 => Entry::Mailbox { generation: at, sha256: Sha256::of(&[kind]) },
        1 => mark(number as u8),
        2 => claim(number),
        3 => Entry::Unclaimed { cid: cid(number) },
        4 => Entry::Decided { cid: cid(number) },
        5 => chunk(number, at, at % 3, at % 5 == 0),
        6 => fact(number, at as usize),
        7 => Entry::Acked { cid: cid(number) },
        8 => Entry::Applying { cid: cid(number) },
        9 => Entry::Inventory { revision: at },
        _ => Entry::Known { cid: cid(number), expires_at: at },
    })
}

fn fold(entries: impl IntoIterator<Item = Entry>) -> Ledger {
    let mut ledger = Ledger::default();
    entries.into_iter().for_each(|entry| ledger.apply(entry));
    ledger
}

/// A journal with a few entries, its bytes, and where each line ends.
fn written(entries: &[Entry]) -> (tempfile::TempDir, Vec<u8>, Vec<usize>) {
    let store = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(store.path(), 0).unwrap();
    let mut ends = vec![0];
    for entry in entries {
        journal.append(entry.clone()).unwrap();
        ends.push(journal.length as usize);
    }
    let bytes = fs::read(store.path().join(FILE)).unwrap();
    (store, bytes, ends)
}

#[test]
fn a_journal_torn_at_any_byte_says_what_was_whole_and_goes_on() {
    let entries = [mark(1), claim(1), chunk(1, 0, 9, false), fact(1, 30), Entry::Acked { cid: cid(1) }];
    let (store, bytes, ends) = written(&entries);
    for cut in 0..=bytes.len() {
        fs::write(store.path().join(FILE), &bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end > 0 && **end <= cut).count();
        let mut journal = Journal::open(store.path(), 0).unwrap();
        assert_eq!(journal.ledger, fold(entries[..whole].to_vec()), "cut at {cut}");
        journal.append(claim(9)).unwrap();
        drop(journal);
        let journal = Journal::open(store.path(), 0).unwrap();
        assert!(journal.ledger.claimed(cid(9)).is_some(), "cut at {cut}");
        assert_eq!(journal.broken_lines, 0, "cut at {cut}");
    }
}

#[test]
fn a_flipped_byte_costs_its_line_only() {
    let entries = [claim(1), claim(2), claim(3)];
    let (store, bytes, ends) = written(&entries);
    for at in ends[1]..ends[2] - 1 {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        fs::write(store.path().join(FILE), &bad).unwrap();
        let journal = Journal::open(store.path(), 0).unwrap();
        assert!(journal.ledger.claimed(cid(1)).is_some() && journal.ledger.claimed(cid(3)).is_some());
        assert!(journal.broken_lines > 0, "flipped {at}");
    }
}

/// As the agent does it, but at once.
fn rewrite_if_wanted(journal: &mut Journal) -> io::Result<()> {
    if !journal.wants_rewrite() {
        return Ok(());
    }
    let draft = journal.begin_rewrite();
    journal.end_rewrite(draft.write())
}

#[test]
fn the_file_stays_small_while_it_says_the_same() {
    let store = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(store.path(), 0).unwrap();
    for number in 0..2_000 {
        journal.append(claim(number)).unwrap();
        journal.append(fact(number, 3_000)).unwrap();
        journal.append(Entry::Acked { cid: cid(number) }).unwrap();
        rewrite_if_wanted(&mut journal).unwrap();
    }
    let said = journal.ledger.clone();
    assert!(journal.length < 3 * REWRITE_BYTES, "{} bytes", journal.length);
    drop(journal);
    let journal = Journal::open(store.path(), 0).unwrap();
    assert_eq!(journal.ledger, said);
    assert!(said.record(cid(0)).is_some(), "an id is remembered when its report is not");
    assert_eq!(said.record(cid(0)).unwrap().state, RecordState::Known);
    assert!(matches!(said.record(cid(1_999)).unwrap().state, RecordState::Reported(..)));
}

#[test]
fn what_is_added_while_the_file_is_written_anew_is_in_both() {
    let store = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(store.path(), 0).unwrap();
    journal.append(mark(1)).unwrap();
    journal.append(claim(1)).unwrap();
    assert!(!journal.wants_rewrite());
    journal.begin_life(Nonce([1; 16]));
    assert!(journal.wants_rewrite());
    let draft = journal.begin_rewrite();
    journal.append(claim(2)).unwrap();
    assert!(!journal.wants_rewrite(), "twice at once");
    let written = draft.write();
    journal.append(fact(1, 30)).unwrap();
    let copy = tempfile::tempdir().unwrap();
    fs::copy(&journal.path, copy.path().join(FILE)).unwrap();
    assert_eq!(Journal::open(copy.path(), 0).unwrap().ledger, journal.ledger, "after a kill at this point");
    journal.is_dirty = false;
    journal.end_rewrite(written).unwrap();
    assert!(journal.is_dirty() && !journal.wants_rewrite());
    journal.append(claim(3)).unwrap();
    assert_eq!(journal.length, fs::metadata(store.path().join(FILE)).unwrap().len());
    let said = journal.ledger.clone();
    drop(journal);
    assert_eq!(Journal::open(store.path(), 0).unwrap().ledger, said);
}

#[test]
fn a_draft_that_fails_leaves_no_file_and_is_tried_again() {
    let store = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(store.path(), 0).unwrap();
    let draft = draft_of(&journal.path);
    let full = || std::os::unix::fs::symlink("/dev/full", &draft).unwrap();
    full();
    journal.append(claim(1)).unwrap();
    journal.begin_life(Nonce([1; 16]));
    rewrite_if_wanted(&mut journal).unwrap_err();
    assert!(fs::symlink_metadata(&draft).is_err(), "the draft was left behind");
    journal.append(claim(2)).unwrap();
    let said = journal.ledger.clone();
    assert!(journal.wants_rewrite(), "it is not tried again");
    rewrite_if_wanted(&mut journal).unwrap();
    full();
    drop(journal);
    assert_eq!(Journal::open(store.path(), 0).unwrap().ledger, said);
    assert!(fs::symlink_metadata(&draft).is_err(), "the draft of a killed process was left behind");
}

#[test]
fn half_a_line_that_cannot_be_taken_away_costs_no_other_line() {
    let (store, bytes, ends) = written(&[claim(1), claim(2)]);
    let path = store.path().join(FILE);
    // What a full disk leaves of the second line.
    fs::write(&path, &bytes[..ends[1]]).unwrap();
    let mut journal = Journal::open(store.path(), 0).unwrap();
    fs::write(&path, &bytes[..ends[2] - 20]).unwrap();
    // It takes nothing and cannot be cut.
    let file =
        std::mem::replace(&mut journal.file, OpenOptions::new().append(true).open("/dev/full").unwrap());
    journal.append(claim(2)).unwrap_err();
    journal.append(claim(2)).unwrap_err();
    journal.file = file;
    journal.append(claim(3)).unwrap();
    journal.append(claim(4)).unwrap();
    assert_eq!(journal.length, fs::metadata(&path).unwrap().len());
    let journal = Journal::open(store.path(), 0).unwrap();
    let there: Vec<_> = (1..=4).filter(|number| journal.ledger.claimed(cid(*number)).is_some()).collect();
    assert_eq!((there, journal.broken_lines), (vec![1, 3, 4], 1));
}

#[test]
fn ids_go_a_day_after_they_expired_unless_something_is_open() {
    let mut ledger = fold([claim(1), claim(2), fact(3, 1), fact(4, 1)]);
    ledger.apply(Entry::Decided { cid: cid(2) });
    ledger.apply(Entry::Acked { cid: cid(4) });
    ledger.prune(5 + DAY_MS - 1);
    assert!((1..=4).all(|number| ledger.record(cid(number)).is_some()));
    ledger.prune(5 + DAY_MS);
    let left: Vec<_> = (1..=4).filter(|number| ledger.record(cid(*number)).is_some()).collect();
    assert_eq!(left, [1, 3]);
}

#[test]
fn a_keeper_is_remembered_as_long_as_a_claim_of_its_life_is_open() {
    let mut ledger = fold([mark(1), mark(2), mark(3), claim(2)]);
    ledger.forget_keepers(Nonce([3; 16]));
    let known: Vec<_> = (1..=3).filter(|number| ledger.keeper(Nonce([*number; 16])).is_some()).collect();
    assert_eq!(known, [2, 3]);
}

proptest! {
    #[test]
    fn written_anew_it_says_the_same(entries in prop::collection::vec(any_entry(), 0..60)) {
        let ledger = fold(entries);
        prop_assert_eq!(fold(ledger.entries()), ledger);
    }

    #[test]
    fn a_line_is_read_as_it_was_written(entry in any_entry()) {
        let line = encode(&entry);
        prop_assert_eq!(decode(line.strip_suffix(b"\n").unwrap()), Some(entry));
    }
}

#[test]
fn room_that_is_kept_or_tried_is_no_entry() {
    let store = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(store.path(), 0).unwrap();
    journal.append(claim(1)).unwrap();
    journal.make_room(100_000).unwrap();
    journal.try_room(100_000).unwrap();
    journal.append(claim(2)).unwrap();
    let file = fs::metadata(store.path().join(FILE)).unwrap();
    assert_eq!((file.len(), journal.is_torn), (journal.length, false));
    assert!(journal.length < 1_000, "{}", journal.length);
    // A process that is killed while it tries.
    (&journal.file).write_all(&b"\n".repeat(100)).unwrap();
    let again = Journal::open(store.path(), 0).unwrap();
    assert_eq!((again.broken_lines, again.ledger()), (0, &fold([claim(1), claim(2)])));
}

#[test]
fn claims_stay_in_their_order() {
    let ledger = fold([claim(3), claim(1), claim(2), claim(4), Entry::Decided { cid: cid(1) }]);
    let order = |ledger: &Ledger| ledger.claims().map(|(cid, ..)| cid).collect::<Vec<_>>();
    assert_eq!(order(&ledger), [cid(3), cid(2), cid(4)]);
    assert_eq!(order(&fold(ledger.entries())), [cid(3), cid(2), cid(4)]);
}

/// What is sealed for this relay opens with keys that lie beside the journal.
#[test]
fn a_secret_that_was_brought_leaves_the_file_with_its_claim() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(folder.path(), 0).unwrap();
    let secret = |number| match claim(number) {
        Entry::Claim { cid, instance, expires_at, before, .. } => {
            let spec = r#"{"body":"HIDDEN","sealed":"KEY"}"#.to_owned();
            Entry::Claim { cid, instance, expires_at, spec, before }
        }
        other => other,
    };
    let text = || fs::read_to_string(folder.path().join(FILE)).unwrap();
    let is_written_anew = |journal: &mut Journal| {
        assert!(journal.wants_rewrite());
        let draft = journal.begin_rewrite();
        journal.end_rewrite(draft.write()).unwrap();
    };
    for settled in [fact(1, 3), Entry::Decided { cid: cid(1) }, Entry::Unclaimed { cid: cid(1) }] {
        journal.append(secret(1)).unwrap();
        assert!(!journal.wants_rewrite() && text().contains("HIDDEN"));
        journal.append(settled).unwrap();
        is_written_anew(&mut journal);
        assert!(!text().contains("HIDDEN"), "{}", text());
    }
    // A second one is settled while the file is written anew because of the first.
    journal.append(secret(1)).unwrap();
    journal.append(secret(2)).unwrap();
    journal.append(fact(1, 3)).unwrap();
    let draft = journal.begin_rewrite();
    journal.append(fact(2, 3)).unwrap();
    journal.end_rewrite(draft.write()).unwrap();
    assert!(text().contains("HIDDEN"));
    is_written_anew(&mut journal);
    assert!(!text().contains("HIDDEN"), "{}", text());
}
