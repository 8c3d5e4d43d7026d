//! One relay without processes: everything of the wire, signatures included, and no child.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use signalbox_link::{Link, Store, StoreError, Subscription};
use signalbox_schemas::{
    Base64Url,
    authors::Authors,
    command::CommandSpec,
    heartbeat::Heartbeat,
    id::{CommandId, MachineToken, Nonce, Sha256, Workspace},
    limit,
    mailbox::Mailbox,
    run::{Claim, Exit, ExitState, InlineOutput, StreamSummary},
    signed::{Message, Signed, SigningKey},
    stream::MBOX,
    subject::{FactKind, Subject},
};
use signalbox_testkit::operator::now_ms;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use super::temper::{self, Temper};

/// How often a fact is stored that is not acknowledged.
const ATTEMPTS: u32 = 10;
const MOMENT: Duration = Duration::from_millis(500);
/// One keeper per relay, for ever.
const NONCE: Nonce = Nonce([1; 16]);

/// Where mailboxes come from.
pub(super) enum Mail {
    /// A subscription of its own.
    Own(Subscription),
    /// A connection that many share.
    Shared(mpsc::Receiver<Bytes>),
}

impl Mail {
    async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Own(live) => live.next().await.map(|delivery| delivery.payload),
            Self::Shared(mail) => mail.recv().await,
        }
    }
}

/// Who a relay is; what its runs need of it.
pub(super) struct Identity {
    pub(super) n: usize,
    pub(super) link: Link,
    pub(super) ws: Workspace,
    pub(super) mid: MachineToken,
    pub(super) key: SigningKey,
}

/// A relay that listens.
pub(super) struct Relay {
    pub(super) me: Arc<Identity>,
    pub(super) mail: Mail,
    pub(super) authors: Arc<Authors>,
    pub(super) temper: Temper,
    /// Whether it gives signs of life.
    pub(super) beats: bool,
}

/// What is under way.
#[derive(Default)]
struct Runs {
    /// Offers that were taken up and are still on offer.
    started: HashSet<CommandId>,
    tasks: JoinSet<CommandId>,
    slow: HashMap<CommandId, AbortHandle>,
    generation: u64,
}

impl Relay {
    /// Answers every offer, until the connection is gone.
    pub(super) async fn serve(mut self) -> Result<()> {
        let (started_at, mut beat) = (now_ms()?, 0);
        let mut runs = Runs::default();
        let (mut state, mut connects) = (self.me.link.state(), 0);
        state.mark_changed();
        // The first within a round, so that a fleet which starts together does not beat together.
        let mut next = Instant::now() + round().mul_f64(signalbox_link::random_ratio());
        loop {
            tokio::select! {
                mail = self.mail.next() => {
                    self.reconcile(&mail.context("the connection is gone")?, &mut runs).await?;
                }
                changed = state.changed() => {
                    changed.context("the connection is gone")?;
                    let now = *state.borrow_and_update();
                    // While there was none, mailboxes went by.
                    if now.is_connected && now.connects > connects && self.catch_up(&mut runs).await? {
                        connects = now.connects;
                    }
                }
                Some(ended) = runs.tasks.join_next() => if let Ok(cid) = ended {
                    runs.slow.remove(&cid);
                },
                () = sleep_until(next), if self.beats => {
                    beat += 1;
                    self.beat(beat, started_at, &runs).await?;
                    next += round().mul_f64(0.9 + 0.2 * signalbox_link::random_ratio());
                }
            }
        }
    }

    /// Looks at the stored mailbox. Whether it could.
    async fn catch_up(&self, runs: &mut Runs) -> Result<bool> {
        self.me.link.flush().await;
        let subject = format!("mbox.{}.{}", self.me.ws, self.me.mid);
        for _ in 0..ATTEMPTS {
            match self.me.link.last(MBOX, &subject).await {
                Ok(Some(message)) => return self.reconcile(&message.payload, runs).await.map(|()| true),
                Ok(None) => return Ok(true),
                // A broker that has just started answers a moment later.
                Err(_) => sleep(MOMENT).await,
            }
        }
        Ok(false)
    }

    async fn reconcile(&self, payload: &[u8], runs: &mut Runs) -> Result<()> {
        let mailbox = Signed::<Mailbox>::from_json(payload)?.open(|key| self.authors.is_bridge(key))?;
        if mailbox.generation <= runs.generation {
            return Ok(());
        }
        runs.generation = mailbox.generation;
        for cid in &mailbox.cancels {
            if let Some(slow) = runs.slow.remove(cid) {
                slow.abort();
                self.me.exit(*cid, ExitState::Cancelled, None, Duration::ZERO).await?;
            }
        }
        let mut offered = HashSet::new();
        for offer in mailbox.offers {
            let grant = offer.grant.open(|key| self.authors.author(key).is_some())?;
            offered.insert(grant.cid);
            if grant.spec_sha256 == Sha256::of(&offer.spec.0) && !runs.started.contains(&grant.cid) {
                CommandSpec::from_bytes(&offer.spec.0)?;
                self.take(grant.cid, runs).await?;
            }
        }
        runs.started = offered;
        Ok(())
    }

    async fn take(&self, cid: CommandId, runs: &mut Runs) -> Result<()> {
        if !self.me.claim(cid).await? {
            return Ok(());
        }
        match self.temper {
            Temper::Prompt => self.me.exit(cid, ExitState::Completed, Some(0), Duration::ZERO).await?,
            Temper::Telling(story) => {
                let told = story.text(self.me.n).into_bytes();
                self.me.exit_with(cid, ExitState::Completed, Some(0), Duration::ZERO, told).await?;
            }
            Temper::Failing => self.me.exit(cid, ExitState::Failed, Some(1), Duration::ZERO).await?,
            Temper::Offline => {}
            Temper::Slow(time) => {
                let me = Arc::clone(&self.me);
                let slow = runs.tasks.spawn(async move {
                    sleep(time).await;
                    // Without an exit the bridge calls the run lost, as it should.
                    let _told = me.exit(cid, ExitState::Completed, Some(0), time).await;
                    cid
                });
                runs.slow.insert(cid, slow);
            }
        }
        Ok(())
    }

    async fn beat(&self, beat: u64, started_at: u64, runs: &Runs) -> Result<()> {
        let me = &self.me;
        let heartbeat = Heartbeat {
            ws: me.ws.clone(),
            mid: me.mid.clone(),
            at: now_ms()?,
            relay: env!("CARGO_PKG_VERSION").to_owned(),
            generation: runs.generation,
            authors: self.authors.version,
            running: u32::try_from(runs.slow.len())?,
            outbox: 0,
            started_at,
            counters: BTreeMap::new(),
            facts: temper::facts(me.n, me.mid.as_str()),
            metrics: Some(temper::metrics(me.n, beat)),
            legacy: None,
        };
        let subject = format!("hb.{}.{}", me.ws, me.mid);
        // One that is not sent is followed by another.
        let _sent = me.link.publish(&subject, None, serde_json::to_vec(&heartbeat)?.into()).await;
        Ok(())
    }
}

/// Between two signs of life, about.
fn round() -> Duration {
    Duration::from_millis(limit::HEARTBEAT_MS)
}

impl Identity {
    /// Whether the register is this relay's.
    async fn claim(&self, cid: CommandId) -> Result<bool> {
        let claim = Claim {
            ws: self.ws.clone(),
            mid: self.mid.clone(),
            cid,
            nonce: NONCE,
            claimed_at: now_ms()?,
            via: None,
        };
        self.store(cid, FactKind::Claim, &claim).await
    }

    async fn exit(&self, cid: CommandId, state: ExitState, code: Option<i32>, took: Duration) -> Result<()> {
        let stdout = if took.is_zero() { Vec::new() } else { format!("this is {}\n", self.mid).into_bytes() };
        self.exit_with(cid, state, code, took, stdout).await
    }

    async fn exit_with(
        &self,
        cid: CommandId,
        state: ExitState,
        code: Option<i32>,
        took: Duration,
        stdout: Vec<u8>,
    ) -> Result<()> {
        let summary =
            StreamSummary { bytes: stdout.len() as u64, sha256: Sha256::of(&stdout), truncated: false };
        let inline = InlineOutput { stdout: Base64Url(stdout), stderr: Base64Url::default() };
        let took = u64::try_from(took.as_millis())?;
        let exit = Exit {
            ws: self.ws.clone(),
            mid: self.mid.clone(),
            cid,
            nonce: NONCE,
            state,
            exit_code: code,
            signal: None,
            error: None,
            started_at: now_ms()?.saturating_sub(took),
            duration_ms: took,
            group_dead: true,
            inline: (summary.bytes > 0).then_some(inline),
            stdout: summary,
            stderr: StreamSummary::empty(),
            chunks: 0,
            via: None,
        };
        self.store(cid, FactKind::Exit, &exit).await?;
        Ok(())
    }

    /// Stores a fact. Whether it stands there: of one that was not acknowledged and is there at the next attempt it is
    /// taken for granted.
    async fn store(&self, cid: CommandId, kind: FactKind, fact: &impl Message) -> Result<bool> {
        let subject = Subject::Run(self.ws.clone(), self.mid.clone(), cid, kind).to_string();
        let message = Store::new(subject, Signed::sign(fact, &self.key)?.to_json()).only_first();
        for attempt in 0..ATTEMPTS {
            match self.link.store(message.clone()).await {
                Ok(_) => return Ok(true),
                Err(StoreError::Taken { .. }) => return Ok(attempt > 0),
                Err(error) if error.is_retryable() => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("{cid}: no acknowledgement of a fact, {ATTEMPTS} times")
    }
}
