//! What comes between a claim and its beginning, and how long that may take: the store may hang, such as on a disk that is
//! mounted from elsewhere.

use signalbox_schemas::{id::CommandId, run::RunError};
use tokio::{sync::oneshot, time::Instant};

use super::{Agent, Stage};
use crate::{keepsakes::STORE_PATIENCE, run::NotStarted};

impl Agent {
    /// Notes that something here comes before the beginning of a run.
    pub(super) fn prepare(&mut self, cid: CommandId, wanted: Option<oneshot::Sender<()>>) {
        let since = Instant::now();
        if let Some(run) = self.runs.get_mut(&cid) {
            run.stage = Stage::Preparing { since, _wanted: wanted };
            self.wake_at(since + STORE_PATIENCE);
        }
    }

    /// Ends what waits for a store that hangs: it would hold its place among the parallel runs for as long. Whoever waits behind
    /// others waits for longer while they are through one after the other.
    pub(super) fn check_preparing(&mut self, now: Instant) {
        let keeping = &self.keeping;
        // A change that waits while none is being made waits for an answer of the broker.
        let waits_for_others = |cid| !keeping.is_changing && keeping.changes.contains_key(cid);
        let waiting: Vec<(CommandId, Instant)> = self
            .runs
            .iter()
            .filter(|(cid, _)| !waits_for_others(cid))
            .filter_map(|(cid, run)| match run.stage {
                Stage::Preparing { since, .. } => Some((*cid, since.max(keeping.moved_at) + STORE_PATIENCE)),
                _ => None,
            })
            .collect();
        for (cid, until) in waiting {
            if now < until {
                self.wake_at(until);
                continue;
            }
            let error = self.hangs(cid);
            tracing::error!(%cid, message = error.message, "the store hangs");
            self.counters.count("store_hangs");
            self.report_not_started(cid, &NotStarted::Fault(error));
        }
    }

    /// Says what was waited for.
    fn hangs(&self, cid: CommandId) -> RunError {
        let (store, waited) = (self.place.store.display(), STORE_PATIENCE.as_secs());
        let hangs = format!(
            "vault and known hosts did not answer for {waited} s; does the disk hang that {store}, `vault_secret_file` or \
             `known_hosts` is on?"
        );
        let is_change = self.runs.get(&cid).is_some_and(super::Run::is_change);
        let message = match (is_change, self.is_applying(cid)) {
            (true, true) => {
                format!(
                    "the change was begun, and whether it will be made is not known: {hangs} Once it answers, list what is kept there"
                )
            }
            (true, false) => {
                format!("the change waited for what is done before it, and was not made: {hangs}")
            }
            (false, _) => {
                format!(
                    "the way to the host was looked for among the credentials, and nothing was run: {hangs}"
                )
            }
        };
        RunError { code: "store_hangs".to_owned(), message }
    }
}
