//! History and cleaning up, by the holder of the lease.
//!
//! What has been settled for an hour is written to DONE, runs first, then their command. A run that stands there leaves
//! nothing but its register in RUN, whose room is everybody's. The register stays until an hour after `expires_at` and
//! until no mailbox that was acknowledged still offers the command; then RUN and CMD forget it whole. A run of which
//! more is learned after that gets a second record. What belongs to nothing is [`tidy`]'s business.

mod tidy;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use signalbox_link::Store;
use signalbox_schemas::{
    command::CommandSpec,
    error::report,
    id::{CommandId, MachineToken, Sha256},
    limit::DAY_MS,
    record::{DoneCommand, DoneRun, StoredFact},
    run::RunState,
    signed::Message,
    stream::{CMD, DONE, RUN},
    subject::{FactKind, Subject},
};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::{
    broker_link::BrokerError,
    core::{Context, CoreError, Epoch, now_ms},
    ingest::{FOLLOWED, read_to_end},
    projection::{CommandRow, Counts, RunRow},
    store::{Row, StoreError, Txn, key, retention},
    view::View,
};

/// How often there is looked for something to do; no answer depends on it.
const ROUND: Duration = Duration::from_secs(1);
/// How often rows are looked for that are too old.
const TRIM: Duration = Duration::from_mins(1);
/// Records and purges of one round, of each kind.
const PER_ROUND: usize = 1_000;
/// How long to wait for one's own records to be read before the next round.
const READ_BACK: Duration = Duration::from_secs(10);
/// Questions and purges under way at once.
const IN_FLIGHT: usize = 32;
/// Neither RUN nor CMD keeps anything for longer.
const LIVE_MS: u64 = 10 * DAY_MS;

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
    let mut keeper = Keeper::new(context, after_ms);
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
            // What was not read yet is not unknown.
            if !*keeper.context.shared.caught_up.borrow() {
                continue;
            }
            match keeper.work().await {
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
    /// The term in which every stream was read up to the end it had when the term began.
    read_in: Option<Epoch>,
    /// Runs whose record was read back in the last round, as it was written.
    written: HashMap<(CommandId, MachineToken), RunState>,
    aged: tidy::Aged,
}

impl Keeper {
    fn new(context: Context, after_ms: u64) -> Self {
        Self { context, after_ms, read_in: None, written: HashMap::new(), aged: tidy::Aged::default() }
    }

    async fn work(&mut self) -> Result<(), RoundError> {
        let Some(epoch) = self.context.epoch() else {
            self.read_in = None;
            return self.forget().await;
        };
        if self.read_in != Some(epoch) {
            // A bridge that was cut off takes the lease with its cursors behind.
            read_to_end(&self.context.shared, &FOLLOWED).await;
            self.read_in = Some(epoch);
        }
        self.tidy().await?;
        self.history().await
    }

    async fn history(&mut self) -> Result<(), RoundError> {
        let due = now_ms().saturating_sub(self.after_ms);
        let (mut last, mut written) = (None, HashMap::new());
        for (at, cid, mid) in self.settled_runs(due).await? {
            let row = RunRow::of(&self.context.shared.store, cid, &mid)?;
            let state = row.state();
            if self.written.get(&(cid, mid.clone())) == Some(&state) {
                // It was written, it was read, and it did not count: once more would not count either.
                self.leave_out(at, cid, &mid).await?;
            } else if let Some(sequence) = self.write_run(cid, &mid, row).await? {
                last = Some(sequence);
                written.insert((cid, mid), state);
            }
        }
        self.written = if self.read_back(last).await? { written } else { HashMap::new() };
        let mut last = None;
        for (at, cid) in self.settled_commands(due).await? {
            last = self.write_command(at, cid).await?.or(last);
        }
        self.read_back(last).await?;
        self.release().await?;
        self.purge_history(due).await
    }

    async fn leave_out(&self, at: u64, cid: CommandId, mid: &MachineToken) -> Result<(), RoundError> {
        let count = self.context.shared.counters.add("done.refused");
        if count.is_power_of_two() {
            warn!(command = %cid, machine = %mid, count, "history was written and is not believed, it is left out");
        }
        Ok(self.delete(vec![key::settled_run(at, cid, mid)]).await?)
    }

    /// Reads the first keys of a kind from a thread that may block.
    async fn keys(&self, kind: u8, until: Option<u64>) -> Result<Vec<Vec<u8>>, StoreError> {
        let store = self.context.shared.store.clone();
        let job = tokio::task::spawn_blocking(move || {
            let end = match until {
                Some(at) => [&[kind][..], &at.to_be_bytes()[..]].concat(),
                None => key::after(&[kind]),
            };
            store.keys(vec![kind], end).take(PER_ROUND).collect()
        });
        job.await.map_err(|_| StoreError::Damaged("index"))?
    }

    /// Reads the first rows of a kind from a thread that may block.
    async fn rows(&self, kind: u8) -> Result<Vec<Row>, StoreError> {
        let store = self.context.shared.store.clone();
        let job = tokio::task::spawn_blocking(move || store.scan(&[kind]).take(PER_ROUND).collect());
        job.await.map_err(|_| StoreError::Damaged("index"))?
    }

    async fn settled_runs(&self, due: u64) -> Result<Vec<(u64, CommandId, MachineToken)>, StoreError> {
        let keys = self.keys(key::SETTLED_RUN, Some(due)).await?;
        keys.iter().map(|found| timed_run(found).ok_or(StoreError::Damaged("settled run"))).collect()
    }

    async fn settled_commands(&self, due: u64) -> Result<Vec<(u64, CommandId)>, StoreError> {
        let keys = self.keys(key::SETTLED_COMMAND, Some(due)).await?;
        keys.iter().map(|found| timed(found).ok_or(StoreError::Damaged("settled command"))).collect()
    }

    /// Waits until this bridge has read its own records, so that the next round does not write them again. Answers
    /// whether it has.
    async fn read_back(&self, last: Option<u64>) -> Result<bool, RoundError> {
        let Some(sequence) = last else { return Ok(true) };
        let cursor = self.context.broker.cursor(DONE, sequence).await?;
        Ok(View::new(self.context.shared.clone()).reached(&cursor, READ_BACK).await)
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

    async fn write_run(
        &self,
        cid: CommandId,
        mid: &MachineToken,
        row: RunRow,
    ) -> Result<Option<u64>, RoundError> {
        if row.done == Some(row.state()) {
            return Ok(None);
        }
        let mut facts = Vec::new();
        // A `lost` that is not the claimer's says nothing.
        let tells = |kind: &FactKind| *kind != FactKind::Lost || row.facts.lost().is_some();
        for kind in FactKind::ALL.into_iter().filter(tells) {
            facts.extend(row.message(kind).map(|fact| StoredFact {
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

    async fn write_command(&self, at: u64, cid: CommandId) -> Result<Option<u64>, RoundError> {
        let store = &self.context.shared.store;
        let row: Option<CommandRow> = store.json(&key::command(cid), "command")?;
        let Some(row) = row.filter(|row| !row.done) else {
            // It settled a second time, after a record of its own: that one stays.
            self.delete(vec![key::settled_command(at, cid)]).await?;
            return Ok(None);
        };
        let Some(machines) = self.all_done(cid, row.machines).await? else { return Ok(None) };
        let counts: Counts = store.json(&key::counts(cid), "counts")?.unwrap_or_default();
        let ws = self.context.broker.ws().clone();
        let subject = Subject::DoneCommands(ws.clone());
        let (spec, spec_sha256) = kept(store.get(&key::spec(cid))?.unwrap_or_default());
        let record = DoneCommand {
            ws,
            cid,
            spec: signalbox_schemas::Base64Url(spec),
            spec_sha256,
            sequence: row.sequence,
            accepted_at: row.accepted_at,
            author: row.author,
            machines,
            counts,
            rollout: store.json(&key::rollout(cid), "rollout")?,
        };
        let written = self.store(&subject, &record, &cid.to_string()).await?;
        if written.is_none() {
            self.delete(vec![key::settled_command(at, cid)]).await?;
        }
        Ok(written)
    }

    /// Takes out of RUN what DONE holds, except the registers: whoever has an old offer must find them.
    async fn release(&self) -> Result<(), RoundError> {
        let long_ago = now_ms().saturating_sub(LIVE_MS);
        let mut rows = Vec::new();
        for found in self.keys(key::RELEASE, None).await? {
            let (at, cid, mid) = timed_run(&found).ok_or(StoreError::Damaged("release"))?;
            rows.push(found);
            if at > long_ago {
                self.release_run(cid, &mid).await?;
            }
        }
        Ok(self.delete(rows).await?)
    }

    async fn release_run(&self, cid: CommandId, mid: &MachineToken) -> Result<(), RoundError> {
        let store = &self.context.shared.store;
        let row = RunRow::of(store, cid, mid)?;
        if row.done != Some(row.state()) {
            // More was learned since; another record follows.
            return Ok(());
        }
        // Each is write-once: as long as the one that was read stands there, nothing newer can.
        for kind in FactKind::ALL.into_iter().filter(|kind| *kind != FactKind::Claim) {
            if row.message(kind).is_some() {
                let subject = Subject::Run(self.context.broker.ws().clone(), mid.clone(), cid, kind);
                self.context.broker.link().purge_subject(RUN, &subject.to_string()).await?;
            }
        }
        Ok(())
    }

    /// Takes out of RUN and CMD what DONE holds.
    async fn purge_history(&self, due: u64) -> Result<(), RoundError> {
        let long_ago = now_ms().saturating_sub(LIVE_MS);
        let mut gone = Vec::new();
        for found in self.keys(key::PURGE, Some(due)).await? {
            let (at, cid) = timed(&found).ok_or(StoreError::Damaged("purge"))?;
            // What is older left the live streams by itself: a view that was built anew knows 400 days of it.
            if at > long_ago {
                let row: Option<CommandRow> =
                    self.context.shared.store.json(&key::command(cid), "command")?;
                if !self.may_purge(cid, row, due).await? {
                    continue;
                }
                let ws = self.context.broker.ws();
                let link = self.context.broker.link();
                let mut purged = link.purge_subject(RUN, &format!("run.{ws}.*.{cid}.*")).await?;
                purged += link.purge_subject(CMD, &format!("cmd.{ws}.{cid}.*")).await?;
                debug!(command = %cid, purged, "history left the live streams");
            }
            gone.push(found);
        }
        Ok(self.delete(gone).await?)
    }

    /// Whether the spec at a sequence of CMD stands in the audit chain, or is there no more.
    fn is_audited(&self, sequence: u64) -> bool {
        let shared = &self.context.shared;
        let read = shared.cursor(CMD);
        let audited = *shared.audited.borrow();
        sequence > read.sequence || (audited.created == read.created && sequence <= audited.sequence)
    }

    /// Whether every offer of it is void, its spec is audited, every run stands in DONE as it is, and nobody is offered it any more.
    async fn may_purge(&self, cid: CommandId, row: Option<CommandRow>, due: u64) -> Result<bool, StoreError> {
        let Some(row) = row else { return Ok(true) };
        if row.expires_at > due || !self.is_audited(row.sequence) {
            return Ok(false);
        }
        let Some(machines) = self.all_done(cid, row.machines).await? else { return Ok(false) };
        let memory = self.context.shared.memory();
        let offered = |mid: &MachineToken| {
            memory
                .mailboxes
                .get(mid)
                .is_some_and(|row| row.offers.contains(&cid) || row.cancels.contains(&cid))
        };
        Ok(!machines.iter().any(offered))
    }

    /// The machines again, if the runs of all of them have settled and stand in DONE as they are. Reads a row for each, on a
    /// thread that may block.
    async fn all_done(
        &self,
        cid: CommandId,
        machines: Vec<MachineToken>,
    ) -> Result<Option<Vec<MachineToken>>, StoreError> {
        let store = self.context.shared.store.clone();
        let job = tokio::task::spawn_blocking(move || {
            for mid in &machines {
                let row = RunRow::of(&store, cid, mid)?;
                if row.done != Some(row.state()) || !row.state().is_settled() {
                    return Ok(None);
                }
            }
            Ok(Some(machines))
        });
        job.await.map_err(|_| StoreError::Damaged("run"))?
    }

    /// Deletes what is older than the streams it came from.
    async fn trim(&self) -> Result<(), StoreError> {
        let mut commands = 0;
        loop {
            let shared = self.context.shared.clone();
            let job = tokio::task::spawn_blocking(move || {
                // Against the projection, which writes the same kinds of rows.
                let _memory = shared.memory_mut();
                retention::trim(&shared.store, now_ms())
            });
            let slice = job.await.map_err(|_| StoreError::Damaged("index"))??;
            commands += slice.commands;
            if !slice.more {
                break;
            }
        }
        if commands > 0 {
            info!(commands, "old rows deleted");
        }
        Ok(())
    }

    /// Deletes rows of the store, as the one writer that there may be at a time.
    async fn delete(&self, rows: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let shared = self.context.shared.clone();
        let job = tokio::task::spawn_blocking(move || {
            let mut memory = shared.memory_mut();
            let mut txn = Txn::new(&shared.store);
            for row in rows {
                let count = match row.first() {
                    Some(&key::UNKNOWN) => Some(&mut memory.unknown_facts),
                    Some(&(key::PART | key::FURTHER_PART)) => Some(&mut memory.waiting_parts),
                    _ => None,
                };
                if let Some(count) = count
                    && txn.has(&row)?
                {
                    *count = count.saturating_sub(1);
                }
                txn.delete(row);
            }
            txn.commit()
        });
        job.await.map_err(|_| StoreError::Damaged("index"))?
    }
}

/// Time and command of a key that begins with them.
fn timed(found: &[u8]) -> Option<(u64, CommandId)> {
    let mut reader = key::Reader(found.get(1..)?);
    Some((reader.u64()?, reader.cid()?))
}

/// The same with a machine behind.
fn timed_run(found: &[u8]) -> Option<(u64, CommandId, MachineToken)> {
    let mut reader = key::Reader(found.get(1..)?);
    Some((reader.u64()?, reader.cid()?, reader.mid()?))
}

/// What history keeps of a spec: all of it, and where something is sealed in it the same without that, and the hash of the
/// whole. Four hundred days are too long for a secret, however it is sealed.
fn kept(spec: Vec<u8>) -> (Vec<u8>, Option<Sha256>) {
    let without = CommandSpec::from_stored_bytes(&spec).ok().and_then(|spec| spec.without_secret());
    // A spec that was read has a JSON form.
    match without.and_then(|without| serde_json::to_vec(&without).ok()) {
        Some(without) => (without, Some(Sha256::of(&spec))),
        None => (spec, None),
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
