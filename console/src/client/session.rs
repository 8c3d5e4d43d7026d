//! The long-lived connection behind the terminal: [`Ask`]s in, [`Told`] out.
//!
//! One parent task owns all others and ends them with itself. Each of them waits only for the broker and for
//! the terminal's channel, so that a slow terminal slows nobody but itself.

mod machines;
mod one;
pub mod save;

use std::{collections::HashMap, time::Duration};

use signalbox_schemas::{
    api::{
        Cancel, Cancelling, Listed, MachineView, Page, ReadOutput, RolloutView, SteerRollout, Steered, Watch,
        op,
    },
    id::{CommandId, MachineId},
    rollout::Steer,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Access, Ask, Client, ClientError, LinkView, Told,
    feed::{Feed, FeedItem},
    look::ListKind,
    sign::Draft,
};
use save::Save;

/// The bridge's round trip is measured this often.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// How bridge and broker are is asked this often.
const HEALTH_EVERY: Duration = Duration::from_secs(10);
/// Wait before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Wait before something that a bridge refused is asked for again.
const RETRY_REFUSED: Duration = Duration::from_secs(5);
/// Commands watched at once; a further one ends the oldest. A bridge serves 64 feeds per operator.
const WATCHES: usize = 16;
/// Output of a run that has ended and wrote more bytes is not told with it: it is there to be read in ranges.
pub const LARGE_BYTES: u64 = 1024 * 1024;
/// Asks at work at once; further ones wait in the channel.
const AT_WORK: usize = 16;

/// Runs until `asks` closes, or nobody reads `told` any more. Reconnects for ever.
///
/// # Errors
/// [`ClientError::Connect`] when the broker's address is none.
pub async fn session(
    access: Access,
    mut asks: mpsc::Receiver<Ask>,
    told: mpsc::Sender<Told>,
) -> Result<(), ClientError> {
    // Heartbeats have a connection of their own: a hostile machine can put into its own what makes the NATS client
    // drop the connection that they come on.
    let heard = Client::connect(access.clone(), true).await?;
    let client = Client::connect(access, true).await?;
    let refresh = watch::Sender::new(());
    let mut tasks = JoinSet::new();
    tasks.spawn(tell_link(client.clone(), told.clone()));
    tasks.spawn(machines::tell_list(client.clone(), told.clone(), refresh.subscribe()));
    tasks.spawn(machines::tell_heard(heard.clone(), told.clone()));
    tasks.spawn(tell_commands(client.clone(), told.clone()));
    tasks.spawn(tell_health(client.clone(), told.clone()));
    let standing = tasks.len();
    let mut watches = Watches::default();
    let mut saves: HashMap<u64, CancellationToken> = HashMap::new();
    loop {
        tokio::select! {
            ask = asks.recv(), if tasks.len() < standing + WATCHES + AT_WORK => match ask {
                None => break,
                Some(Ask::Refresh) => { refresh.send_replace(()); }
                Some(Ask::Watch { id }) => {
                    let stop = watches.begin(id);
                    tasks.spawn(tell_command(client.clone(), id, told.clone(), stop));
                }
                Some(Ask::Unwatch { id }) => watches.end(id),
                Some(Ask::LookUp { tag, on, protected }) => {
                    tasks.spawn(look_up(client.clone(), tag, (on, protected), told.clone()));
                }
                Some(Ask::Run { tag, draft }) => {
                    tasks.spawn(run(client.clone(), tag, draft, told.clone()));
                }
                Some(Ask::Steer { tag, id, wish }) => {
                    tasks.spawn(steer(client.clone(), tag, id, wish, told.clone()));
                }
                Some(Ask::Cancel { tag, id }) => {
                    tasks.spawn(cancel(client.clone(), tag, id, told.clone()));
                }
                Some(Ask::Look(kind)) => {
                    tasks.spawn(read(client.clone(), kind, told.clone()));
                }
                Some(Ask::LookAt { machine, tab }) => {
                    tasks.spawn(one::read(client.clone(), machine, tab, told.clone()));
                }
                Some(Ask::Over { machine, time }) => {
                    tasks.spawn(one::over(client.clone(), machine, time, told.clone()));
                }
                Some(Ask::FleetAt(at)) => {
                    tasks.spawn(one::then(client.clone(), at, told.clone()));
                }
                Some(Ask::ReadOutput { id, machine, stream, from, most }) => {
                    let asked = ReadOutput { id, machine: machine.to_string(), stream, offset: from, limit: most };
                    tasks.spawn(read_range(client.clone(), asked, machine, told.clone()));
                }
                Some(Ask::Save(save)) => {
                    let stop = CancellationToken::new();
                    // Those that have ended are nobody's any more.
                    saves.retain(|_, stop| !stop.is_cancelled());
                    saves.insert(save.tag, stop.clone());
                    tasks.spawn(write_streams(client.clone(), save, told.clone(), stop));
                }
                Some(Ask::StopSave { tag }) => {
                    if let Some(stop) = saves.remove(&tag) {
                        stop.cancel();
                    }
                }
            },
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a task of the session panicked");
                }
            }
            () = told.closed() => break,
        }
    }
    tasks.shutdown().await;
    tokio::join!(client.link().close(), heard.link().close());
    Ok(())
}

/// Who is watched, with the order in which it began.
#[derive(Debug, Default)]
struct Watches {
    by_id: HashMap<CommandId, (u64, CancellationToken)>,
    order: u64,
}

impl Watches {
    fn begin(&mut self, id: CommandId) -> CancellationToken {
        self.end(id);
        let oldest = self.by_id.iter().min_by_key(|(_, (order, _))| *order).map(|(id, _)| *id);
        if let Some(oldest) = oldest.filter(|_| self.by_id.len() >= WATCHES) {
            tracing::debug!(id = %oldest, "too many commands are watched, the oldest is left");
            self.end(oldest);
        }
        let stop = CancellationToken::new();
        self.order += 1;
        self.by_id.insert(id, (self.order, stop.clone()));
        stop
    }

    fn end(&mut self, id: CommandId) {
        if let Some((_, stop)) = self.by_id.remove(&id) {
            stop.cancel();
        }
    }
}

/// The terminal is gone: the task ends.
type Gone = mpsc::error::SendError<Told>;

async fn tell_link(client: Client, told: mpsc::Sender<Told>) -> Result<(), Gone> {
    let mut state = client.link().state();
    let mut bridge = client.bridge();
    let mut tick = interval(MEASURE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = None;
    let mut rtt_ms = None;
    loop {
        let connected = state.borrow_and_update().is_connected;
        let view = LinkView { connected, bridge: bridge.borrow_and_update().clone(), rtt_ms };
        if shown.as_ref() != Some(&view) {
            told.send(Told::Link(view.clone())).await?;
            shown = Some(view);
        }
        tokio::select! {
            changed = state.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                if !state.borrow().is_connected {
                    rtt_ms = None;
                    client.forget_bridge();
                }
            }
            Ok(()) = bridge.changed() => {}
            _ = tick.tick() => {
                if state.borrow().is_connected {
                    rtt_ms = measure(&client).await;
                }
            }
        }
    }
}

/// Asks how bridge and broker are, over and over.
async fn tell_health(client: Client, told: mpsc::Sender<Told>) -> Result<(), Gone> {
    let mut tick = interval(HEALTH_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if !client.link().state().borrow().is_connected {
            continue;
        }
        match client.health().await {
            Ok(health) => told.send(Told::Health(Box::new(health))).await?,
            // An older bridge does not know the question.
            Err(error) => tracing::debug!(error = signalbox_schemas::error::report(&error), "no health"),
        }
    }
}

/// Time of one small question to a bridge.
async fn measure(client: &Client) -> Option<f64> {
    let asked = Instant::now();
    let page = Page { limit: Some(1), after: None };
    let answer = client.ask::<_, Listed<MachineView>>(op::MACHINES_LIST, &page).await;
    answer.ok().map(|_| asked.elapsed().as_secs_f64() * 1000.0)
}

async fn tell_commands(client: Client, told: mpsc::Sender<Told>) -> Result<(), Gone> {
    let mut feed = client.feed(Watch::Commands);
    while let Some(item) = next_item(&mut feed, None, &told).await? {
        if let FeedItem::Command(summary) = item {
            told.send(Told::Command(summary)).await?;
        }
    }
    Ok(())
}

async fn tell_command(
    client: Client,
    id: CommandId,
    told: mpsc::Sender<Told>,
    stop: CancellationToken,
) -> Result<(), Gone> {
    let mut feed = client.feed(Watch::Command { id, output: true, ended_bytes: Some(LARGE_BYTES) });
    let told = tokio::select! {
        told = pump(&mut feed, id, &told) => told,
        () = stop.cancelled() => Ok(()),
    };
    feed.close().await;
    told
}

async fn pump(feed: &mut Feed, id: CommandId, told: &mpsc::Sender<Told>) -> Result<(), Gone> {
    while let Some(item) = next_item(feed, Some(id), told).await? {
        told.send(match item {
            FeedItem::Command(summary) => Told::Command(summary),
            FeedItem::Run(run) => Told::Run { id, run },
            FeedItem::Settled(counts) => Told::Settled { id, counts },
            FeedItem::Output(piece) => Told::Output {
                id,
                machine: piece.machine,
                stream: piece.stream,
                offset: piece.offset,
                data: piece.data,
            },
        })
        .await?;
    }
    Ok(())
}

/// The next thing of a feed, however long it takes; `None` when there will be none. That it is refused, or makes no
/// sense, is told: nobody else would say that what is shown is old.
async fn next_item(
    feed: &mut Feed,
    id: Option<CommandId>,
    told: &mpsc::Sender<Told>,
) -> Result<Option<FeedItem>, Gone> {
    loop {
        match feed.next().await {
            Ok(item) => return Ok(Some(item)),
            Err(ClientError::Closed) => return Ok(None),
            Err(error @ (ClientError::Refused(_) | ClientError::Malformed(_))) => {
                let problem = error.problem();
                tracing::warn!(code = %problem.code, "feed was refused");
                told.send(Told::Stale { id, problem }).await?;
                sleep(RETRY_REFUSED).await;
            }
            Err(error) => {
                tracing::debug!(error = signalbox_schemas::error::report(&error), "feed failed, tried again");
                sleep(RETRY).await;
            }
        }
    }
}

async fn look_up(
    client: Client,
    tag: u64,
    (on, protected): (String, String),
    told: mpsc::Sender<Told>,
) -> Result<(), Gone> {
    let meant = client.look_up(&on, &protected).await.map_err(|error| error.problem());
    told.send(Told::Meant { tag, meant }).await
}

async fn run(client: Client, tag: u64, draft: Box<Draft>, told: mpsc::Sender<Told>) -> Result<(), Gone> {
    told.send(match client.run(&draft).await {
        Ok(accepted) => Told::Accepted { tag, accepted },
        Err(error) => Told::Refused { tag, problem: error.problem() },
    })
    .await
}

async fn read(client: Client, kind: ListKind, told: mpsc::Sender<Told>) -> Result<(), Gone> {
    let found = client.look(kind).await.map_err(|error| error.problem());
    told.send(Told::Found { kind, found }).await
}

async fn read_range(
    client: Client,
    asked: ReadOutput,
    machine: MachineId,
    told: mpsc::Sender<Told>,
) -> Result<(), Gone> {
    let range = client.read_output(&asked).await.map_err(|error| error.problem());
    let (id, stream, from) = (asked.id, asked.stream, asked.offset);
    told.send(Told::OutputRange { id, machine, stream, from, range }).await
}

/// Writes streams to files, until it is done or to be stopped. `stop` is cancelled when it has ended, too.
async fn write_streams(
    client: Client,
    save: Save,
    told: mpsc::Sender<Told>,
    stop: CancellationToken,
) -> Result<(), Gone> {
    let tag = save.tag;
    let written = save::write(&client, save, &told, &stop).await;
    stop.cancel();
    told.send(match written {
        Ok(saved) => Told::Saved { tag, saved },
        Err(problem) => Told::Refused { tag, problem },
    })
    .await
}

async fn cancel(client: Client, tag: u64, id: CommandId, told: mpsc::Sender<Told>) -> Result<(), Gone> {
    told.send(match client.cancel(id).await {
        Ok(n) => Told::Cancelling { tag, id, n },
        Err(error) => Told::Refused { tag, problem: error.problem() },
    })
    .await
}

async fn steer(
    client: Client,
    tag: u64,
    id: CommandId,
    wish: Steer,
    told: mpsc::Sender<Told>,
) -> Result<(), Gone> {
    told.send(match client.steer(id, wish).await {
        Ok(rollout) => Told::Steered { tag, id, rollout: Box::new(rollout) },
        Err(error) => Told::Refused { tag, problem: error.problem() },
    })
    .await
}

impl Client {
    /// Pauses, resumes or aborts the rollout of a command; answers how it stands.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn steer(&self, id: CommandId, wish: Steer) -> Result<RolloutView, ClientError> {
        Ok(self.change::<_, Steered>(wish.op(), &SteerRollout { id }).await?.rollout)
    }

    /// Cancels a command wherever it has not ended; answers how many runs that are.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cancel(&self, id: CommandId) -> Result<u32, ClientError> {
        Ok(self.change::<_, Cancelling>(op::COMMANDS_CANCEL, &Cancel { id }).await?.cancelling)
    }
}
