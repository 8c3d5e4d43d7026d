//! Writes mailboxes: of machines where what stands differs from what should.
//!
//! Only the holder of the lease dispatches, and only once it has read every stream up to the end it had when
//! the lease was taken over. A machine has at most one write under way. Something new goes out at once, and so does
//! what had no room, once half of what is on offer has settled; what can only be taken out waits five seconds for
//! company.

mod later;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use signalbox_link::{
    Store, StoreError,
    crash::{self, Point},
};
use signalbox_schemas::{
    error::report,
    id::{CommandId, MachineToken, Sha256},
    limit,
    mailbox::Mailbox,
    record::Lease,
    stream::{self, LEASE, MBOX},
    subject::Subject,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, info, warn};

use crate::{
    core::{Context, CoreError, Epoch, now_ms},
    ingest::{
        FOLLOWED,
        decode::{Event, Raw},
        read_to_end,
    },
    mailbox::{Content, Difference, content},
    projection::{
        MailboxRow,
        memory::{Memory, Urgency},
    },
    view::{Cursors, View},
};

use later::Later;

/// Writes under way at once: measured, more of them are no faster.
const IN_FLIGHT: usize = 256;
/// How long settled offers may stay.
const LATER: Duration = Duration::from_secs(5);
/// Tries of one write against other writers before the machine goes to the end of the queue.
const TRIES: u32 = 5;
/// How long to wait for streams that the mailbox that stands there was based on.
const BASIS_WAIT: Duration = Duration::from_secs(5);
/// A heartbeat that is this much younger than a mailbox should know it, ms.
const NUDGE_AFTER_MS: u64 = 2_000;
/// How often a machine's mailbox is written anew because it does not see it.
const NUDGE_EVERY: Duration = Duration::from_secs(10);
/// How often heartbeats are compared with mailboxes.
const NUDGE_CHECK: Duration = Duration::from_secs(1);

/// How a write ended.
enum Wrote {
    /// What should stand there stands there.
    Yes,
    /// Not yet; to be tried again.
    Again,
    /// A bridge with a later lease has written.
    Deposed,
}

/// Dispatches whenever this bridge holds the lease, until told to stop.
pub(crate) async fn run(context: Context) -> Result<(), CoreError> {
    let mut lease = context.lease.clone();
    let mut caught_up = context.shared.caught_up.subscribe();
    let stop = context.stop.clone();
    let work = async {
        loop {
            let Ok(epoch) = lease.wait_for(Option::is_some).await.map(|epoch| *epoch) else { return Ok(()) };
            let Some(epoch) = epoch else { continue };
            if caught_up.wait_for(|is| *is).await.is_err() {
                return Ok(());
            }
            read_to_end(&context.shared, &FOLLOWED).await;
            let mut dispatcher = Dispatcher::new(context.clone(), epoch);
            tokio::select! {
                ended = dispatcher.dispatch() => ended?,
                _ = lease.wait_for(|held| *held != Some(epoch)) => {}
            }
            info!(epoch = epoch.0, "dispatching ended");
            // Deposed before the lease noticed: wait until it does.
            if lease.wait_for(|held| *held != Some(epoch)).await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = work => ended,
    }
}

struct Dispatcher {
    context: Context,
    epoch: Epoch,
    /// To be looked at.
    queue: BTreeSet<MachineToken>,
    /// To be written even if nothing differs, or only surplus does.
    forced: HashSet<MachineToken>,
    /// When surplus is taken out.
    later: Later,
    /// Those with a write under way.
    busy: HashSet<MachineToken>,
    /// Those of them that are to be looked at once more after it.
    held: HashSet<MachineToken>,
    nudged: HashMap<MachineToken, Instant>,
    writes: JoinSet<(MachineToken, Wrote)>,
}

impl Dispatcher {
    fn new(context: Context, epoch: Epoch) -> Self {
        let queue = {
            let mut memory = context.shared.memory_mut();
            memory.dirty.clear();
            memory.machines.keys().cloned().collect()
        };
        Self {
            context,
            epoch,
            queue,
            forced: HashSet::new(),
            later: Later::new(LATER),
            busy: HashSet::new(),
            held: HashSet::new(),
            nudged: HashMap::new(),
            writes: JoinSet::new(),
        }
    }

    /// Writes until another bridge has a later lease.
    ///
    /// # Errors
    /// When a write panicked: its machine would be taken for busy for ever.
    async fn dispatch(&mut self) -> Result<(), CoreError> {
        info!(epoch = self.epoch.0, machines = self.queue.len(), "dispatching");
        let mut check = tokio::time::interval(NUDGE_CHECK);
        loop {
            self.look();
            let next = self.later.next();
            tokio::select! {
                () = self.context.shared.dispatch.notified() => self.collect(),
                Some(ended) = self.writes.join_next() => {
                    let (mid, wrote) = ended.map_err(|_| CoreError::Ended("mailbox write"))?;
                    self.busy.remove(&mid);
                    let is_held = self.held.remove(&mid);
                    match wrote {
                        Wrote::Yes if !is_held => {}
                        Wrote::Yes => _ = self.queue.insert(mid),
                        Wrote::Again => {
                            self.context.shared.counters.add("mailbox.again");
                            self.queue.insert(mid);
                        }
                        Wrote::Deposed => return Ok(()),
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.clean(),
                _ = check.tick() => self.nudge(),
            }
        }
    }

    /// Takes over what the projection marked.
    fn collect(&mut self) {
        let mut memory = self.context.shared.memory_mut();
        let now = Instant::now();
        for (mid, urgency) in std::mem::take(&mut memory.dirty) {
            if urgency == Urgency::Now || is_hungry(&memory, &mid) {
                self.queue.insert(mid);
            } else {
                self.later.insert(mid, now);
            }
        }
    }

    /// Surplus has waited long enough.
    fn clean(&mut self) {
        let now = Instant::now();
        while let Some(mid) = self.later.take(now) {
            self.forced.insert(mid.clone());
            self.queue.insert(mid);
        }
    }

    /// Starts a write for each machine in the queue that needs one, as far as there is room.
    fn look(&mut self) {
        while self.writes.len() < IN_FLIGHT {
            let Some(mid) = self.queue.pop_first() else { break };
            if self.busy.contains(&mid) {
                self.held.insert(mid);
                continue;
            }
            let nudge = self.nudged.get(&mid).is_some_and(|at| at.elapsed() < NUDGE_CHECK);
            let forced = self.forced.remove(&mid);
            let difference = {
                let memory = self.context.shared.memory();
                let content = content(&memory, &mid, now_ms());
                content.map(|content| content.difference(memory.mailboxes.get(&mid)))
            };
            match difference {
                None => {}
                Some(Difference::None) if !(forced && nudge) => {
                    self.later.remove(&mid);
                }
                Some(Difference::Surplus) if !forced => {
                    self.later.insert(mid, Instant::now());
                }
                Some(_) => {
                    self.later.remove(&mid);
                    self.busy.insert(mid.clone());
                    let job = Write { context: self.context.clone(), epoch: self.epoch, mid: mid.clone() };
                    self.writes.spawn(async move {
                        let wrote = job.run().await;
                        (mid, wrote)
                    });
                }
            }
        }
    }

    /// Writes anew what a machine that is there does not see.
    fn nudge(&mut self) {
        let now = Instant::now();
        self.nudged.retain(|_, at| at.elapsed() < NUDGE_EVERY);
        let blind: Vec<MachineToken> = {
            let (memory, now) = (self.context.shared.memory(), now_ms());
            if memory.authors.as_ref().is_none_or(|known| !known.doc.is_valid_at(now)) {
                // Nobody takes a mailbox under a document that has expired, however often it is written.
                return;
            }
            let is_blind = |mid: &MachineToken| {
                let beat = memory.machines.get(mid)?.beat.as_ref()?;
                let row = memory.mailboxes.get(mid)?;
                // A generation is the time of its writing.
                let late = beat.seen_at > row.generation.saturating_add(NUDGE_AFTER_MS);
                let online = now.saturating_sub(beat.seen_at) <= limit::STALE_MS;
                (late && online && beat.beat.generation < row.generation).then_some(())
            };
            memory.machines.keys().filter(|mid| is_blind(mid).is_some()).cloned().collect()
        };
        for mid in blind {
            if self.nudged.contains_key(&mid) {
                continue;
            }
            self.context.shared.counters.add("mailbox.nudged");
            debug!(machine = %mid, "machine does not see its mailbox, writing it anew");
            self.nudged.insert(mid.clone(), now);
            self.forced.insert(mid.clone());
            self.queue.insert(mid);
        }
    }
}

/// Whether more waits for a machine than its mailbox has room for, and at most half of what stands there is still open:
/// a mailbox for each command that settles would be as much too often as one every five seconds is too rare.
fn is_hungry(memory: &Memory, mid: &MachineToken) -> bool {
    let (Some(machine), Some(stands)) = (memory.machines.get(mid), memory.mailboxes.get(mid)) else {
        return true;
    };
    let is_open =
        |cid: &&CommandId| memory.open.get(*cid).is_some_and(|command| command.runs.contains_key(mid));
    let open = stands.offers.iter().filter(is_open).count();
    machine.queue.len() > open && open * 2 <= stands.offers.len()
}

/// The write of one machine's mailbox.
struct Write {
    context: Context,
    epoch: Epoch,
    mid: MachineToken,
}

impl Write {
    async fn run(&self) -> Wrote {
        for _ in 0..TRIES {
            if self.context.epoch() != Some(self.epoch) {
                return Wrote::Deposed;
            }
            let Some((mailbox, after)) = self.compose() else { return Wrote::Yes };
            let body = match self.context.broker.signed(&mailbox) {
                Ok(body) => body,
                Err(error) => {
                    warn!(machine = %self.mid, error = report(&error), "mailbox cannot be signed");
                    return Wrote::Yes;
                }
            };
            let sha256 = Sha256::of(&body);
            let summary = format!("generation {}, {} offers", mailbox.generation, mailbox.offers.len());
            let message = Store::new(self.subject(), body)
                .with_headers(self.context.broker.headers::<Mailbox>(&summary))
                .only_after(after);
            match self.context.broker.link().store(message).await {
                Ok(stored) => return self.stands(&mailbox, stored.sequence, sha256),
                Err(StoreError::Taken { .. } | StoreError::Unanswered { .. }) => {}
                Err(error) => {
                    warn!(machine = %self.mid, error = report(&error), "mailbox was refused");
                    sleep(LATER).await;
                    return Wrote::Again;
                }
            }
            self.context.shared.counters.add("mailbox.conflict");
            match self.read_back(sha256).await {
                Some(Found::Mine(sequence)) => return self.stands(&mailbox, sequence, sha256),
                Some(Found::Other(row)) if row.epoch > self.epoch.0 => match self.is_holder().await {
                    Some(false) => return Wrote::Deposed,
                    Some(true) => self.take_over(row).await,
                    // Not known: asked again.
                    None => {}
                },
                Some(Found::Other(row)) => self.take_over(row).await,
                Some(Found::Nothing) => {
                    self.context.shared.memory_mut().mailboxes.remove(&self.mid);
                }
                None => {}
            }
            sleep(jitter()).await;
        }
        Wrote::Again
    }

    fn subject(&self) -> String {
        Subject::Mailbox(self.context.broker.ws().clone(), self.mid.clone()).to_string()
    }

    /// The mailbox as it should be now, and the sequence that it replaces.
    fn compose(&self) -> Option<(Mailbox, u64)> {
        let now = now_ms();
        // Read before memory: a basis must not claim more than was applied.
        let basis = self.context.shared.basis();
        let memory = self.context.shared.memory();
        let content: Content = content(&memory, &self.mid, now)?;
        let stands = memory.mailboxes.get(&self.mid);
        let names = (self.context.broker.ws(), &self.mid);
        let mailbox = content.compose(names, self.epoch.0, stands, basis, now);
        Some((mailbox, stands.map_or(0, |row| row.sequence)))
    }

    fn stands(&self, mailbox: &Mailbox, sequence: u64, sha256: Sha256) -> Wrote {
        crash::hit(crash::Part::Bridge, Point::MailboxWritten);
        let row = MailboxRow::of(mailbox, sequence, sha256);
        let mut memory = self.context.shared.memory_mut();
        let known = memory.mailboxes.get(&self.mid).map_or(0, |row| row.sequence);
        if known <= sequence {
            memory.mailboxes.insert(self.mid.clone(), row);
        }
        Wrote::Yes
    }

    /// What stands there, from the leader. `None`: not known.
    async fn read_back(&self, mine: Sha256) -> Option<Found> {
        let found = match self.context.broker.last(MBOX, &self.subject()).await {
            Ok(found) => found,
            Err(error) => {
                debug!(machine = %self.mid, error = report(&error), "mailbox cannot be read back");
                return None;
            }
        };
        let Some(message) = found else { return Some(Found::Nothing) };
        if Sha256::of(&message.payload) == mine {
            return Some(Found::Mine(message.sequence));
        }
        let event = self.context.shared.decoder.decode(&Raw::of(&message));
        let foreign = MailboxRow::foreign(message.sequence);
        let Ok(Event::Mailbox { row: Some((row, signer)), .. }) = event else {
            return Some(Found::Other(foreign));
        };
        let memory = self.context.shared.memory();
        let is_bridge = memory.authors.as_ref().is_some_and(|known| known.doc.is_bridge(&signer));
        Some(Found::Other(if is_bridge { row } else { foreign }))
    }

    /// Whether the lease is this bridge's, by the leader's word. Then a higher epoch is one of a lease stream that
    /// is no more, and means nothing. `None`: not known.
    async fn is_holder(&self) -> Option<bool> {
        let subject = Subject::Lease(self.context.broker.ws().clone()).to_string();
        let found = match self.context.broker.last(LEASE, &subject).await {
            Ok(found) => found,
            Err(error) => {
                debug!(machine = %self.mid, error = report(&error), "lease cannot be read");
                return None;
            }
        };
        let lease = found.and_then(|message| serde_json::from_slice::<Lease>(&message.payload).ok());
        Some(lease.is_some_and(|lease| lease.bridge == *self.context.broker.bridge()))
    }

    /// Goes on from what somebody else wrote.
    async fn take_over(&self, row: MailboxRow) {
        self.wait_for(&row).await;
        let mut memory = self.context.shared.memory_mut();
        let known = memory.mailboxes.get(&self.mid).map_or(0, |known| known.sequence);
        // Where it is replaced before the stream is read that far, it is seen here only.
        if row.is_foreign() && known < row.sequence {
            self.context.shared.counters.add("mailbox.foreign");
        }
        memory.take_mailbox(&self.mid, row);
    }

    /// Whoever wrote what stands there may have read further than this bridge.
    async fn wait_for(&self, row: &MailboxRow) {
        let mut wanted = Cursors::of(stream::CMD, row.basis.cmd);
        wanted.set(stream::STATE, row.basis.kv);
        wanted.set(stream::RUN, row.basis.run);
        if !View::new(self.context.shared.clone()).reached(&wanted, BASIS_WAIT).await {
            self.context.shared.counters.add("mailbox.behind");
        }
    }
}

/// What stands in a mailbox.
enum Found {
    Mine(u64),
    Other(MailboxRow),
    Nothing,
}

/// 5 to 50 ms, so that two writers do not meet again.
fn jitter() -> Duration {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Duration::from_millis(5 + u64::from(nanos.map_or(0, |since| since.subsec_nanos())) / 1_000 % 46)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::core::still::Still;

    #[tokio::test]
    async fn a_write_that_panics_ends_the_core() {
        let still = Still::start().await.unwrap();
        let mut dispatcher = Dispatcher::new(still.context.clone(), Epoch(1));
        dispatcher.writes.spawn(async { panic!("on purpose") });
        let ended = timeout(Duration::from_secs(5), dispatcher.dispatch()).await.unwrap();
        assert!(matches!(ended, Err(CoreError::Ended(_))), "{ended:?}");
    }

    #[tokio::test]
    async fn a_lease_that_cannot_be_read_is_nobodys_word() {
        let still = Still::start().await.unwrap();
        let mid = MachineToken::new("web-1").unwrap();
        let write = Write { context: still.context.clone(), epoch: Epoch(1), mid };
        // Its stream is missing.
        assert_eq!(write.is_holder().await, None);
        write.context.broker.ensure_streams().await.unwrap();
        assert_eq!(write.is_holder().await, Some(false));
        let subject = Subject::Lease(write.context.broker.ws().clone()).to_string();
        let lease = Lease { bridge: write.context.broker.bridge().clone(), renewed_at: 1 };
        let lease = Store::new(subject, serde_json::to_vec(&lease).unwrap());
        write.context.broker.link().store(lease).await.unwrap();
        assert_eq!(write.is_holder().await, Some(true));
    }
}
