//! The audit chain: who did what, in an order that nobody can change unseen.
//!
//! An entry stands at `audit.<ws>.<bridge>.<actor>.<action>`, signed by the bridge that wrote it. It names the hash of the
//! entry before it and the message that it stands behind, and a bridge stores it only there: so there is one chain for a
//! workspace, however many bridges there are, and an entry that is stored once more somewhere else is none. What was stored
//! in another stream is entered once, by the bridge that holds the lease, from that stream: no process can forget it by
//! dying. What was refused is stored nowhere else, and is entered by the bridge that refused it.

use serde::{Deserialize, Serialize};

use crate::{
    error::ErrorCode,
    id::{BridgeId, Sha256, Workspace},
    signed::Message,
    subject::Subject,
};

/// Longest text of an actor or of what an entry is about, bytes.
pub const TEXT_BYTES: usize = 256;
/// Largest entry.
pub const ENTRY_BYTES: usize = 8 * 1024;
/// Longest token that an actor or an action takes in a subject, bytes.
const TOKEN_BYTES: usize = 64;

/// Actions that are no operations of the [`api`](crate::api): where those stand, an action is the name of one.
pub mod action {
    /// The authors document was published.
    pub const AUTHORS_PUBLISH: &str = "authors.publish";
    /// A command was accepted.
    pub const COMMANDS_SUBMIT: &str = crate::api::op::COMMANDS_SUBMIT;
    /// A command was asked to be cancelled.
    pub const COMMANDS_CANCEL: &str = crate::api::op::COMMANDS_CANCEL;
    /// A record was written; the table goes before it.
    pub const WRITE: &str = "write";
}

/// A message up to which something of a stream has been entered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// When the stream was made, Unix ms.
    pub created: u64,
    /// The message's sequence; 0 = none.
    pub sequence: u64,
    /// When the broker stored it, Unix ms: another message there shows that the stream has lost its end since.
    pub stored_at: u64,
}

impl Reached {
    /// Whether nothing was.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is there, or further on in the same stream.
    pub fn covers(&self, other: &Self) -> bool {
        self.created == other.created && self.sequence >= other.sequence
    }
}

/// How far the streams have been entered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    /// The authors document.
    pub doc: Reached,
    /// Records.
    pub kv: Reached,
    /// Commands.
    pub specs: Reached,
    /// Wishes to cancel them.
    pub cancels: Reached,
    /// Wishes about their rollouts.
    #[serde(default, skip_serializing_if = "Reached::is_none")]
    pub rollouts: Reached,
}

/// What was done, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is stored.
    Stored {
        /// In which stream.
        stream: String,
        /// Its sequence there.
        sequence: u64,
        /// When the broker stored it, Unix ms.
        stored_at: u64,
        /// SHA-256 of the message's body.
        sha256: Sha256,
    },
    /// It was refused.
    Refused {
        /// Why.
        code: ErrorCode,
        /// How often, since the bridge last wrote such an entry.
        count: u64,
    },
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Workspace.
    pub ws: Workspace,
    /// Its number: 1, then one more than the entry before.
    pub n: u64,
    /// SHA-256 of the body of the entry before; of nothing for the first.
    pub before: Sha256,
    /// Sequence of the workspace's message before, whatever that is; 0 = there was none. It counts only right behind that.
    pub after: u64,
    /// Who wrote it.
    pub bridge: BridgeId,
    /// When, Unix ms by that bridge's clock.
    pub written_at: u64,
    /// Who did it: `operator:<id>`, `token:<id>`, `bridge:<id>`, `relay:<assignment>`, `fleet`; `nobody` who is not known.
    pub actor: String,
    /// What was done: the name of an operation, or one of [`action`].
    pub action: String,
    /// What it was done to: the id of a command or of a record; empty where there is none.
    pub about: String,
    /// What became of it.
    pub outcome: Outcome,
    /// How far the streams have been entered, this entry included.
    pub entered: Entered,
}

impl Message for AuditEntry {
    const TYPE: &'static str = "audit";
    const MAX_BYTES: usize = ENTRY_BYTES;
}

impl AuditEntry {
    /// Where it is stored.
    pub fn subject(&self) -> Subject {
        let (actor, action) = (token(&self.actor), token(&self.action));
        Subject::Audit(self.ws.clone(), self.bridge.clone(), actor, action)
    }
}

/// A text as one token of a subject.
fn token(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let token: String = text.chars().take(TOKEN_BYTES).map(plain).collect();
    if token.is_empty() { "-".to_owned() } else { token }
}

/// Where a chain has been followed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Number of its last entry.
    pub n: u64,
    /// SHA-256 of that entry's body.
    pub sha256: Sha256,
    /// Sequence of the last message of the workspace: of that entry, or of something behind it that is none.
    pub sequence: u64,
}

/// Why a message is not the next entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It was written to stand somewhere else.
    #[error("entry {n} was stored behind message {after}, and not behind {last}")]
    Place {
        /// Its number.
        n: u64,
        /// Where it belongs.
        after: u64,
        /// What it stands behind.
        last: u64,
    },
    /// Entries are missing, or a bridge has written one twice.
    #[error("entry {found} follows entry {last}")]
    Number {
        /// The one before.
        last: u64,
        /// The one that follows it.
        found: u64,
    },
    /// The entry before is not the one that it was.
    #[error("entry {0} follows an entry other than the one that stands before it")]
    Before(u64),
}

impl Default for Link {
    /// Before the first entry.
    fn default() -> Self {
        Self { n: 0, sha256: Sha256::of(b""), sequence: 0 }
    }
}

impl Link {
    /// The place behind an entry that stands at `sequence`.
    pub fn of(sequence: u64, entry: &AuditEntry, body: &[u8]) -> Self {
        Self { n: entry.n, sha256: Sha256::of(body), sequence }
    }

    /// Goes on to the next message if it is the entry that follows; `body` is all of it, signature included.
    ///
    /// # Errors
    /// [`Broken`], when it is not.
    pub fn follow(&mut self, sequence: u64, entry: &AuditEntry, body: &[u8]) -> Result<(), Broken> {
        if entry.after != self.sequence {
            return Err(Broken::Place { n: entry.n, after: entry.after, last: self.sequence });
        }
        if Some(entry.n) != self.n.checked_add(1) {
            return Err(Broken::Number { last: self.n, found: entry.n });
        }
        if entry.before != self.sha256 {
            return Err(Broken::Before(entry.n));
        }
        *self = Self::of(sequence, entry, body);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn entry(n: u64, before: &[u8], after: u64) -> AuditEntry {
        AuditEntry {
            ws: Workspace::main(),
            n,
            before: Sha256::of(before),
            after,
            bridge: BridgeId::new("b1").unwrap(),
            written_at: 1,
            actor: "operator:local".to_owned(),
            action: action::COMMANDS_SUBMIT.to_owned(),
            about: String::new(),
            outcome: Outcome::Refused { code: ErrorCode::Forbidden, count: 1 },
            entered: Entered::default(),
        }
    }

    #[test]
    fn what_follows_is_the_next_one_and_names_the_one_before() {
        let mut at = Link::default();
        assert_eq!(at.follow(4, &entry(1, b"", 0), b"first"), Ok(()));
        for (wrong, why) in [
            (entry(1, b"first", 4), Broken::Number { last: 1, found: 1 }),
            (entry(3, b"first", 4), Broken::Number { last: 1, found: 3 }),
            (entry(2, b"other", 4), Broken::Before(2)),
            (entry(2, b"first", 3), Broken::Place { n: 2, after: 3, last: 4 }),
        ] {
            assert_eq!(at.clone().follow(5, &wrong, b"second"), Err(why));
        }
        // What is no entry may stand between, if the next one knows.
        at.sequence = 5;
        assert_eq!(at.follow(6, &entry(2, b"first", 5), b"second"), Ok(()));
        assert_eq!(at, Link { n: 2, sha256: Sha256::of(b"second"), sequence: 6 });
        let mut last = Link { n: u64::MAX, ..at };
        assert!(last.follow(7, &entry(0, b"second", 6), b"none").is_err());
    }

    #[test]
    fn only_the_same_stream_is_compared() {
        let at = |created, sequence| Reached { created, sequence, stored_at: 1 };
        assert!(at(1, 5).covers(&at(1, 5)) && at(1, 6).covers(&at(1, 5)));
        assert!(!at(1, 4).covers(&at(1, 5)) && !at(2, 6).covers(&at(1, 5)));
    }

    #[rstest]
    #[case("operator:local", "operator-local")]
    #[case("commands.submit", "commands-submit")]
    #[case("größe\n> *", "gr--e----")]
    #[case("", "-")]
    fn every_actor_has_a_subject(#[case] actor: &str, #[case] expected: &str) {
        let subject = AuditEntry { actor: actor.to_owned(), ..entry(1, b"", 0) }.subject();
        assert_eq!(subject.to_string(), format!("audit.main.b1.{expected}.commands-submit"));
        assert_eq!(Subject::parse(&subject.to_string()), Ok(subject));
        let long = AuditEntry { actor: "x".repeat(TEXT_BYTES), ..entry(1, b"", 0) }.subject();
        assert_eq!(Subject::parse(&long.to_string()), Ok(long));
    }
}
