//! History and cleaning up, by the holder of the lease.
//!
//! What has been settled for an hour is written to DONE, runs first, then their command; an hour after that and
//! after its `expires_at`, and once no mailbox that was acknowledged still offers it, its subjects leave RUN and
//! CMD. A run of which more is learned after that gets a second record. Also purged: facts about runs that are
//! not known, and parts whose spec never came.

use std::time::Duration;

use signalbox_link::Store;
use signalbox_schemas::{
    error::report,
    id::{CommandId, MachineToken},
    record::{DoneCommand, DoneRun, StoredFact},
    signed::Message,
    stream::{CMD, DONE, RUN},
    subject::{CommandPiece, FactKind, Subject, all_facts},
};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::{
    broker_link::BrokerError,
    core::{Context, CoreError, now_ms},
    ingest::FOLLOWED,
    projection::{CommandRow, Counts, RunRow, parse_fact_row},
    store::{Row, StoreError, Txn, key, retention},
    view::View,
};

/// How often there is looked for something to do; no answer depends on it.
const ROUND: Duration = Duration::from_secs(1);
/// How often rows are looked for that are too old: 100 commands each time are 144,000 a day.
const TRIM: Duration = Duration::from_mins(1);
/// Records and purges of one round, of each kind.
const PER_ROUND: usize = 1_000;
/// How long to wait for one's own records to be read before the next round.
const READ_BACK: Duration = Duration::from_secs(10);
/// Parts whose spec did not come for this long belong to nothing, ms.
const ORPHAN_MS: u64 = 600_000;

/// A round could not be finished; the next one goes on.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    #[error("the broker did not take it")]
    Broker(#[from] BrokerError),
    #[error("a subject cannot be purged")]
    Purge(#[from] signalbox_link::StreamError),
}

/// Works in rounds whenever this bridge holds the lease, until told to stop.
pub(crate) async fn run(context: Context, after: Duration) -> Result<(), CoreError> {
    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    let stop = context.stop.clone();
    let keeper = Keeper { context, after_ms };
    let work = async {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_stuck = false;
        let mut trims = interval(TRIM);
        trims.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = rounds.tick() => {}
                _ = trims.tick() => {
                    keeper.trim().await?;
                    continue;
                }
            }
            let is_mine = keeper.context.epoch().is_some() && *keeper.context.shared.caught_up.borrow();
            let ended = if is_mine { keeper.round().await } else { keeper.forget().await };
            match ended {
                Ok(()) => is_stuck = false,
                Err(RoundError::Store(error)) => return Err(error.into()),
                Err(error) if is_stuck => {
                    debug!(error = report(&error), "history still waits for the broker");
                }
                Err(error) => {
                    // Once, until a round ends well again.
                    warn!(error = report(&error), "history waits for the broker");
                    is_stuck = true;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = work => ended,
    }
}

struct Keeper {
    context: Context,
    after_ms: u64,
}

impl Keeper {
    async fn round(&self) -> Result<(), RoundError> {
        self.purge_unknown().await?;
        self.purge_orphans().await?;
        let due = now_ms().saturating_sub(self.after_ms);
        let mut last = None;
        for (cid, mid) in self.settled_runs(due).await? {
            last = self.write_run(cid, &mid).await?.or(last);
        }
        self.read_back(last).await?;
        let mut last = None;
        for cid in self.settled_commands(due).await? {
            last = self.write_command(cid).await?.or(last);
        }
        self.read_back(last).await?;
        self.purge_history(due).await
    }

    /// Reads the first rows of a kind from a thread that may block.
    async fn rows(&self, kind: u8, until: Option<u64>) -> Result<Vec<Row>, StoreError> {
        let store = self.context.shared.store.clone();
        let job = tokio::task::spawn_blocking(move || {
            let mut from = vec![kind];
            let end = match until {
                Some(at) => [&[kind][..], &at.to_be_bytes()[..]].concat(),
                None => key::after(&from),
            };
            from.truncate(1);
            store.range(from, end).take(PER_ROUND).collect()
        });
        job.await.map_err(|_| StoreError::Damaged("index"))?
    }

    async fn settled_runs(&self, due: u64) -> Result<Vec<(CommandId, MachineToken)>, StoreError> {
        let rows = self.rows(key::SETTLED_RUN, Some(due)).await?;
        let read = |(found, _): &Row| {
            let mut reader = key::Reader(found.get(9..)?);
            reader.cid().zip(reader.mid())
        };
        rows.iter().map(|row| read(row).ok_or(StoreError::Damaged("settled run"))).collect()
    }

    async fn settled_commands(&self, due: u64) -> Result<Vec<CommandId>, StoreError> {
        let rows = self.rows(key::SETTLED_COMMAND, Some(due)).await?;
        let read = |(found, _): &Row| key::Reader(found.get(9..)?).cid();
        rows.iter().map(|row| read(row).ok_or(StoreError::Damaged("settled command"))).collect()
    }

    /// Waits until this bridge has read its own records, so that the next round does not write them again.
    async fn read_back(&self, last: Option<u64>) -> Result<(), RoundError> {
        if let Some(sequence) = last {
            let cursor = self.context.broker.cursor(DONE, sequence).await?;
            View::new(self.context.shared.clone()).reached(&cursor, READ_BACK).await;
        }
        Ok(())
    }

    /// Writes a record. `None`: it never can be, and must not keep others from being written; the live streams keep
    /// what they hold of it for their own time.
    async fn store<T: Message>(
        &self,
        subject: &Subject,
        record: &T,
        summary: &str,
    ) -> Result<Option<u64>, RoundError> {
        let subject = subject.to_string();
        let stored = match self.context.broker.signed(record) {
            Ok(body) => {
                let headers = self.context.broker.headers::<T>(summary);
                let message = Store::new(subject.clone(), body).with_headers(headers);
                let stored = self.context.broker.link().store(message).await;
                stored.map_err(|source| BrokerError::Store { what: subject, source })
            }
            Err(error) => Err(error),
        };
        match stored {
            Ok(stored) => Ok(Some(stored.sequence)),
            Err(error) if is_final(&error) => {
                let count = self.context.shared.counters.add("done.unwritable");
                if count.is_power_of_two() {
                    warn!(
                        summary,
                        count,
                        error = report(&error),
                        "history cannot be written, it is left out"
                    );
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn write_run(&self, cid: CommandId, mid: &MachineToken) -> Result<Option<u64>, RoundError> {
        let store = &self.context.shared.store;
        let row: RunRow = store.json(&key::run(cid, mid), "run")?.unwrap_or_default();
        if row.done == Some(row.state()) {
            return Ok(None);
        }
        let mut facts = Vec::new();
        for kind in FactKind::ALL {
            let fact = store.get(&key::fact(cid, mid, kind))?;
            facts.extend(fact.and_then(|fact| parse_fact_row(kind, &fact)).map(|fact| StoredFact {
                kind,
                sequence: fact.sequence,
                stored_at: fact.stored_at,
                body: signalbox_schemas::Base64Url(fact.body.to_vec()),
            }));
        }
        let ws = self.context.broker.ws().clone();
        let subject = Subject::DoneRuns(ws.clone(), mid.clone());
        let state = row.state();
        let record = DoneRun { ws, mid: mid.clone(), cid, state, facts };
        let written = self.store(&subject, &record, &format!("{cid} {state}")).await?;
        if let (None, Some(at)) = (written, row.settled_at) {
            self.delete(vec![key::settled_run(at, cid, mid)]).await?;
        }
        Ok(written)
    }

    async fn write_command(&self, cid: CommandId) -> Result<Option<u64>, RoundError> {
        let store = &self.context.shared.store;
        let row: Option<CommandRow> = store.json(&key::command(cid), "command")?;
        let Some(row) = row.filter(|row| !row.done) else { return Ok(None) };
        for mid in &row.machines {
            let run: RunRow = store.json(&key::run(cid, mid), "run")?.unwrap_or_default();
            if run.done != Some(run.state()) {
                return Ok(None);
            }
        }
        let counts: Counts = store.json(&key::counts(cid), "counts")?.unwrap_or_default();
        let ws = self.context.broker.ws().clone();
        let subject = Subject::DoneCommands(ws.clone());
        let record = DoneCommand {
            ws,
            cid,
            spec: signalbox_schemas::Base64Url(store.get(&key::spec(cid))?.unwrap_or_default()),
            sequence: row.sequence,
            accepted_at: row.accepted_at,
            author: row.author,
            machines: row.machines,
            counts,
        };
        let written = self.store(&subject, &record, &cid.to_string()).await?;
        let at = store.get(&key::settled_at(cid))?.and_then(|at| key::Reader(&at).u64());
        if let (None, Some(at)) = (written, at) {
            self.delete(vec![key::settled_command(at, cid)]).await?;
        }
        Ok(written)
    }

    /// Takes out of RUN and CMD what DONE holds.
    async fn purge_history(&self, due: u64) -> Result<(), RoundError> {
        for (found, _) in self.rows(key::PURGE, Some(due)).await? {
            let cid = found.get(9..).and_then(|rest| key::Reader(rest).cid());
            let cid = cid.ok_or(StoreError::Damaged("purge"))?;
            let row: Option<CommandRow> = self.context.shared.store.json(&key::command(cid), "command")?;
            let machines = row.map(|row| row.machines).unwrap_or_default();
            if !self.may_purge(cid, &machines)? {
                continue;
            }
            let ws = self.context.broker.ws();
            let link = self.context.broker.link();
            let mut purged = link.purge_subject(RUN, &format!("run.{ws}.*.{cid}.*")).await?;
            purged += link.purge_subject(CMD, &format!("cmd.{ws}.{cid}.*")).await?;
            debug!(command = %cid, purged, "history left the live streams");
            self.delete(vec![found]).await?;
        }
        Ok(())
    }

    /// Whether every run stands in DONE as it is and nobody is offered it any more.
    fn may_purge(&self, cid: CommandId, machines: &[MachineToken]) -> Result<bool, StoreError> {
        for mid in machines {
            let row: RunRow = self.context.shared.store.json(&key::run(cid, mid), "run")?.unwrap_or_default();
            if row.done != Some(row.state()) || !row.state().is_settled() {
                return Ok(false);
            }
        }
        let memory = self.context.shared.memory();
        let offered = |mid: &MachineToken| {
            memory
                .mailboxes
                .get(mid)
                .is_some_and(|row| row.offers.contains(&cid) || row.cancels.contains(&cid))
        };
        Ok(!machines.iter().any(offered))
    }

    /// Removes facts about runs that are not known from RUN.
    async fn purge_unknown(&self) -> Result<(), RoundError> {
        if self.context.shared.memory().unknown_facts == 0 {
            return Ok(());
        }
        let ws = self.context.broker.ws();
        for (found, _) in self.rows(key::UNKNOWN, None).await? {
            let mut reader = key::Reader(found.get(1..).unwrap_or_default());
            let Some((cid, mid)) = reader.cid().zip(reader.mid_and_zero()) else {
                return Err(StoreError::Damaged("unknown fact").into());
            };
            let purged = self.context.broker.link().purge_subject(RUN, &all_facts(ws, &mid, cid)).await?;
            let count = self.context.shared.counters.add("run.unknown_purged");
            if count.is_power_of_two() {
                warn!(command = %cid, machine = %mid, purged, count, "facts about an unknown run purged");
            }
            self.delete(vec![found]).await?;
        }
        Ok(())
    }

    /// Removes parts whose spec never came.
    async fn purge_orphans(&self) -> Result<(), RoundError> {
        let ws = self.context.broker.ws().clone();
        let until = now_ms().saturating_sub(ORPHAN_MS);
        for (found, row) in self.rows(key::PART, None).await? {
            let cid = key::Reader(found.get(1..).unwrap_or_default()).cid();
            let at = key::Reader(&row).u64();
            let (Some(cid), Some(at)) = (cid, at) else { return Err(StoreError::Damaged("part").into()) };
            if at > until {
                continue;
            }
            let subject = Subject::Command(ws.clone(), cid, CommandPiece::Part(1)).to_string();
            self.context.broker.link().purge_subject(CMD, &subject).await?;
            info!(command = %cid, "part without a spec purged");
            self.delete(vec![found]).await?;
        }
        Ok(())
    }

    /// Deletes what is older than the streams it came from.
    async fn trim(&self) -> Result<(), StoreError> {
        let shared = self.context.shared.clone();
        let job = tokio::task::spawn_blocking(move || {
            // Against the projection, which writes the same kinds of rows.
            let _memory = shared.memory_mut();
            retention::trim(&shared.store, now_ms())
        });
        let trimmed = job.await.map_err(|_| StoreError::Damaged("index"))??;
        if trimmed > 0 {
            info!(commands = trimmed, "old rows deleted");
        }
        Ok(())
    }

    /// On a bridge that does not dispatch: forgets what the one that does has purged by now.
    async fn forget(&self) -> Result<(), RoundError> {
        if FOLLOWED.iter().any(|stream| self.context.shared.cursor(stream).created == 0) {
            return Ok(());
        }
        let until = now_ms().saturating_sub(ORPHAN_MS);
        let mut old = Vec::new();
        for kind in [key::UNKNOWN, key::PART] {
            let rows = self.rows(kind, None).await?;
            // The time stands behind the sequence in one, and first in the other.
            let skip = if kind == key::UNKNOWN { 8 } else { 0 };
            let at = |row: &[u8]| row.get(skip..).and_then(|row| key::Reader(row).u64());
            old.extend(rows.into_iter().filter(|(_, row)| at(row).is_some_and(|at| at <= until)));
        }
        self.delete(old.into_iter().map(|(found, _)| found).collect()).await?;
        Ok(())
    }

    /// Deletes rows of the store, as the one writer that there may be at a time.
    async fn delete(&self, rows: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let shared = self.context.shared.clone();
        let job = tokio::task::spawn_blocking(move || {
            let mut memory = shared.memory_mut();
            let mut txn = Txn::new(&shared.store);
            for row in rows {
                if row.first() == Some(&key::UNKNOWN) && txn.has(&row)? {
                    memory.unknown_facts = memory.unknown_facts.saturating_sub(1);
                }
                txn.delete(row);
            }
            txn.commit()
        });
        job.await.map_err(|_| StoreError::Damaged("index"))?
    }
}

/// Whether a record is too large, which no other time changes.
fn is_final(error: &BrokerError) -> bool {
    matches!(
        error,
        BrokerError::Sign { .. }
            | BrokerError::Store { source: signalbox_link::StoreError::TooLarge { .. }, .. }
    )
}
