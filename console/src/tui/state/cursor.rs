//! A cursor in a list whose rows move: it stays on its row, not on its place.

/// Where the cursor is and what part of the list is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor<K> {
    key: Option<K>,
    at: usize,
    top: usize,
}

impl<K> Default for Cursor<K> {
    fn default() -> Self {
        Self { key: None, at: 0, top: 0 }
    }
}

impl<K: Clone + PartialEq> Cursor<K> {
    /// A cursor on a row.
    pub fn on(key: K) -> Self {
        Self { key: Some(key), at: 0, top: 0 }
    }

    /// The row it is on; `None` while there are none.
    pub fn key(&self) -> Option<&K> {
        self.key.as_ref()
    }

    /// Its place in the list.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Place of the first row that is seen.
    pub fn top(&self) -> usize {
        self.top
    }

    /// Moves by rows; stops at both ends.
    pub fn step(&mut self, keys: &[K], rows: isize) {
        self.go(keys, self.at.saturating_add_signed(rows));
    }

    /// Moves to a place, or to the end.
    pub fn go(&mut self, keys: &[K], at: usize) {
        let at = at.min(keys.len().saturating_sub(1));
        self.put(at, keys.get(at).cloned());
    }

    /// Is on this row, at this place.
    pub fn put(&mut self, at: usize, key: Option<K>) {
        (self.at, self.key) = (at, key);
    }

    /// Finds its row again after the list changed. When the row is gone, it is on the one in its place.
    pub fn find(&mut self, keys: &[K]) {
        let found = self.key.as_ref().and_then(|key| keys.iter().position(|other| other == key));
        self.go(keys, found.unwrap_or(self.at));
    }

    /// Scrolls as little as possible so that the cursor is among `rows` rows of `len`.
    pub fn scroll(&mut self, len: usize, rows: usize) {
        let rows = rows.max(1);
        self.top =
            self.top.min(len.saturating_sub(rows)).min(self.at).max((self.at + 1).saturating_sub(rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_on_its_row() {
        let mut cursor = Cursor::on("b");
        cursor.find(&["a", "b", "c"]);
        cursor.find(&["c", "d", "a", "b"]);
        assert_eq!((cursor.key(), cursor.at()), (Some(&"b"), 3));
        cursor.find(&["c", "a"]);
        assert_eq!((cursor.key(), cursor.at()), (Some(&"a"), 1));
        cursor.find(&[]);
        assert_eq!((cursor.key(), cursor.at()), (None, 0));
    }

    #[test]
    fn it_scrolls_as_little_as_possible() {
        let keys: Vec<u32> = (0..100).collect();
        let mut cursor = Cursor::default();
        let mut tops = Vec::new();
        for step in [9, 1, -5, -6, 1000] {
            cursor.step(&keys, step);
            cursor.scroll(keys.len(), 10);
            tops.push(cursor.top());
        }
        assert_eq!(tops, [0, 1, 1, 0, 90]);
    }
}
