//! Waiting until nothing is on its way.

use std::time::Duration;

use anyhow::{Result, ensure};
use signalbox_link::Link;
use signalbox_schemas::{signed::PublicKey, stream};
use signalbox_testkit::operator::now_ms;
use tokio::time::{Instant, sleep};

use super::{LONGEST, streams};
use crate::check::{Ledger, bound, is_audited};

/// How long the audit chain may lag behind, once nothing is on its way any more: a bridge takes up the lease, reads where
/// the chain ends, and enters what is missing.
const AUDIT_LAG: Duration = Duration::from_secs(30);
/// Between two looks.
const STEP: Duration = Duration::from_secs(1);

pub(super) async fn wait(link: &Link, fleet_key: &PublicKey, healed_at: u64) -> Result<()> {
    let until = Instant::now() + LONGEST;
    let mut settled_at = None;
    loop {
        let mut stored = Vec::new();
        for name in [stream::DOC, stream::STATE, stream::CMD, stream::RUN, stream::DONE] {
            stored.extend(streams::read(link, name).await?.into_iter().map(streams::stored));
        }
        let ledger = Ledger::read(fleet_key, &stored);
        ensure!(!ledger.is_blind(), "no machine is known: the streams do not say who may speak");
        let now = now_ms()?;
        let is_open = |at: u64| at > now;
        let mut bounds = ledger
            .accepted()
            .filter_map(|(id, command, machine)| bound(&ledger, command, (id, machine), healed_at));
        // A clock that stood a day ahead gave some of them a day more: the checker says how they stand.
        if Instant::now() >= until {
            return Ok(());
        }
        if !bounds.any(is_open) {
            let settled_at = *settled_at.get_or_insert_with(Instant::now);
            let audit = streams::read(link, stream::AUDIT).await?.into_iter().map(streams::stored);
            if is_audited(&ledger, &stored, &audit.collect::<Vec<_>>()) || settled_at.elapsed() > AUDIT_LAG {
                return Ok(());
            }
        }
        sleep(STEP).await;
    }
}
