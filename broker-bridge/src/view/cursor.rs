//! How far streams were read, and its text.

use std::{collections::BTreeMap, fmt, str::FromStr};

use signalbox_schemas::mailbox::Position;

/// How far each stream was read, by stream name. Its text is opaque to clients: it is what `Signalbox-Cursor`
/// holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursors(BTreeMap<String, Position>);

/// The text is no cursor of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct CursorError;

/// Longest text of a cursor, bytes: eight streams of three numbers each fit three times.
const CURSOR_BYTES: usize = 1024;

impl Cursors {
    /// The cursor that says that one stream was read up to `position`.
    pub fn of(stream: &str, position: Position) -> Self {
        Self([(stream.to_owned(), position)].into())
    }

    /// Where a stream was read to; the default (nothing) for a stream that is not named.
    pub fn get(&self, stream: &str) -> Position {
        self.0.get(stream).copied().unwrap_or_default()
    }

    /// Sets where a stream was read to.
    pub fn set(&mut self, stream: &str, position: Position) {
        self.0.insert(stream.to_owned(), position);
    }

    /// Moves on to what `other` names, where that is further on or of a stream that was made later.
    pub(crate) fn advance(&mut self, other: &Self) {
        for (stream, at) in &other.0 {
            let known = self.0.entry(stream.clone()).or_default();
            if (at.created, at.sequence) > (known.created, known.sequence) {
                *known = *at;
            }
        }
    }

    /// Whether everything that `wanted` names was read. Streams that are not known here, and positions in a
    /// stream that was made anew since, count as read: nobody can wait for them.
    pub fn cover(&self, wanted: &Self) -> bool {
        wanted.0.iter().all(|(stream, want)| match self.0.get(stream) {
            Some(have) => have.created != want.created || have.sequence >= want.sequence,
            None => true,
        })
    }
}

impl fmt::Display for Cursors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (stream, at)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{stream}:{}:{}", at.created, at.sequence)?;
        }
        Ok(())
    }
}

impl FromStr for Cursors {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() > CURSOR_BYTES {
            return Err(CursorError);
        }
        let mut cursors = Self::default();
        for entry in text.split(',').filter(|entry| !entry.is_empty()) {
            let mut parts = entry.splitn(3, ':');
            let (Some(stream), Some(created), Some(sequence)) = (parts.next(), parts.next(), parts.next())
            else {
                return Err(CursorError);
            };
            let position = Position {
                created: created.parse().map_err(|_| CursorError)?,
                sequence: sequence.parse().map_err(|_| CursorError)?,
            };
            cursors.set(stream, position);
        }
        Ok(cursors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors(created: u64, sequence: u64) -> Cursors {
        let mut cursors = Cursors::of("CMD", Position { created, sequence });
        cursors.set("RUN", Position { created: 5, sequence: 9 });
        cursors
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        assert_eq!(cursors(1, 2).to_string(), "CMD:1:2,RUN:5:9");
        assert_eq!("CMD:1:2,RUN:5:9".parse(), Ok(cursors(1, 2)));
        assert_eq!("".parse(), Ok(Cursors::default()));
        for bad in ["CMD", "CMD:1", "CMD:x:1", "CMD:1:-1", "CMD:1:1:1"] {
            assert_eq!(bad.parse::<Cursors>(), Err(CursorError), "{bad}");
        }
        assert_eq!("A:1:1,".repeat(1000).parse::<Cursors>(), Err(CursorError));
    }

    #[test]
    fn a_cursor_moves_forward_only() {
        let mut at = cursors(1, 7);
        at.advance(&Cursors::of("RUN", Position { created: 5, sequence: 8 }));
        at.advance(&Cursors::of("CMD", Position { created: 2, sequence: 1 }));
        at.advance(&Cursors::of("CMD", Position { created: 1, sequence: 9 }));
        at.advance(&Cursors::of("KV_state", Position { created: 3, sequence: 4 }));
        assert_eq!(at.to_string(), "CMD:2:1,KV_state:3:4,RUN:5:9");
    }

    #[test]
    fn only_a_known_stream_of_the_same_creation_is_waited_for() {
        let read = cursors(1, 7);
        assert!(read.cover(&Cursors::of("CMD", Position { created: 1, sequence: 7 })));
        assert!(!read.cover(&Cursors::of("CMD", Position { created: 1, sequence: 8 })));
        assert!(read.cover(&Cursors::of("CMD", Position { created: 2, sequence: 8 })));
        assert!(read.cover(&Cursors::of("NEW", Position { created: 1, sequence: 8 })));
    }
}
