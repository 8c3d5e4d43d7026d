//! Simulated relays, thousands in one process: with a connection each, or all on one.

mod relay;
pub(crate) mod temper;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use signalbox_link::{Link, Login, Options};
use signalbox_schemas::{
    authors::Authors,
    id::{MachineToken, Workspace},
    layout::{Layout, SIGNING_SEED},
    signed::{PublicKey, Signed, SigningKey},
    stream::DOC,
};
use signalbox_testkit::{eventually, stack::Ready};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use relay::{Identity, Mail, Relay};
use temper::Temper;

/// Logins under way at once.
const CONNECTING: usize = 64;
/// Mailboxes that wait for one relay on a shared connection; only the newest counts, but each is looked at.
const WAITING: usize = 64;
/// Messages that wait on the shared connection.
const SHARED_WAITING: usize = 65_536;

/// What the relays of a fleet are like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nature {
    pub(crate) temper: fn(usize) -> Temper,
    /// Whether they give signs of life.
    pub(crate) beats: bool,
}

impl Nature {
    /// Everything ends at once, and nothing else is said.
    pub(crate) const SILENT: Self = Self { temper: |_| Temper::Prompt, beats: false };
    /// The same, with signs of life.
    pub(crate) const BEATING: Self = Self { beats: true, ..Self::SILENT };
    /// 10 KB of output each.
    pub(crate) const TELLING: Self = Self { temper: temper::telling, beats: false };
    /// As a fleet is, where commands tell something.
    pub(crate) const SHOWN: Self = Self { temper: temper::shown, beats: true };
    /// As a fleet is.
    pub(crate) const LIVELY: Self = Self { temper: temper::lively, beats: true };
}

/// Relays that run until they are stopped.
#[derive(Default)]
pub(crate) struct Fleet {
    relays: JoinSet<()>,
    links: Vec<Link>,
    ended: Arc<AtomicUsize>,
    /// How long each took to listen.
    pub(crate) logins: Vec<Duration>,
}

impl Fleet {
    /// Connects one relay per name and waits until all of them listen. Those that are offline are left out.
    pub(crate) async fn connect(&mut self, ready: &Ready, names: &[String], nature: Nature) -> Result<()> {
        let gate = Arc::new(Semaphore::new(CONNECTING));
        let known = Arc::new(Known::read(ready)?);
        let mut listening = JoinSet::new();
        for (n, name) in names.iter().enumerate() {
            let temper = (nature.temper)(n);
            if temper == Temper::Offline {
                continue;
            }
            let (known, name, gate) = (Arc::clone(&known), name.clone(), Arc::clone(&gate));
            listening.spawn(async move {
                let _place = gate.acquire().await?;
                let since = Instant::now();
                let (me, mail) = known.login(n, &name).await?;
                let authors = Arc::new(known.authors(&me.link).await?);
                let relay = Relay { me: Arc::new(me), mail, authors, temper, beats: nature.beats };
                anyhow::Ok((relay, since.elapsed()))
            });
        }
        while let Some(relay) = listening.join_next().await {
            let (relay, took) = relay??;
            self.logins.push(took);
            self.links.push(relay.me.link.clone());
            self.serve(relay);
        }
        Ok(())
    }

    /// The same on one connection that may do everything, for more relays than there are descriptors.
    pub(crate) async fn share(&mut self, ready: &Ready, names: &[String], nature: Nature) -> Result<()> {
        let known = Known::read(ready)?;
        let login = Login::from_creds_file(&ready.ctrl_creds)?;
        let options =
            Options { subscription_capacity: SHARED_WAITING, ..Options::bridge(&ready.nats, login) };
        let link = Link::connect(options).await?;
        let mut live = link.subscribe("live.mbox.main.*").await?;
        link.flush().await;
        let authors = Arc::new(known.authors(&link).await?);
        let mut boxes: HashMap<String, mpsc::Sender<Bytes>> = HashMap::new();
        for (n, name) in names.iter().enumerate() {
            let temper = (nature.temper)(n);
            if temper == Temper::Offline {
                continue;
            }
            let (sender, mail) = mpsc::channel(WAITING);
            boxes.insert(format!("live.mbox.main.{name}"), sender);
            let me = Arc::new(known.identity(n, name, link.clone())?);
            let (mail, authors) = (Mail::Shared(mail), Arc::clone(&authors));
            self.serve(Relay { me, mail, authors, temper, beats: nature.beats });
        }
        self.links.push(link);
        self.relays.spawn(async move {
            while let Some(delivery) = live.next().await {
                if let Some(relay) = boxes.get(&delivery.subject) {
                    // Full only for one that hangs: it has the newer ones to look at anyway.
                    let _waits = relay.try_send(delivery.payload);
                }
            }
        });
        Ok(())
    }

    fn serve(&mut self, relay: Relay) {
        let ended = Arc::clone(&self.ended);
        self.relays.spawn(async move {
            if relay.serve().await.is_err() {
                ended.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// How often the connections were made, the least of all; 1 = nothing was broken.
    pub(crate) fn least_connects(&self) -> u64 {
        let connects = |link: &Link| {
            let state = *link.state().borrow();
            if state.is_connected { state.connects } else { 0 }
        };
        self.links.iter().map(connects).min().unwrap_or(0)
    }

    /// That no relay has met an error and no message went by unseen.
    pub(crate) fn is_well(&self) -> Result<()> {
        let ended = self.ended.load(Ordering::Relaxed);
        ensure!(ended == 0, "{ended} simulated relays ended with an error");
        let slow: u64 = self.links.iter().map(|link| link.counters().slow_messages).sum();
        ensure!(slow == 0, "{slow} mailboxes went by unseen");
        Ok(())
    }

    pub(crate) async fn stop(mut self) {
        self.relays.shutdown().await;
    }
}

/// What every relay has of its center.
struct Known {
    nats: String,
    layout: Layout,
    fleet: PublicKey,
}

impl Known {
    fn read(ready: &Ready) -> Result<Self> {
        let layout = Layout::new(&ready.state_dir);
        let fleet = seed(&layout.seed("fleet"))?.public().clone();
        Ok(Self { nats: ready.nats.clone(), layout, fleet })
    }

    async fn login(&self, n: usize, name: &str) -> Result<(Identity, Mail)> {
        let login = Login::from_creds_file(&self.layout.relay_creds(&MachineToken::new(name)?))?;
        let link = Link::connect(Options::relay(&self.nats, name, login)).await?;
        let live = link.subscribe(&format!("live.mbox.main.{name}")).await?;
        link.flush().await;
        Ok((self.identity(n, name, link)?, Mail::Own(live)))
    }

    fn identity(&self, n: usize, name: &str, link: Link) -> Result<Identity> {
        let mid = MachineToken::new(name)?;
        let key = seed(&self.layout.machine_dir(&mid).join(SIGNING_SEED))?;
        Ok(Identity { n, link, ws: Workspace::main(), mid, key })
    }

    async fn authors(&self, link: &Link) -> Result<Authors> {
        // A broker that has just started answers a moment later; relays ask again too.
        let doc = eventually("the authors document", || async {
            link.last(DOC, "doc.main.authors").await?.context("there is none")
        })
        .await?;
        Ok(Signed::<Authors>::from_json(&doc.payload)?.open(|key| *key == self.fleet)?)
    }
}

/// A key of the state directory.
pub(crate) fn seed(path: &Path) -> Result<SigningKey> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    SigningKey::from_seed(&text).with_context(|| format!("reading {}", path.display()))
}
