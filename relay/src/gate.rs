//! What a mailbox must pass before it is believed. Pure.
//!
//! Signed by a bridge of the authors document, about this machine, and newer than any seen before: a broker
//! that replays, or a bridge that was deposed, changes nothing.

use signalbox_schemas::{
    id::{CommandId, MachineToken, Sha256, Workspace},
    limit::{DAY_MS, HOUR_MS},
    mailbox::Mailbox,
    signed::{Signed, SignedError},
};

use crate::authors::Held;

/// A generation is the time it was composed at, Unix ms, or one more than the one before; it is believed only as far
/// ahead of this machine's clock as clocks are apart that still work together. A clock that stands before the authors
/// document was issued (a board without a battery wakes up in 1970) is no measure: then that document's end is.
const MAX_AHEAD_MS: u64 = DAY_MS;

/// The newest mailbox that was believed, remembered over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) generation: u64,
    /// Of the payload: tells the same mailbox read again from another one of its generation.
    pub(crate) sha256: Sha256,
}

/// Why a mailbox is not acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It is not to be believed, whatever comes.
    #[error("it is not to be believed")]
    Signed(#[source] SignedError),
    /// Its signer is no bridge that is known: worth another look with a newer authors document.
    #[error("its signer is no known bridge")]
    UnknownSigner,
    /// It names another authors document than the one held, or none is held: nothing runs until it is there.
    #[error("the authors document held is not the one it names")]
    AuthorsBehind,
    /// The authors document held has expired, and nothing else is wrong. Nothing begins, but what runs may be ended:
    /// a fleet whose owner is late must still be able to stop what it started.
    #[error("the authors document has expired")]
    AuthorsExpired {
        /// What is to be cancelled.
        cancels: Vec<CommandId>,
    },
    /// A newer one was seen before.
    #[error("a newer one was seen before")]
    Older,
    /// Another one of this generation was seen before.
    #[error("another one of its generation was seen before")]
    Forked,
    /// Its generation is far ahead of the time: believed, it would make all that follow older, for ever. A clock that
    /// was behind is set some time, and then it is worth another look.
    #[error("its generation is {} h ahead of this machine's clock", ahead_ms / HOUR_MS)]
    Ahead {
        /// Ms.
        ahead_ms: u64,
    },
}

impl Refusal {
    /// A name for counters.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Signed(SignedError::TooLarge { .. }) => "mailbox_too_large",
            Self::Signed(SignedError::Envelope) => "mailbox_envelope",
            Self::Signed(SignedError::Signature) => "mailbox_signature",
            Self::Signed(SignedError::Payload(_)) => "mailbox_payload",
            Self::Signed(SignedError::Critical(_)) => "mailbox_critical",
            Self::Signed(SignedError::Misplaced(_)) => "mailbox_misplaced",
            Self::Signed(SignedError::Untrusted(_)) | Self::UnknownSigner => "mailbox_untrusted",
            Self::AuthorsBehind => "mailbox_waits_for_authors",
            Self::AuthorsExpired { .. } => "mailbox_authors_expired",
            Self::Older => "mailbox_older",
            Self::Forked => "mailbox_forked",
            Self::Ahead { .. } => "mailbox_ahead",
        }
    }
}

/// Whose mailboxes are believed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gate<'a> {
    pub(crate) ws: &'a Workspace,
    pub(crate) mid: &'a MachineToken,
    pub(crate) authors: Option<&'a Held>,
    pub(crate) seen: Option<Seen>,
    pub(crate) now_ms: u64,
}

impl Gate<'_> {
    /// Lets a mailbox pass, or says why not. One that was seen already passes again: acting on it twice is
    /// acting on it once.
    pub(crate) fn pass(&self, bytes: &[u8]) -> Result<(Mailbox, Seen), Refusal> {
        let signed = Signed::<Mailbox>::from_json(bytes).map_err(Refusal::Signed)?;
        let held = self.authors.ok_or(Refusal::AuthorsBehind)?;
        let mailbox = match signed.open(|key| held.document.is_bridge(key)) {
            Err(SignedError::Untrusted(_)) => return Err(Refusal::UnknownSigner),
            opened => opened.map_err(Refusal::Signed)?,
        };
        if mailbox.ws != *self.ws || mailbox.mid != *self.mid {
            return Err(Refusal::Signed(SignedError::Misplaced("machine")));
        }
        let seen = Seen { generation: mailbox.generation, sha256: Sha256::of(signed.payload()) };
        match self.seen {
            Some(newest) if seen.generation < newest.generation => return Err(Refusal::Older),
            Some(newest) if seen.generation == newest.generation && seen != newest => {
                return Err(Refusal::Forked);
            }
            _ => {}
        }
        let document = &held.document;
        let is_clock_lost = self.now_ms.saturating_add(MAX_AHEAD_MS) < document.issued_at;
        let time = if is_clock_lost { document.not_after } else { self.now_ms };
        let ahead_ms = seen.generation.saturating_sub(time);
        if ahead_ms > MAX_AHEAD_MS {
            return Err(Refusal::Ahead { ahead_ms });
        }
        let (mine, named) = (held.document.version, mailbox.authors);
        if named.version > mine || named.version == mine && named.sha256 != held.sha256 {
            return Err(Refusal::AuthorsBehind);
        }
        if !held.document.is_valid_at(self.now_ms) {
            return Err(Refusal::AuthorsExpired { cancels: mailbox.cancels });
        }
        Ok((mailbox, seen))
    }
}

#[cfg(test)]
mod tests {
    use signalbox_schemas::authors::Authors;

    use super::*;
    use crate::policy::tests::{authors, key};
    use rstest::rstest;
    use signalbox_schemas::mailbox::{AuthorsRef, Basis};

    fn held() -> Held {
        Held { document: authors(), sha256: Sha256::of(b"authors") }
    }

    fn mailbox(generation: u64) -> Mailbox {
        Mailbox {
            ws: Workspace::main(),
            mid: MachineToken::new("web-1").unwrap(),
            epoch: 1,
            generation,
            basis: Basis::default(),
            composed_at: 0,
            authors: AuthorsRef { version: 1, sha256: Sha256::of(b"authors") },
            jwt: None,
            config: None,
            offers: vec![],
            cancels: vec![],
            crit: vec![],
        }
    }

    fn pass(
        bytes: &[u8],
        authors: Option<&Held>,
        seen: Option<Seen>,
        now_ms: u64,
    ) -> Result<Seen, &'static str> {
        let (ws, mid) = (Workspace::main(), MachineToken::new("web-1").unwrap());
        let gate = Gate { ws: &ws, mid: &mid, authors, seen, now_ms };
        gate.pass(bytes).map(|(_, seen)| seen).map_err(|refusal| refusal.reason())
    }

    fn signed(mailbox: &Mailbox, signer: u8) -> Vec<u8> {
        Signed::sign(mailbox, &key(signer)).unwrap().to_json()
    }

    #[test]
    fn generations_only_grow() {
        let held = held();
        let five = signed(&mailbox(5), 3);
        let seen = pass(&five, Some(&held), None, 0).unwrap();
        assert_eq!(pass(&five, Some(&held), Some(seen), 0), Ok(seen), "the same one again");
        assert_eq!(pass(&signed(&mailbox(4), 3), Some(&held), Some(seen), 0), Err("mailbox_older"));
        let fork = Mailbox { epoch: 2, ..mailbox(5) };
        assert_eq!(pass(&signed(&fork, 3), Some(&held), Some(seen), 0), Err("mailbox_forked"));
        assert_eq!(pass(&signed(&mailbox(6), 3), Some(&held), Some(seen), 0).unwrap().generation, 6);
    }

    #[test]
    fn no_generation_shuts_out_all_that_follow() {
        let held = held();
        for generation in [u64::MAX, 5 + DAY_MS + 1] {
            assert_eq!(pass(&signed(&mailbox(generation), 3), Some(&held), None, 5), Err("mailbox_ahead"));
        }
        assert!(pass(&signed(&mailbox(5 + DAY_MS), 3), Some(&held), None, 5).is_ok(), "clocks differ");
    }

    #[test]
    fn a_machine_that_has_lost_its_time_still_hears() {
        let (issued_at, not_after) = (50 * 365 * DAY_MS, 50 * 365 * DAY_MS + 90 * DAY_MS);
        let document = Authors { issued_at, not_after, ..authors() };
        let held = Held { document, sha256: Sha256::of(b"authors") };
        let heard = |generation, now| pass(&signed(&mailbox(generation), 3), Some(&held), None, now);
        assert!(heard(issued_at + DAY_MS, 5).is_ok(), "its clock stands in 1970");
        assert_eq!(heard(not_after + DAY_MS + 1, 5), Err("mailbox_ahead"), "and yet not everything");
        assert_eq!(
            heard(issued_at + 2 * DAY_MS, issued_at),
            Err("mailbox_ahead"),
            "a clock that is right counts"
        );
    }

    #[rstest]
    #[case::machine(|m: &mut Mailbox| m.mid = MachineToken::new("web-2").unwrap(), 3, "mailbox_misplaced")]
    #[case::workspace(|m: &mut Mailbox| m.ws = Workspace::new("other").unwrap(), 3, "mailbox_misplaced")]
    #[case::critical(|m: &mut Mailbox| m.crit = vec!["future".into()], 3, "mailbox_critical")]
    #[case::operator(|_: &mut Mailbox| {}, 1, "mailbox_untrusted")]
    #[case::newer_authors(|m: &mut Mailbox| m.authors.version = 2, 3, "mailbox_waits_for_authors")]
    #[case::other_authors(|m: &mut Mailbox| m.authors.sha256 = Sha256::of(b"x"), 3, "mailbox_waits_for_authors")]
    fn refuses(#[case] spoil: fn(&mut Mailbox), #[case] signer: u8, #[case] reason: &str) {
        let mut bad = mailbox(1);
        spoil(&mut bad);
        assert_eq!(pass(&signed(&bad, signer), Some(&held()), None, 0), Err(reason));
    }

    #[test]
    fn nothing_passes_without_a_valid_authors_document() {
        let good = signed(&mailbox(1), 3);
        assert_eq!(pass(&good, None, None, 0), Err("mailbox_waits_for_authors"));
        assert_eq!(pass(&good, Some(&held()), None, 1_000_000), Err("mailbox_authors_expired"));
        let older = Mailbox { authors: AuthorsRef { version: 0, sha256: Sha256::of(b"old") }, ..mailbox(1) };
        assert!(pass(&signed(&older, 3), Some(&held()), None, 0).is_ok(), "a newer one than named is fine");
    }

    #[test]
    fn rubbish_and_forgeries_are_named() {
        let held = held();
        let mut json: serde_json::Value = serde_json::from_slice(&signed(&mailbox(1), 3)).unwrap();
        json["sig"] = "AAAA".into();
        assert_eq!(pass(json.to_string().as_bytes(), Some(&held), None, 0), Err("mailbox_signature"));
        assert_eq!(pass(b"{", Some(&held), None, 0), Err("mailbox_envelope"));
        assert_eq!(pass(&vec![b' '; 1 << 20], Some(&held), None, 0), Err("mailbox_too_large"));
    }
}
