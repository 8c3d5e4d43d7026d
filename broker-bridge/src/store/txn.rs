//! One batch of changes, visible to itself before it is written.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};

use super::{Row, Store, StoreError, parse};

/// Rows that are to be written together. Reads see what was written before in the same transaction.
///
/// There is one writer at a time (whoever holds the projection), so nothing is locked here.
#[derive(Debug)]
pub(crate) struct Txn<'a> {
    store: &'a Store,
    /// `None` = deleted.
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<'a> Txn<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store, writes: BTreeMap::new() }
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.store.get(key),
        }
    }

    pub(crate) fn has(&self, key: &[u8]) -> Result<bool, StoreError> {
        match self.writes.get(key) {
            Some(written) => Ok(written.is_some()),
            None => self.store.has(key),
        }
    }

    pub(crate) fn json<T: DeserializeOwned>(
        &self,
        key: &[u8],
        kind: &'static str,
    ) -> Result<Option<T>, StoreError> {
        match self.writes.get(key) {
            Some(written) => written.as_ref().map(|bytes| parse(bytes, kind)).transpose(),
            None => self.store.json(key, kind),
        }
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key, Some(value));
    }

    pub(crate) fn put_json(&mut self, key: Vec<u8>, value: &impl Serialize) {
        // Our own rows are maps with text keys: they always have a JSON form.
        self.put(key, serde_json::to_vec(value).unwrap_or_default());
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    /// Rows whose key begins with `prefix`, in order. For the few short ranges that are read whole.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let mut rows = self.store.scan(prefix).collect::<Result<BTreeMap<_, _>, _>>()?;
        let written = self.writes.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        for (key, value) in written {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(rows.into_iter().collect())
    }

    /// The last row with `from <= key <= to`. Rows of the range are never deleted in the same transaction.
    pub(crate) fn last_in(&self, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreError> {
        let mut end = to.to_vec();
        end.push(0);
        let stored = self.store.range(from.to_vec(), end.clone()).next_back().transpose()?;
        let written = self.writes.range(from.to_vec()..end).rev().find_map(present);
        Ok(stored.into_iter().chain(written).max_by(|a, b| a.0.cmp(&b.0)))
    }

    /// The first row with `from <= key < to`. Rows of the range are never deleted in the same transaction.
    pub(crate) fn first_in(&self, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreError> {
        let stored = self.store.range(from.to_vec(), to.to_vec()).next().transpose()?;
        let written = self.writes.range(from.to_vec()..to.to_vec()).find_map(present);
        Ok(stored.into_iter().chain(written).min_by(|a, b| a.0.cmp(&b.0)))
    }

    /// Writes everything, all or nothing.
    pub(crate) fn commit(self) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in self.writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.store.write(batch)
    }
}

fn present((key, value): (&Vec<u8>, &Option<Vec<u8>>)) -> Option<Row> {
    value.as_ref().map(|value| (key.clone(), value.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_sees_itself_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "t").unwrap();
        let mut txn = Txn::new(&store);
        for key in ["a1", "a3", "b1"] {
            txn.put(key.into(), key.into());
        }
        txn.commit().unwrap();
        let mut txn = Txn::new(&store);
        txn.put("a2".into(), "new".into());
        txn.delete("a3".into());
        let keys = |rows: Vec<Row>| rows.into_iter().map(|(k, _)| k).collect::<Vec<_>>();
        assert_eq!(keys(txn.scan(b"a").unwrap()), [b"a1".to_vec(), b"a2".to_vec()]);
        assert_eq!(txn.last_in(b"a", b"a2").unwrap().unwrap().0, b"a2");
        assert_eq!(txn.last_in(b"a", b"a1").unwrap().unwrap().0, b"a1");
        assert_eq!(txn.first_in(b"a2", b"c").unwrap().unwrap().0, b"a2");
        assert!(!store.has(b"a2").unwrap());
        txn.commit().unwrap();
        assert!(store.has(b"a2").unwrap() && !store.has(b"a3").unwrap());
    }
}
