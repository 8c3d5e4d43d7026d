//! The feed of one command: its runs, and their output in the order in which it was stored.
//!
//! The promise: **a run is told as settled only after its output**. An exit and the chunks before it are in two
//! streams, so an exit may be read first. A settled run is therefore held back until one of these holds:
//!
//! 1. there is no output, or the exit carries it itself (then it is sent from there);
//! 2. as many bytes of each stream are stored as the exit says, and everything up to the last of them was sent;
//! 3. this bridge has read the output stream up to the end it had when the exit was seen, and all of it was
//!    sent: what is still missing was cut, lost or dropped.

mod barrier;
mod pump;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use signalbox_schemas::{
    api::{CommandSummary, Counts, FeedEvent, RolloutView, RunView},
    error::report,
    id::{CommandId, MachineToken},
    stream::OUT,
};
use tokio::{
    sync::broadcast::Receiver,
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

use self::barrier::Barrier;
pub(super) use self::pump::Pump;
use super::{ALIVE, Answers, Batch, End, Listener, STALL, UNATTENDED, changed, take_ready};
use crate::{
    api::{Api, commands},
    store::StoreError,
    view::{Change, View},
};

/// Pause before a read of the broker that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Shortest time between two lines about how far the command has spread: one machine at a time makes thousands of editions.
const PACE: Duration = Duration::from_millis(50);

/// Runs a feed of command `id`, with output when there is a pump for it.
pub(super) async fn run(
    api: &Arc<Api>,
    answers: &mut Answers,
    listener: Listener,
    id: CommandId,
    pump: Option<Pump>,
) -> End {
    // Subscribed before the first read, so that nothing falls between.
    let changes = api.view().changes();
    let summary = match commands::known(api, id).await {
        Ok(summary) => summary,
        Err(problem) => {
            api.count("rpc", problem.code.as_str());
            answers.refuse(problem).await;
            return End::Closed;
        }
    };
    let mut feed = CommandFeed {
        api: Arc::clone(api),
        answers,
        listener,
        id,
        pump,
        told: BTreeMap::new(),
        settling: BTreeMap::new(),
        stirred: BTreeSet::new(),
        placed: BTreeSet::new(),
        open: 0,
        settled: None,
        spread: Spread::told(&summary),
        read_through: None,
        blocked_since: None,
    };
    let first = FeedEvent::Command(summary);
    match feed.answers.event(&first).await {
        Ok(()) => feed.go_on(changes).await.err().unwrap_or(End::Closed),
        Err(end) => end,
    }
}

/// A wait for this bridge to have read the output stream up to its end of now.
type ReadThrough = Pin<Box<dyn Future<Output = ()> + Send>>;

struct CommandFeed<'a> {
    api: Arc<Api>,
    answers: &'a mut Answers,
    listener: Listener,
    id: CommandId,
    /// Absent when no output is wished.
    pump: Option<Pump>,
    /// Runs as they were last told.
    told: BTreeMap<MachineToken, RunView>,
    /// Settled runs that wait for their output.
    settling: BTreeMap<MachineToken, (RunView, Barrier)>,
    /// Those of them of which another look may tell more: of 10,000 that wait, few.
    stirred: BTreeSet<MachineToken>,
    /// Those of them that wait for output whose place is known.
    placed: BTreeSet<MachineToken>,
    /// How many of those told have not settled.
    open: usize,
    /// The counts that were last told as settled.
    settled: Option<Counts>,
    spread: Spread,
    read_through: Option<ReadThrough>,
    /// Since when output waits for credit.
    blocked_since: Option<Instant>,
}

/// How far the command has spread, as it was last told.
struct Spread {
    /// Absent when it goes to all at once: then there is nothing to tell.
    told: Option<Box<RolloutView>>,
    told_at: Instant,
    /// Whether it may have changed since.
    is_stirred: bool,
}

impl Spread {
    fn told(summary: &CommandSummary) -> Self {
        Self { told: summary.rollout.clone(), told_at: Instant::now(), is_stirred: false }
    }

    /// When to tell more, if there may be more.
    fn due(&self) -> Option<Instant> {
        (self.is_stirred && self.told.is_some()).then(|| self.told_at + PACE)
    }
}

impl CommandFeed<'_> {
    async fn go_on(&mut self, mut changes: Receiver<Arc<[Change]>>) -> Result<(), End> {
        self.begin().await?;
        loop {
            if let Some(end) = self.end() {
                return Err(end);
            }
            if self.spread.due().is_some_and(|due| due <= Instant::now()) {
                self.tell_spread().await?;
            }
            let flow = self.advance().await?;
            let mut batch = Batch::default();
            if flow == Flow::More {
                // Rounds that find nothing to send are silent.
                if self.answers.spoke_at().elapsed() >= ALIVE {
                    self.speak().await?;
                }
                // Between two rounds of output, states that changed meanwhile may pass.
                take_ready(&mut changes, &mut batch);
            } else {
                batch = self.wait(&mut changes, flow).await?;
            }
            self.apply(batch).await?;
        }
    }

    fn end(&mut self) -> Option<End> {
        let blocked = self.blocked_since.is_some_and(|since| since.elapsed() >= STALL);
        self.listener.end().or_else(|| blocked.then_some(End::Stalled))
    }

    /// Sends what can be sent now: output, then runs that waited for it, then the end of all.
    async fn advance(&mut self) -> Result<Flow, End> {
        let credited = self.listener.credited();
        // Before the output goes: what is drained after this look is all that the look has seen.
        self.look().await?;
        let mut flow = match &mut self.pump {
            Some(pump) => pump.flow(&self.api, self.answers, self.id, credited).await?,
            None => Flow::Drained,
        };
        let blocked = self.settle(flow == Flow::Drained, credited).await?;
        if blocked {
            flow = Flow::Blocked;
        }
        match flow {
            Flow::Blocked => self.blocked_since = self.blocked_since.or_else(|| Some(Instant::now())),
            Flow::More | Flow::Drained | Flow::Retry => self.blocked_since = None,
        }
        if flow == Flow::Drained {
            self.tell_end().await?;
        }
        Ok(flow)
    }

    /// Looks once more at what the settled runs wait for.
    async fn look(&mut self) -> Result<(), End> {
        let mut open = Vec::new();
        for token in std::mem::take(&mut self.stirred) {
            if let Some((run, barrier)) = self.settling.get(&token)
                && barrier.is_open()
            {
                open.push((token, run.clone(), barrier.clone()));
            }
        }
        if open.is_empty() || self.pump.is_none() {
            return Ok(());
        }
        let id = self.id;
        let look = move |view: &View| {
            let mut known = Vec::new();
            for (token, run, barrier) in open {
                known.extend(barrier::look(view, id, &token, &run, &barrier)?.map(|seen| (token, seen)));
            }
            Ok(known)
        };
        for (token, seen) in self.api.read(look).await.map_err(|_| End::Unreadable)? {
            if let Some((_, barrier)) = self.settling.get_mut(&token) {
                *barrier = seen;
                self.placed.insert(token);
            }
        }
        Ok(())
    }

    /// Tells the settled runs whose output was sent. Answers whether one waits for credit.
    async fn settle(&mut self, drained: bool, credited: u64) -> Result<bool, End> {
        let mut blocked = false;
        for token in std::mem::take(&mut self.placed) {
            let Some(pump) = &mut self.pump else { return Ok(false) };
            let Some((run, barrier)) = self.settling.get(&token) else { continue };
            let passes = match barrier {
                // Rows that were too old may have gone: drained is drained.
                Barrier::At(position) => drained || pump.position() >= *position,
                Barrier::Inline(inline) if pump.sent() < credited => {
                    pump.send_inline(self.answers, &run.machine, inline).await?;
                    true
                }
                Barrier::Inline(_) => {
                    blocked = true;
                    false
                }
                // It has changed since; its next look places it.
                Barrier::Unknown | Barrier::Asked | Barrier::Read => continue,
            };
            if !passes {
                self.placed.insert(token);
            } else if let Some((run, _)) = self.settling.remove(&token) {
                self.tell(token, run).await?;
            }
        }
        self.ask();
        Ok(blocked)
    }

    /// Asks how far the output stream goes, when a run needs to know and nobody is asking yet.
    fn ask(&mut self) {
        let mut unknown = self.settling.values_mut().filter(|(_, barrier)| *barrier == Barrier::Unknown);
        if self.read_through.is_some() || unknown.next().is_none() {
            return;
        }
        for (_, barrier) in self.settling.values_mut() {
            if *barrier == Barrier::Unknown {
                *barrier = Barrier::Asked;
            }
        }
        let api = Arc::clone(&self.api);
        self.read_through = Some(Box::pin(async move {
            // When it cannot be told in time, what is there is all that is sent: an exit is not held back for
            // output that may never come.
            if api.read_through(OUT).await.is_err() {
                api.count("feed", "output_unsure");
            }
        }));
    }

    /// The output stream was read up to the end it had when it was asked for.
    fn was_read_through(&mut self) {
        self.read_through = None;
        for (token, (_, barrier)) in &mut self.settling {
            if *barrier == Barrier::Asked {
                *barrier = Barrier::Read;
                self.stirred.insert(token.clone());
            }
        }
    }

    /// Tells that everything has settled, once per set of counts.
    async fn tell_end(&mut self) -> Result<(), End> {
        if !self.settling.is_empty() || self.told.is_empty() || self.open > 0 {
            return Ok(());
        }
        let mut counts = Counts::new();
        for run in self.told.values() {
            *counts.entry(run.state).or_default() += 1;
        }
        if self.settled.as_ref() != Some(&counts) {
            // The end comes last.
            self.tell_spread().await?;
            self.answers.event(&FeedEvent::Settled { counts: counts.clone() }).await?;
            self.settled = Some(counts);
        }
        Ok(())
    }

    /// Says that it is there, and how far it got: output that is gone sends nothing that would tell.
    async fn speak(&mut self) -> Result<(), End> {
        let position = self.pump.as_ref().map(Pump::position).filter(|position| *position > 0);
        self.answers.event(&FeedEvent::Alive { position }).await
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self, changes: &mut Receiver<Arc<[Change]>>, flow: Flow) -> Result<Batch, End> {
        let alive = self.answers.spoke_at() + ALIVE;
        let unattended = self.listener.signed_at() + UNATTENDED;
        let stalled = self.blocked_since.map(|since| since + STALL);
        let spread = self.spread.due();
        let read_through = async {
            match &mut self.read_through {
                Some(wait) => wait.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            batch = changed(changes) => return batch.ok_or(End::Stopped),
            () = self.listener.told() => {}
            () = read_through => self.was_read_through(),
            () = sleep(RETRY), if flow == Flow::Retry => {}
            () = sleep_until(stalled.unwrap_or(unattended)) => {}
            () = sleep_until(spread.unwrap_or(unattended)) => {}
            () = sleep_until(unattended) => {}
            () = sleep_until(alive) => self.speak().await?,
        }
        Ok(Batch::default())
    }

    /// Reads the runs that changed; output that arrived is found by the pump.
    async fn apply(&mut self, batch: Batch) -> Result<(), End> {
        if batch.lagged {
            return self.read_all().await;
        }
        for change in batch.changes {
            match change {
                Change::Run { cid, mid } if cid == self.id => {
                    let run = self.api.view().run(cid, &mid).map_err(|error| unreadable(&error))?;
                    if let Some(run) = run {
                        self.observe(mid, run).await?;
                    }
                }
                // What a settled run waits for may be there now.
                Change::Output { cid, mid } if cid == self.id && self.settling.contains_key(&mid) => {
                    self.stirred.insert(mid);
                }
                Change::Command { cid } if cid == self.id => self.spread.is_stirred = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Tells how far the command has spread, if that is another matter than what was told last.
    async fn tell_spread(&mut self) -> Result<(), End> {
        if self.spread.due().is_none() {
            return Ok(());
        }
        self.spread.is_stirred = false;
        let summary = self.api.view().summary(self.id).map_err(|error| unreadable(&error))?;
        let Some(summary) = summary.filter(|summary| summary.rollout != self.spread.told) else {
            return Ok(());
        };
        self.spread = Spread::told(&summary);
        self.answers.event(&FeedEvent::Command(summary)).await
    }

    /// Tells what is.
    async fn begin(&mut self) -> Result<(), End> {
        for run in self.runs().await? {
            let token = run.machine.token();
            if self.pump.as_mut().is_some_and(|pump| pump.leave_out(&token, &run)) {
                self.tell(token, run).await?;
            } else {
                self.observe(token, run).await?;
            }
        }
        Ok(())
    }

    async fn read_all(&mut self) -> Result<(), End> {
        // Output that was missed may be what they wait for.
        self.stirred.extend(self.settling.keys().cloned());
        for run in self.runs().await? {
            self.observe(run.machine.token(), run).await?;
        }
        Ok(())
    }

    async fn runs(&mut self) -> Result<Vec<RunView>, End> {
        let id = self.id;
        let command = self.api.read(move |view| view.command(id)).await.map_err(|_| End::Unreadable)?;
        // What was missed may be a pause.
        self.spread.is_stirred = true;
        // A command that was forgotten meanwhile has nothing more to tell.
        command.map(|command| command.runs).ok_or(End::Unreadable)
    }

    /// Tells a run that changed, or holds it back until its output was sent.
    async fn observe(&mut self, token: MachineToken, run: RunView) -> Result<(), End> {
        if self.told.get(&token) == Some(&run) {
            self.settling.remove(&token);
            return Ok(());
        }
        if self.pump.is_some() && run.state.is_settled() {
            if self.settling.get(&token).is_none_or(|(waiting, _)| *waiting != run) {
                self.stirred.insert(token.clone());
                self.settling.insert(token, (run, Barrier::Unknown));
            }
            return Ok(());
        }
        self.tell(token, run).await
    }

    async fn tell(&mut self, token: MachineToken, run: RunView) -> Result<(), End> {
        self.answers.event(&FeedEvent::Run(run.clone())).await?;
        self.open += usize::from(!run.state.is_settled());
        if let Some(before) = self.told.insert(token, run) {
            self.open = self.open.saturating_sub(usize::from(!before.state.is_settled()));
        }
        Ok(())
    }
}

/// How output stands after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// There is more, and it may be sent.
    More,
    /// All that is there was sent.
    Drained,
    /// There is more, and no credit.
    Blocked,
    /// The broker did not answer.
    Retry,
}

fn unreadable(error: &StoreError) -> End {
    warn!(error = report(error), "the store cannot be read");
    End::Unreadable
}
