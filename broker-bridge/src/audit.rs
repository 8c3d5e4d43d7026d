//! The audit chain (see [`signalbox_schemas::audit`]): what was stored is entered from the streams by the bridge that holds
//! the lease; what was refused, by the bridge that refused it.
//!
//! Nobody waits for an entry. How far the streams have been entered stands in the last entry itself, so a bridge that takes
//! over goes on where the chain ends, and each message is entered once, whoever dies when. One task of a bridge writes to
//! the chain, one entry after the other.
//!
//! | room | holds |
//! |---|---|
//! | [`act`] | what a stored message is, for the audit |
//! | [`chain`] | the end of the chain, and how it grows |
//! | [`source`] | the streams from which is entered |
//! | [`refusals`] | what was refused, until it is entered |

mod act;
mod chain;
pub(crate) mod refusals;
mod source;

use std::{sync::Arc, time::Duration};

use signalbox_link::Message;
use signalbox_schemas::{
    audit::{Entered, Reached},
    error::report,
    mailbox::Position,
};
use tokio::time::{Instant, interval, sleep, sleep_until};
use tracing::{info, warn};

use self::{
    act::Act,
    chain::{Chain, ChainError, complain},
    source::{Read, Sources},
};
use crate::{
    core::{Context, CoreError, Epoch},
    ingest::{FOLLOWED, read_to_end},
    view::Cursors,
};

/// What is asked for over HTTP, where it is refused before it is known what that is.
pub(crate) const HTTP: &str = "http";
/// Pause after a round that has entered all there was: commands come in bursts.
const PAUSE: Duration = Duration::from_millis(250);
/// Pause after something failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How often there is looked for refusals.
const REFUSALS: Duration = Duration::from_secs(5);
/// The last word of a bridge that stops takes no longer.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Part of [`Entered`] that a source moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Doc,
    Kv,
    Specs,
    Cancels,
    Rollouts,
}

impl Part {
    fn of(self, entered: &mut Entered) -> &mut Reached {
        match self {
            Self::Doc => &mut entered.doc,
            Self::Kv => &mut entered.kv,
            Self::Specs => &mut entered.specs,
            Self::Cancels => &mut entered.cancels,
            Self::Rollouts => &mut entered.rollouts,
        }
    }
}

/// Enters what there is to enter, until told to stop.
///
/// # Errors
/// [`CoreError`], when the store cannot be read.
pub(crate) async fn run(context: Context) -> Result<(), CoreError> {
    let mut caught_up = context.shared.caught_up.subscribe();
    let stop = context.stop.clone();
    // Before that it is not known who is a bridge.
    match stop.run_until_cancelled(caught_up.wait_for(|is| *is)).await {
        Some(Ok(_)) => {}
        _ => return Ok(()),
    }
    let late = async {
        stop.cancelled().await;
        sleep(LAST_WORD).await;
    };
    let mut keeper =
        Keeper { context, chain: None, sources: Sources::default(), epoch: None, again: Instant::now() };
    let ended = tokio::select! {
        ended = keeper.work() => Some(ended),
        () = late => None,
    };
    ended.unwrap_or_else(|| {
        warn!("the last refusals may not stand in the audit chain: the broker does not answer");
        Ok(())
    })
}

struct Keeper {
    context: Context,
    chain: Option<Chain>,
    /// Empty while another bridge holds the lease.
    sources: Sources,
    /// The term in which they are read.
    epoch: Option<Epoch>,
    /// When what failed is tried again.
    again: Instant,
}

impl Keeper {
    async fn work(&mut self) -> Result<(), CoreError> {
        let (stop, mut lease) = (self.context.stop.clone(), self.context.lease.clone());
        let mut refusals = interval(REFUSALS);
        loop {
            let held = *lease.borrow_and_update();
            let is_idle = held.is_some() && self.sources.is_empty();
            if held != self.epoch || (is_idle && self.again <= Instant::now()) {
                self.begin(held).await;
            }
            tokio::select! {
                () = stop.cancelled() => return self.refused(true).await,
                _ = lease.changed() => {}
                _ = refusals.tick() => self.refused(false).await?,
                Some(read) = self.sources.next() => self.take(read).await?,
                () = sleep_until(self.again), if is_idle => {}
            }
        }
    }

    /// Begins to read where the chain ends, if this bridge holds the lease.
    async fn begin(&mut self, held: Option<Epoch>) {
        self.sources = Sources::default();
        if let Some(epoch) = held {
            if held != self.epoch {
                info!(epoch = epoch.0, "entering what is done into the audit chain");
                read_to_end(&self.context.shared, &FOLLOWED).await;
            }
            match self.opened().await {
                Ok(()) => {
                    let entered = self.chain.as_ref().map(|chain| *chain.entered()).unwrap_or_default();
                    self.context.shared.audited.send_replace(entered.specs);
                    self.sources = Sources::all(&self.context, &entered);
                }
                Err(error) => self.failed(&error),
            }
        }
        self.epoch = held;
    }

    /// All of it begins again in a moment, where the chain ends by then: its stream may be another, or have lost its end.
    fn failed(&mut self, error: &ChainError) {
        complain(&self.context, error);
        self.chain = None;
        self.sources = Sources::default();
        self.again = Instant::now() + AGAIN;
    }

    /// Sees that it is known where the chain ends.
    async fn opened(&mut self) -> Result<(), ChainError> {
        if self.chain.is_none() {
            self.context.broker.ensure_streams().await?;
            self.chain = Some(Chain::open(&self.context).await?);
        }
        Ok(())
    }

    /// Enters what one source has given. When that fails, all of them begin again where the chain ends.
    async fn take(&mut self, read: Read) -> Result<(), CoreError> {
        let Read { source, messages } = read;
        let part = source.part();
        let messages = match messages {
            Ok(messages) => messages,
            Err(error) => {
                warn!(error = report(&error), "a stream is read for the audit from where it can be");
                if source::is_another(&error)
                    && let Some(chain) = &mut self.chain
                {
                    chain.forget(part);
                }
                self.sources = Sources::default();
                self.again = Instant::now() + AGAIN;
                return Ok(());
            }
        };
        let is_all = messages.len() < source::BATCH;
        match self.enter(source.created(), part, messages).await? {
            Ok(()) => self.sources.go_on(source),
            // Behind what another bridge has entered, at once.
            Err(ChainError::Entered) => self.sources = Sources::default(),
            Err(error) => self.failed(&error),
        }
        if is_all {
            sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn enter(
        &mut self,
        created: u64,
        part: Part,
        messages: Vec<Message>,
    ) -> Result<Result<(), ChainError>, CoreError> {
        let Some(last) = messages.last() else { return Ok(Ok(())) };
        // Whether it counts is known to who has read it.
        let read = Cursors::of(&last.stream, Position { created, sequence: last.sequence });
        let mut cursors = self.context.shared.cursors.subscribe();
        if cursors.wait_for(|cursors| cursors.cover(&read)).await.is_err() {
            return Ok(Ok(()));
        }
        let shared = Arc::clone(&self.context.shared);
        let acts = tokio::task::spawn_blocking(move || {
            let act = |message: Message| {
                let (sequence, stored_at) = (message.sequence, message.time_ms);
                Act::of(&shared, &message).map(|act| (act, Reached { created, sequence, stored_at }))
            };
            messages.into_iter().map(act).collect::<Result<Vec<_>, _>>()
        });
        let acts = acts.await.map_err(|_| CoreError::Ended("audit"))??;
        let Some(chain) = &mut self.chain else { return Ok(Ok(())) };
        for (act, reached) in acts {
            match act {
                None => chain.pass(part, reached),
                Some(act) => {
                    if let Err(error) = chain.append(&self.context, &act, (part, reached)).await {
                        return Ok(Err(error));
                    }
                }
            }
        }
        let specs = chain.entered().specs;
        self.context.shared.audited.send_replace(specs);
        Ok(Ok(()))
    }

    /// Enters what was refused here; at the end all of it.
    async fn refused(&mut self, is_end: bool) -> Result<(), CoreError> {
        let due = self.context.shared.refusals.due(Instant::now(), is_end);
        for (refusal, times) in due {
            let entered = match self.opened().await {
                Ok(()) => match &mut self.chain {
                    Some(chain) => chain.append_refused(&self.context, &Act::refused(&refusal, times)).await,
                    None => return Ok(()),
                },
                Err(error) => Err(error),
            };
            match entered {
                Ok(()) => self.context.shared.refusals.entered(&refusal, times, Instant::now()),
                Err(error) => {
                    self.failed(&error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
