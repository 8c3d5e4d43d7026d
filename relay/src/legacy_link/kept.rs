//! What the journal keeps of a command: what was granted, how it ended, and who is to hear of it. Pure.

use std::path::Path;

use serde::{Deserialize, Serialize};
use signalbox_schemas::command::SshTarget;

use super::{FOLDER, http::Center, runs::REMEMBERED_MS, wire::Ended};
use crate::{
    clock::unix_ms,
    journal::{Journal, JournalError},
};

/// A command that could not be started so long after its grant and its own time limit is not started any more: the center
/// has given it up by then, and whoever wanted it may have asked for it again; ms.
const LATE_MS: u64 = 90_000;

/// Who granted a command, and is told how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// URL of the center, as the relay was started with it.
    pub(super) center: String,
    /// What it calls this relay.
    pub(super) relay_id: String,
}

/// A command that was granted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Granted {
    pub(super) id: String,
    pub(super) command: String,
    pub(super) timeout_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) folder: Option<String>,
    /// [`REMEMBERED_MS`] after the grant, Unix ms.
    pub(super) expires_at: u64,
    /// The host behind the machine where it runs. Absent: on the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<SshTarget>,
    /// Absent in what an older version wrote: then it is the center that is asked now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<Origin>,
}

/// The end of a command that waits until the center takes it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    #[serde(flatten)]
    pub(super) ended: Ended,
    /// As in [`Granted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<Origin>,
}

/// Whether a command that was granted at `granted_at` (Unix ms) comes too late at `now_ms`.
pub(super) fn is_late(granted_at: u64, timeout_ms: u64, now_ms: u64) -> bool {
    now_ms > granted_at.saturating_add(timeout_ms).saturating_add(LATE_MS)
}

impl Granted {
    /// Whether it is too late to start it at `now_ms`.
    pub(super) fn is_late(&self, now_ms: u64) -> bool {
        is_late(self.expires_at.saturating_sub(REMEMBERED_MS), self.timeout_ms, now_ms)
    }
}

/// Whether a relay of this store may have left something in the store that only this transport can finish.
pub(crate) fn may_have_open_work(store: &Path) -> bool {
    Journal::is_there(&store.join(FOLDER))
}

/// Whether commands of this transport go on in a store, or results wait that `center` is to hear of. What another center is
/// to hear of keeps nobody waiting. To be asked with the store's lock.
///
/// # Errors
/// [`JournalError::Open`].
pub(crate) fn has_open_work(store: &Path, center: &Center) -> Result<bool, JournalError> {
    if !may_have_open_work(store) {
        return Ok(false);
    }
    let now_ms = unix_ms();
    let journal = Journal::open(&store.join(FOLDER), now_ms)?;
    let ledger = journal.ledger();
    let is_own = |body: &[u8]| {
        let kept = serde_json::from_slice::<Kept>(body).ok();
        kept.is_some_and(|kept| kept.origin.is_none_or(|origin| origin.center == center.base()))
    };
    let waits = ledger.waiting().any(|fact| now_ms < ledger.expires_at(fact.cid) && is_own(&fact.body.0));
    Ok(waits || ledger.claims().next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api_key::ApiKey,
        journal::{Entry, Report},
        legacy_link::pull::cid_of,
    };
    use signalbox_schemas::Base64Url;

    #[test]
    fn a_grant_is_late_once_its_center_has_given_it_up() {
        let granted = Granted {
            id: "c".to_owned(),
            command: "true".to_owned(),
            timeout_ms: 1_000,
            folder: None,
            expires_at: 5 + REMEMBERED_MS,
            target: None,
            origin: None,
        };
        assert!(!granted.is_late(5 + 1_000 + LATE_MS));
        assert!(granted.is_late(5 + 1_000 + LATE_MS + 1));
        assert!(!is_late(u64::MAX, u64::MAX, u64::MAX));
    }

    #[test]
    fn only_what_this_center_is_to_hear_of_is_open() {
        let store = tempfile::tempdir().unwrap();
        let center = Center::new("http://127.0.0.1:1", ApiKey::new("k").unwrap()).unwrap();
        let open = || has_open_work(store.path(), &center).unwrap();
        assert!(!open() && !store.path().join(FOLDER).exists(), "asking made something");
        std::fs::create_dir(store.path().join(FOLDER)).unwrap();
        let add = |origin: Option<&str>, expires_at: u64| {
            let origin = origin.map(|center| Origin { center: center.to_owned(), relay_id: "r".to_owned() });
            let kept = Kept { ended: Ended::without_a_run("c", "no"), origin };
            let body = Base64Url(serde_json::to_vec(&kept).unwrap());
            let cid = cid_of("r", "c");
            let fact = Entry::Fact { cid, report: Report::Exit, expires_at, body };
            Journal::open(&store.path().join(FOLDER), 0).unwrap().append(fact).unwrap();
        };
        let later = unix_ms() + 60_000;
        add(Some("http://127.0.0.1:2"), later);
        assert!(!open(), "another center's result keeps this relay waiting");
        for origin in [None, Some("http://127.0.0.1:1")] {
            add(origin, later);
            assert!(open());
        }
        add(None, 1);
        assert!(!open(), "what is too old keeps this relay waiting");
    }
}
