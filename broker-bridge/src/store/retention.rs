//! Deleting rows that are older than the streams they came from.

use signalbox_schemas::{id::CommandId, limit::DAY_MS};

use super::{Store, StoreError, Txn, key};

/// Output of a command: OUT keeps nine days, and a command may begin seven days after it was accepted and run for
/// two.
const OUTPUT_MS: u64 = 18 * DAY_MS;
/// Everything else: DONE keeps 400 days from the day on which a command settled.
const HISTORY_MS: u64 = (400 + 9) * DAY_MS;
/// Commands looked at in one go.
const AT_ONCE: usize = 100;

/// What is deleted when.
#[derive(Clone, Copy)]
enum Kind {
    Output,
    All,
}

/// Deletes rows of commands that are too old; answers of how many. Blocks for some milliseconds.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn trim(store: &Store, now_ms: u64) -> Result<usize, StoreError> {
    let output = trim_kind(store, Kind::Output, now_ms.saturating_sub(OUTPUT_MS))?;
    let all = trim_kind(store, Kind::All, now_ms.saturating_sub(HISTORY_MS))?;
    Ok(output + all)
}

fn trim_kind(store: &Store, kind: Kind, until: u64) -> Result<usize, StoreError> {
    // Commands whose output is gone stay in the order, so it is remembered up to where that was done.
    let from = match kind {
        Kind::Output => store.get(key::OUTPUT_TRIMMED)?.unwrap_or_else(|| vec![key::ORDER]),
        Kind::All => vec![key::ORDER],
    };
    let mut txn = Txn::new(store);
    let mut count = 0;
    for row in store.range(from, key::order(until, 0)).take(AT_ONCE) {
        let (mut place, cid) = row?;
        let cid = key::Reader(&cid).cid().ok_or(StoreError::Damaged("order"))?;
        delete(&mut txn, kind, cid)?;
        match kind {
            Kind::Output => {
                place.push(0);
                txn.put(key::OUTPUT_TRIMMED.to_vec(), place);
            }
            Kind::All => txn.delete(place),
        }
        count += 1;
    }
    txn.commit()?;
    Ok(count)
}

fn delete(txn: &mut Txn<'_>, kind: Kind, cid: CommandId) -> Result<(), StoreError> {
    let kinds: &[u8] = match kind {
        Kind::Output => b"xy",
        Kind::All => b"CSgKnorfwxym",
    };
    for kind in kinds {
        let prefix = key::of(*kind, cid);
        for (found, _) in txn.scan(&prefix)? {
            txn.delete(found);
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
        assert_eq!(trim(&store, OUTPUT_MS).unwrap(), 0);
        assert_eq!(trim(&store, OUTPUT_MS + 2_000).unwrap(), 1);
        assert_eq!((has(one), has(two)), ((true, false), (true, true)));
        assert_eq!(trim(&store, OUTPUT_MS + 2_000).unwrap(), 0);
        trim(&store, HISTORY_MS + 2_000).unwrap();
        assert_eq!((has(one), has(two)), ((false, false), (true, false)));
    }
}
