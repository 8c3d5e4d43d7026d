//! Deleting rows that are older than the streams they came from.

use signalbox_schemas::{id::CommandId, limit::DAY_MS};

use super::{Store, StoreError, Txn, key};

/// Output of a command: OUT keeps nine days, and a command may begin seven days after it was accepted and run for
/// two.
const OUTPUT_MS: u64 = 18 * DAY_MS;
/// Everything else: DONE keeps 400 days from the day on which a command settled.
const HISTORY_MS: u64 = (400 + 9) * DAY_MS;
/// Commands looked at in one slice.
const COMMANDS: usize = 100;
/// Rows deleted in one slice: a command may have a million rows of output.
const ROWS: usize = 5_000;

/// What is deleted when.
#[derive(Clone, Copy)]
enum Kind {
    Output,
    All,
}

/// What one slice came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Commands of which nothing that is too old is left.
    pub(crate) commands: usize,
    /// Whether there may be more to do.
    pub(crate) more: bool,
}

/// Deletes some rows of commands that are too old. Blocks for some milliseconds: whoever holds a lock meanwhile lets go
/// of it before the next slice.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn trim(store: &Store, now_ms: u64) -> Result<Slice, StoreError> {
    let output = trim_kind(store, Kind::Output, now_ms.saturating_sub(OUTPUT_MS))?;
    if output.more {
        return Ok(output);
    }
    let all = trim_kind(store, Kind::All, now_ms.saturating_sub(HISTORY_MS))?;
    Ok(Slice { commands: output.commands + all.commands, more: all.more })
}

fn trim_kind(store: &Store, kind: Kind, until: u64) -> Result<Slice, StoreError> {
    // Commands whose output is gone stay in the order, so it is remembered up to where that was done.
    let from = match kind {
        Kind::Output => store.get(key::OUTPUT_TRIMMED)?.unwrap_or_else(|| vec![key::ORDER]),
        Kind::All => vec![key::ORDER],
    };
    let mut txn = Txn::new(store);
    let (mut commands, mut room) = (0, ROWS);
    for row in store.range(from, key::order(until, 0)).take(COMMANDS) {
        let (mut place, cid) = row?;
        let cid = key::Reader(&cid).cid().ok_or(StoreError::Damaged("order"))?;
        delete(store, &mut txn, kind, cid, &mut room)?;
        if room == 0 {
            break;
        }
        match kind {
            Kind::Output => {
                place.push(0);
                txn.put(key::OUTPUT_TRIMMED.to_vec(), place);
            }
            Kind::All => txn.delete(place),
        }
        commands += 1;
    }
    txn.commit()?;
    Ok(Slice { commands, more: room == 0 || commands == COMMANDS })
}

/// Deletes a command's rows as far as there is room.
fn delete(
    store: &Store,
    txn: &mut Txn<'_>,
    kind: Kind,
    cid: CommandId,
    room: &mut usize,
) -> Result<(), StoreError> {
    let kinds: &[u8] = match kind {
        Kind::Output => b"xy",
        Kind::All => b"CSgKRnorfwxym",
    };
    for kind in kinds {
        for row in store.scan(&key::of(*kind, cid)).take(*room) {
            txn.delete(row?.0);
            *room -= 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_output_goes_first_and_old_commands_go_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "t").unwrap();
        let cids = ["0193a2b4-0000-7000-8000-000000000000", "0193a2b4-0000-7000-8000-000000000001"];
        let mut txn = Txn::new(&store);
        for (i, cid) in cids.iter().enumerate() {
            let cid: CommandId = cid.parse().unwrap();
            txn.put(key::order(1_000 + i as u64 * DAY_MS, 1), cid.uuid().as_bytes().to_vec());
            txn.put(key::command(cid), b"{}".to_vec());
            txn.put(key::chunk(cid, 5, 0), b"chunk".to_vec());
        }
        txn.commit().unwrap();
        let [one, two] = cids.map(|cid| cid.parse::<CommandId>().unwrap());
        let has = |cid| (store.has(&key::command(cid)).unwrap(), store.has(&key::chunk(cid, 5, 0)).unwrap());
        let slice = |commands| Slice { commands, more: false };
        assert_eq!(trim(&store, OUTPUT_MS).unwrap(), slice(0));
        assert_eq!(trim(&store, OUTPUT_MS + 2_000).unwrap(), slice(1));
        assert_eq!((has(one), has(two)), ((true, false), (true, true)));
        assert_eq!(trim(&store, OUTPUT_MS + 2_000).unwrap(), slice(0));
        trim(&store, HISTORY_MS + 2_000).unwrap();
        assert_eq!((has(one), has(two)), ((false, false), (true, false)));
    }

    #[test]
    fn a_command_with_very_many_rows_is_deleted_in_slices() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "t").unwrap();
        let cid: CommandId = "0193a2b4-0000-7000-8000-000000000000".parse().unwrap();
        let mut txn = Txn::new(&store);
        txn.put(key::order(1_000, 1), cid.uuid().as_bytes().to_vec());
        for sequence in 0..12_000 {
            txn.put(key::chunk(cid, sequence, 0), b"chunk".to_vec());
        }
        txn.commit().unwrap();
        let mut slices = Vec::new();
        loop {
            let slice = trim(&store, OUTPUT_MS + 2_000).unwrap();
            slices.push(slice.commands);
            if !slice.more {
                break;
            }
        }
        assert_eq!(slices, [0, 0, 1]);
        assert_eq!(store.scan(&key::chunks(cid)).count(), 0);
    }
}
