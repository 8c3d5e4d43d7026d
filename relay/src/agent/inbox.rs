//! The newest mailbox and whom to believe about it.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use signalbox_link::{Delivery, Message, ReadError, SubscribeError, Subscription};
use signalbox_schemas::{
    id::{CommandId, Sha256},
    limit::{CANCELS, OFFERS},
    mailbox::{Mailbox, Offer},
};
use tokio::time::{Instant, sleep};

use super::{Agent, Done};
use crate::{
    authors::Taken,
    backoff::Backoff,
    clock::unix_ms,
    gate::{Gate, Refusal, Seen},
    journal::Entry,
    nats_link::Nats,
    policy::{self, Policy},
    reconcile::Desired,
};

/// The authors document is asked for at most this often because of an unknown signer: anybody can be one.
const AUTHORS_FOR_STRANGERS: Duration = Duration::from_secs(10);
/// The same while nothing can run without a newer one.
const AUTHORS_WHEN_BEHIND: Duration = Duration::from_secs(1);
/// First and longest wait before something is read again.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Where a mailbox came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// It passed by.
    Live,
    /// It was asked for.
    Read,
    /// It had to wait for its authors document, for this reason.
    Kept(&'static str),
}

/// Whether the mailbox is being read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    No,
    Yes,
    /// And is to be read once more afterwards.
    Again,
}

/// The newest mailbox that was believed, and what is being asked for.
#[derive(Default)]
pub(super) struct Inbox {
    seen: Option<Seen>,
    offers: Vec<(Offer, Desired)>,
    cancels: Vec<CommandId>,
    /// Whether `offers` are those of `seen`: not before the first mailbox of this process.
    is_loaded: bool,
    /// The newest mailbox that needs another authors document first, and why it did not pass.
    kept: Option<(Bytes, &'static str)>,
    /// Sequence of the newest mailbox that passed by or was read.
    sequence: u64,
    reading: Reading,
    was_read: bool,
    reading_authors: bool,
    authors_asked: Option<Instant>,
    /// Settled runs that are still on offer: when that was last answered.
    pub(super) said: HashMap<CommandId, Instant>,
}

impl Inbox {
    pub(super) fn new(seen: Option<(u64, Sha256)>) -> Self {
        let seen = seen.map(|(generation, sha256)| Seen { generation, sha256 });
        Self { seen, ..Self::default() }
    }

    /// Whether the mailbox was read at least once, or is known to be absent.
    pub(super) fn was_read(&self) -> bool {
        self.was_read
    }

    /// Generation of the newest mailbox that was believed; 0 = none.
    pub(super) fn generation(&self) -> u64 {
        self.seen.map_or(0, |seen| seen.generation)
    }

    pub(super) fn desired(&self) -> Vec<Desired> {
        self.offers.iter().map(|(_, desired)| desired.clone()).collect()
    }

    pub(super) fn cancels(&self) -> &[CommandId] {
        &self.cancels
    }

    /// Whether a command is on offer and may run until `now_ms` at least.
    pub(super) fn still_offers(&self, cid: CommandId, now_ms: u64) -> bool {
        let offered = self.offers.iter().map(|(_, desired)| desired).find(|desired| desired.cid == cid);
        offered.is_some_and(|offer| offer.verdict.as_ref().is_ok_and(|work| now_ms < work.spec.expires_at))
    }
}

impl Agent {
    /// Sees that the mailbox is heard of, in the way that is open now, and reads it.
    pub(super) fn hear(&mut self) {
        if self.hearing.asks() {
            self.subscription = None;
            self.read_first();
        } else if self.subscription.is_none() {
            self.subscribe();
        } else {
            self.read_mailbox();
        }
    }

    /// Whom to believe comes first; the mailbox follows.
    fn read_first(&mut self) {
        if self.shelf.held().is_none() {
            self.read_authors();
        } else {
            self.read_mailbox();
        }
    }

    /// Asks to hear of mailboxes; the first read follows on the same connection.
    fn subscribe(&mut self) {
        let nats = self.nats.clone();
        self.jobs.spawn_local(async move { Done::Subscribed(nats.subscribe_mailbox().await) });
    }

    pub(super) fn on_subscribed(&mut self, subscribed: Result<Subscription, SubscribeError>) {
        match subscribed {
            Ok(subscription) => {
                self.subscription = Some(subscription).filter(|_| !self.hearing.asks());
                self.read_first();
            }
            Err(error) => {
                tracing::debug!(%error, "mailbox not subscribed");
                self.hear();
            }
        }
    }

    /// Reads the mailbox; once more after the read that is under way.
    pub(super) fn read_mailbox(&mut self) {
        if self.inbox.reading != Reading::No {
            self.inbox.reading = Reading::Again;
            return;
        }
        self.inbox.reading = Reading::Yes;
        let nats = self.nats.clone();
        self.jobs.spawn_local(async move {
            Done::Mailbox(until_answered(&nats, || nats.read_mailbox(), "mailbox").await)
        });
    }

    pub(super) fn on_mailbox_read(&mut self, found: Option<Message>) {
        let again = std::mem::take(&mut self.inbox.reading) == Reading::Again;
        self.timers.read = Some(Instant::now() + self.hearing.read_every());
        if let Some(message) = found {
            self.inbox.sequence = self.inbox.sequence.max(message.sequence);
            self.consider(message.payload, Source::Read);
        }
        self.inbox.was_read = true;
        self.beat_for_mailbox();
        self.announce();
        if again {
            self.read_mailbox();
        }
    }

    pub(super) fn on_delivery(&mut self, delivery: Option<Delivery>) {
        let Some(delivery) = delivery else {
            // The link was closed; there is nothing more to hear.
            self.subscription = None;
            return;
        };
        if let Some(origin) = delivery.origin() {
            let gap = origin.last_sequence > self.inbox.sequence;
            self.inbox.sequence = self.inbox.sequence.max(origin.sequence);
            if gap {
                self.counters.count("mailbox_gap");
                self.read_mailbox();
            }
        }
        self.consider(delivery.payload, Source::Live);
    }

    fn consider(&mut self, body: Bytes, source: Source) {
        let config = &self.identity.config;
        let gate = Gate {
            ws: &config.ws,
            mid: &config.mid,
            authors: self.shelf.held(),
            seen: self.inbox.seen,
            now_ms: unix_ms(),
        };
        match gate.pass(&body) {
            Ok((mailbox, seen)) => self.take_mailbox(mailbox, seen, source),
            Err(refusal) => {
                let reason = refusal.reason();
                // Keeping it again is not another refusal.
                if source != Source::Kept(reason) && self.counters.count(reason) {
                    let error = signalbox_schemas::error::report(&refusal);
                    tracing::warn!(reason, error, "mailbox not acted on");
                }
                match refusal {
                    Refusal::AuthorsBehind => {
                        // Nothing runs under a version older than the newest mailbox names.
                        self.inbox.offers.clear();
                        self.inbox.is_loaded = false;
                        self.inbox.kept = Some((body, reason));
                        self.ask_for_authors(AUTHORS_WHEN_BEHIND);
                    }
                    Refusal::AuthorsExpired { cancels } => {
                        self.take_cancels(cancels);
                        self.inbox.kept = Some((body, reason));
                        self.ask_for_authors(AUTHORS_FOR_STRANGERS);
                    }
                    Refusal::UnknownSigner => {
                        self.inbox.kept = Some((body, reason));
                        self.ask_for_authors(AUTHORS_FOR_STRANGERS);
                    }
                    Refusal::Signed(_) | Refusal::Older | Refusal::Forked | Refusal::Ahead { .. } => {}
                }
            }
        }
    }

    fn take_mailbox(&mut self, mailbox: Mailbox, seen: Seen, source: Source) {
        self.inbox.kept = None;
        if self.inbox.is_loaded && self.inbox.seen == Some(seen) {
            if source == Source::Live {
                self.counters.count("mailbox_repeated");
            }
            // A look costs little, and this one was asked for in case something was overlooked.
            self.look = true;
            return;
        }
        if self.inbox.seen != Some(seen) {
            self.note(Entry::Mailbox { generation: seen.generation, sha256: seen.sha256 });
        }
        tracing::debug!(generation = seen.generation, offers = mailbox.offers.len(), "mailbox taken");
        self.inbox.seen = Some(seen);
        self.inbox.is_loaded = true;
        self.take_cancels(mailbox.cancels);
        let mut offers = mailbox.offers;
        offers.truncate(OFFERS);
        self.judge(offers);
        self.renew_login(mailbox.jwt);
        self.look = true;
    }

    fn take_cancels(&mut self, mut cancels: Vec<CommandId>) {
        cancels.truncate(CANCELS);
        self.inbox.cancels = cancels;
        self.look = true;
    }

    /// Judges offers; what was judged before under the same authors keeps its verdict.
    fn judge(&mut self, offers: Vec<Offer>) {
        let Some(held) = self.shelf.held() else { return };
        let config = &self.identity.config;
        let policy = Policy {
            ws: &config.ws,
            mid: &config.mid,
            authors: &held.document,
            require_operator_signature: &config.require_operator_signature,
        };
        let before: HashMap<CommandId, (Offer, Desired)> =
            self.inbox.offers.drain(..).map(|entry| (entry.1.cid, entry)).collect();
        for offer in offers {
            let Some(cid) = policy::claimed_id(&offer) else {
                self.counters.count("offer_without_id");
                continue;
            };
            let known = before.get(&cid).filter(|(judged, _)| *judged == offer);
            let verdict =
                known.map_or_else(|| policy::check(&offer, policy), |(_, known)| known.verdict.clone());
            self.inbox.offers.push((offer, Desired { cid, verdict }));
        }
        let offers = &self.inbox.offers;
        self.inbox.said.retain(|cid, _| offers.iter().any(|(_, desired)| desired.cid == *cid));
    }

    /// Takes a renewed login; it is used from the next login on.
    fn renew_login(&mut self, jwt: Option<String>) {
        let Some(jwt) = jwt else { return };
        if let Err(error) = self.identity.login.replace_jwt(&jwt)
            && self.counters.count("login_not_renewed")
        {
            tracing::warn!(%error, "renewed login not taken");
        }
    }

    fn ask_for_authors(&mut self, every: Duration) {
        let now = Instant::now();
        match self.inbox.authors_asked.map(|asked| asked + every).filter(|next| now < *next) {
            Some(next) => self.timers.authors = Some(next),
            None => self.read_authors(),
        }
    }

    pub(super) fn read_authors(&mut self) {
        if std::mem::replace(&mut self.inbox.reading_authors, true) {
            return;
        }
        self.inbox.authors_asked = Some(Instant::now());
        let nats = self.nats.clone();
        self.jobs.spawn_local(async move {
            Done::Authors(until_answered(&nats, || nats.read_authors(), "authors document").await)
        });
    }

    pub(super) fn on_authors_read(&mut self, found: Option<Message>) {
        self.inbox.reading_authors = false;
        match found.map(|message| self.shelf.take(&message.payload)) {
            Some(Ok(Taken::Newer)) => {
                tracing::info!(version = self.shelf.version(), "authors document taken");
                // Verdicts under the former document count no more.
                let offers: Vec<Offer> = self.inbox.offers.drain(..).map(|(offer, _)| offer).collect();
                self.judge(offers);
                self.look = true;
            }
            Some(Ok(Taken::NotNewer)) => {}
            None => {
                self.counters.count("authors_absent");
            }
            Some(Err(error)) => {
                if self.counters.count("authors_refused") {
                    tracing::warn!(%error, "authors document not believed");
                }
            }
        }
        if !self.inbox.was_read && self.inbox.reading == Reading::No {
            self.read_mailbox();
        }
        self.consider_kept();
    }

    fn consider_kept(&mut self) {
        if let Some((body, reason)) = self.inbox.kept.take() {
            self.consider(body, Source::Kept(reason));
        }
    }

    /// The machine's clock was set: what was passed over by the former time (as expired, too early, too far ahead or under
    /// authors that had ended) is looked at by the new one. Nobody would say it again.
    pub(super) fn on_clock_set(&mut self) {
        tracing::info!("the clock was set, the mailbox is looked at again");
        self.counters.count("clock_set");
        self.look = true;
        self.consider_kept();
        if self.inbox.was_read {
            self.read_mailbox();
        }
    }
}

/// Asks until there is an answer, waiting for a connection where there is none.
async fn until_answered<F>(nats: &Nats, ask: impl Fn() -> F, what: &'static str) -> Option<Message>
where
    F: Future<Output = Result<Option<Message>, ReadError>>,
{
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        nats.connected().await;
        match ask().await {
            Ok(found) => return found,
            Err(error) => tracing::debug!(%error, what, "not read"),
        }
        sleep(backoff.delay()).await;
    }
}
