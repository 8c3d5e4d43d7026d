//! Relays without processes: everything of the wire, signatures included, and no child.

use std::{collections::HashSet, sync::Arc};

use anyhow::{Context as _, Result};
use signalbox_link::{Link, Login, Options, Store};
use signalbox_schemas::{
    authors::Authors,
    command::CommandSpec,
    id::{CommandId, MachineToken, Nonce, Sha256, Workspace},
    mailbox::Mailbox,
    run::{Claim, Exit, ExitState, StreamSummary},
    signed::{Signed, SigningKey},
    stream::{DOC, MBOX},
    subject::{FactKind, Subject},
};
use signalbox_testkit::stack::Stack;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::operator::now_ms;

/// Logins under way at once.
const CONNECTING: usize = 64;

/// Relays that run until they are stopped.
#[derive(Default)]
pub(super) struct Fleet {
    relays: JoinSet<()>,
}

impl Fleet {
    /// Connects one relay per name and waits until all of them listen.
    pub(super) async fn connect(&mut self, stack: &Stack, names: &[String]) -> Result<()> {
        let gate = Arc::new(Semaphore::new(CONNECTING));
        let mut listening = JoinSet::new();
        for name in names {
            let (stack, name) = (stack.ready().clone(), name.clone());
            let gate = gate.clone();
            listening.spawn(async move {
                let _place = gate.acquire().await?;
                Relay::connect(&stack, &name).await
            });
        }
        while let Some(relay) = listening.join_next().await {
            let relay = relay??;
            self.relays.spawn(async move {
                if let Err(error) = relay.serve().await {
                    println!("a simulated relay ended: {error:#}");
                }
            });
        }
        Ok(())
    }

    pub(super) async fn stop(mut self) {
        self.relays.shutdown().await;
    }
}

struct Relay {
    link: Link,
    live: signalbox_link::Subscription,
    mid: MachineToken,
    key: SigningKey,
    authors: Authors,
}

impl Relay {
    async fn connect(stack: &signalbox_testkit::stack::Ready, name: &str) -> Result<Self> {
        let dir = stack.state_dir.join("machines").join(name);
        let login = Login::from_creds_file(&dir.join("relay.creds"))?;
        let link = Link::connect(Options::relay(&stack.nats, name, login)).await?;
        let seed = std::fs::read_to_string(dir.join("signing.seed"))?;
        let key = SigningKey::from_seed(&seed).context("reading a seed")?;
        let live = link.subscribe(&format!("live.mbox.main.{name}")).await?;
        link.flush().await;
        let doc = link.last(DOC, "doc.main.authors").await?.context("no authors document")?;
        let fleet = std::fs::read_to_string(stack.state_dir.join("keys/fleet.seed"))?;
        let fleet = SigningKey::from_seed(&fleet).context("reading a seed")?;
        let authors = Signed::<Authors>::from_json(&doc.payload)?.open(|k| k == fleet.public())?;
        Ok(Self { link, live, mid: MachineToken::new(name)?, key, authors })
    }

    async fn serve(mut self) -> Result<()> {
        let mut started = HashSet::new();
        let stored = self.link.last(MBOX, &format!("mbox.main.{}", self.mid)).await?;
        let mut next = stored.map(|message| message.payload);
        loop {
            let payload = match next.take() {
                Some(payload) => payload,
                None => self.live.next().await.context("the connection is gone")?.payload,
            };
            let mailbox = Signed::<Mailbox>::from_json(&payload)?.open(|k| self.authors.is_bridge(k))?;
            for offer in mailbox.offers {
                let grant = offer.grant.open(|k| self.authors.author(k).is_some())?;
                if grant.spec_sha256 == Sha256::of(&offer.spec.0) && started.insert(grant.cid) {
                    CommandSpec::from_bytes(&offer.spec.0)?;
                    self.answer(grant.cid).await?;
                }
            }
        }
    }

    async fn answer(&self, cid: CommandId) -> Result<()> {
        let (ws, mid, nonce) = (Workspace::main(), self.mid.clone(), Nonce([1; 16]));
        let now = now_ms()?;
        let claim = Claim { ws: ws.clone(), mid: mid.clone(), cid, nonce, claimed_at: now, via: None };
        self.store(cid, FactKind::Claim, Signed::sign(&claim, &self.key)?.to_json()).await?;
        let exit = Exit {
            ws,
            mid,
            cid,
            nonce,
            state: ExitState::Completed,
            exit_code: Some(0),
            signal: None,
            error: None,
            started_at: now,
            duration_ms: 0,
            group_dead: true,
            stdout: StreamSummary::empty(),
            stderr: StreamSummary::empty(),
            chunks: 0,
            inline: None,
            via: None,
        };
        self.store(cid, FactKind::Exit, Signed::sign(&exit, &self.key)?.to_json()).await
    }

    async fn store(&self, cid: CommandId, kind: FactKind, body: Vec<u8>) -> Result<()> {
        let subject = Subject::Run(Workspace::main(), self.mid.clone(), cid, kind).to_string();
        self.link.store(Store::new(subject, body).only_first()).await?;
        Ok(())
    }
}
