//! Operations: one function each, used alike by the NATS front and by HTTP.
//!
//! A front says who is asking ([`Caller`]); everything else (authorisation, validation, what is stored) is
//! decided here, so that no front can allow what another refuses. Every refusal is a [`Problem`].

pub mod assignments;
pub mod audit;
pub mod commands;
pub mod credentials;
pub mod enrol;
pub mod events;
pub mod exec;
mod frozen;
pub mod health;
pub(crate) mod heard;
pub mod history;
pub mod inventory;
pub mod labels;
pub mod machines;
pub mod operators;
pub mod output;
mod page;
pub mod pushes;
mod records;
pub mod relays;
mod replay;
pub mod runs;
pub mod shared;
mod turns;
pub(crate) mod work;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use signalbox_link::Link;
use signalbox_schemas::{
    api::{Request, Target},
    authors::Role,
    error::{ErrorCode, Problem, report},
    id::{BridgeId, OperatorId, Workspace},
    mailbox::Position,
    selector::Selector,
    signed::{PublicKey, Signed, SignedError, SigningKey},
};
use tracing::warn;

use self::{
    replay::{Replay, Unfresh},
    turns::Turns,
};
pub(crate) use crate::core::now_ms;
use crate::{
    broker_link::BrokerLink,
    store::StoreError,
    view::{Cursors, View},
};

/// How long an answer about something unknown waits for the broker to say how far it goes, and then for this bridge to
/// read that. A bridge that is up to date needs microseconds; a client gives up after 5 s.
const READ_THROUGH: Duration = Duration::from_secs(2);
/// How long a write waits to be readable here, so that the next read needs no cursor. Reading one's own write
/// takes about 1 ms; more than this means that the bridge is busy, and the cursor says how to wait.
const OWN_WRITE: Duration = Duration::from_millis(250);

/// Who is asking, as the front has established it.
#[derive(Debug, Clone)]
pub struct Caller {
    principal: String,
    role: Role,
    author: Author,
}

/// In whose name something is stored.
#[derive(Debug, Clone)]
enum Author {
    /// The caller signs for itself, with this key.
    Operator(PublicKey),
    /// The bridge signs, naming the caller.
    Bridge,
}

impl Caller {
    /// Whoever brings the administrators' bearer token.
    pub fn admin_token() -> Self {
        Self { principal: "token:admin".to_owned(), role: Role::Admin, author: Author::Bridge }
    }

    /// `operator:<id>` or `token:<id>`.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Refuses those who may not even look.
    pub(crate) fn may_watch(&self) -> Result<(), Problem> {
        self.require(Role::Viewer, "open a feed")
    }

    /// Refuses those below a role. `doing` says what was being done, such as "cancel a command".
    fn require(&self, least: Role, doing: &str) -> Result<(), Problem> {
        if rank(self.role) >= rank(least) {
            return Ok(());
        }
        let message = format!(
            "cannot {doing}: {} has the role {}, and {} is needed; ask an owner for it",
            self.principal,
            role_name(self.role),
            role_name(least)
        );
        Err(Problem::new(ErrorCode::Forbidden, message))
    }
}

fn rank(role: Role) -> u8 {
    match role {
        Role::Viewer => 0,
        Role::Member => 1,
        Role::Admin => 2,
        Role::Owner => 3,
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Member => "member",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

/// What the operations need to know of this bridge.
pub struct Settings {
    /// Workspace.
    pub ws: Workspace,
    /// This bridge.
    pub bridge: BridgeId,
    /// Signs what comes by HTTP.
    pub key: Arc<SigningKey>,
    /// Key of the hash under which API keys are stored.
    pub pepper: [u8; 32],
}

/// The operations of one bridge.
pub struct Api {
    link: Link,
    operators: Link,
    broker: BrokerLink,
    view: View,
    settings: Settings,
    replay: Mutex<Replay>,
    /// When `replay` began to remember.
    began: Instant,
    counters: Mutex<BTreeMap<String, u64>>,
    /// Changes of one record: over within 4 s.
    edits: Turns,
    /// Submits under one idempotency key.
    submits: Turns,
    /// Results of one run: they wait for a broker that has no room.
    results: Turns,
    told: heard::Told,
    history: history::Readers,
    health: health::Cache,
    frozen: Mutex<frozen::Lists>,
}

impl Api {
    /// The operations over a connection in the account of the bridges and a view of its streams.
    ///
    /// `operators` is a connection of its own for what operators send and hear: a hostile one can make the NATS
    /// client drop it with headers that it cannot parse, and must hurt nobody but operators by that.
    pub fn new(link: Link, operators: Link, view: View, settings: Settings) -> Self {
        let Settings { ws, bridge, key, .. } = &settings;
        let broker = BrokerLink::new(link.clone(), ws.clone(), bridge.clone(), Arc::clone(key));
        Self {
            link,
            operators,
            broker,
            view,
            settings,
            replay: Mutex::default(),
            began: Instant::now(),
            counters: Mutex::default(),
            edits: Turns::default(),
            submits: Turns::default(),
            results: Turns::default(),
            told: heard::Told::default(),
            history: history::Readers::default(),
            health: health::Cache::default(),
            frozen: Mutex::default(),
        }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn operators(&self) -> &Link {
        &self.operators
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    pub(crate) fn ws(&self) -> &Workspace {
        &self.settings.ws
    }

    pub(crate) fn bridge(&self) -> &BridgeId {
        &self.settings.bridge
    }

    /// Counts something under `<front>.<what>`. Callers name both from a fixed set.
    pub(crate) fn count(&self, front: &str, what: &str) {
        self.add(front, what);
    }

    /// Counts a refusal. Answers how many there were of its code when this one is to be logged: those at powers of two,
    /// since anybody who reaches a front can be refused, and a flood must not fill the disk.
    pub(crate) fn refused(&self, front: &str, code: ErrorCode) -> Option<u64> {
        let count = self.add(front, code.as_str());
        count.is_power_of_two().then_some(count)
    }

    fn add(&self, front: &str, what: &str) -> u64 {
        let mut counters = locked(&self.counters);
        let count = counters.entry(format!("{front}.{what}")).or_default();
        *count += 1;
        *count
    }

    /// Everything refused, dropped or doubled by the fronts and by the view, by reason.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = self.view.counters();
        for (name, count) in locked(&self.counters).iter() {
            *counters.entry(name.clone()).or_default() += count;
        }
        counters
    }

    /// Refuses everything that would answer from half-read streams.
    pub(crate) fn ready(&self) -> Result<(), Problem> {
        if self.view.is_caught_up() {
            return Ok(());
        }
        let message = "this bridge is still reading the streams; try again in a moment";
        Err(Problem::new(ErrorCode::NotCaughtUp, message))
    }

    /// The operator whose id the broker put into the subject.
    ///
    /// # Errors
    /// `not_caught_up`, `unauthenticated` when there is no such operator, `forbidden` when the authors document
    /// does not name its key or has expired.
    pub fn operator(&self, id: &OperatorId) -> Result<Caller, Problem> {
        self.ready()?;
        let Some(record) = self.view.operator(id) else {
            let message = format!("operator {id} is not known here; set it up with `signalbox-bridge init`");
            return Err(Problem::new(ErrorCode::Unauthenticated, message));
        };
        let authors = self.view.authors().filter(|authors| authors.is_valid_at(now_ms()));
        let Some(authors) = authors else {
            let message = "there is no valid authors document; issue one with `signalbox-bridge init`";
            return Err(Problem::new(ErrorCode::Forbidden, message));
        };
        let Some(author) = authors.author(&record.signing_key) else {
            let message = format!("the authors document does not name operator {id}; ask an owner to add it");
            return Err(Problem::new(ErrorCode::Forbidden, message));
        };
        Ok(Caller {
            principal: format!("operator:{id}"),
            role: author.role,
            author: Author::Operator(record.signing_key),
        })
    }

    /// Checks an operator's signed request and lets it count once. Answers its arguments.
    ///
    /// # Errors
    /// `forbidden` when the caller may change nothing, somebody else signed it or the signature is wrong, `invalid` when it speaks of
    /// something else or was seen before, `not_caught_up` when it was signed before this bridge began, `rate_limited` when there
    /// are too many to remember.
    pub(crate) fn open_request(
        &self,
        caller: &Caller,
        op: &str,
        signed: &Signed<Request>,
    ) -> Result<serde_json::Value, Problem> {
        // First: who may change nothing must not use up what is remembered of those who may.
        caller.require(Role::Member, &format!("do {op}"))?;
        let doing = |what: String| format!("cannot do {op}: {what}");
        let Author::Operator(key) = &caller.author else {
            return Err(Problem::new(ErrorCode::Forbidden, doing("the caller signs nothing".to_owned())));
        };
        let request = signed.open(|signer| signer == key).map_err(|error| {
            let code = match error {
                SignedError::Untrusted(_) | SignedError::Signature => ErrorCode::Forbidden,
                SignedError::TooLarge { .. } => ErrorCode::TooLarge,
                _ => ErrorCode::Invalid,
            };
            Problem::new(code, doing(format!("{error}; sign it with the key of {}", caller.principal)))
        })?;
        if request.ws != self.settings.ws || request.op != op {
            let what = "the signed request is for another operation or workspace; sign this one".to_owned();
            return Err(Problem::new(ErrorCode::Invalid, doing(what)));
        }
        let up_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let admitted = locked(&self.replay).admit(key, request.nonce, request.issued_at, now_ms(), up_ms);
        let (code, what) = match admitted {
            Ok(()) => return Ok(request.args),
            Err(Unfresh::Skewed) => {
                (ErrorCode::Invalid, "it was issued more than 5 minutes from now; set the clock right")
            }
            // A client that hears this code signs anew, which is soon enough unless its clock is behind.
            Err(Unfresh::Early) => (
                ErrorCode::NotCaughtUp,
                "it was signed before this bridge began to serve; sign it anew, and set the clock right if that is refused too",
            ),
            Err(Unfresh::Repeated) => {
                (ErrorCode::Invalid, "this very request was made before; sign a new one")
            }
            Err(Unfresh::Full) => (
                ErrorCode::RateLimited,
                "there were too many requests of yours, or in all, in ten minutes; try again later",
            ),
        };
        Err(Problem::new(code, doing(what.to_owned())))
    }

    /// The hash under which an API key is known.
    pub(crate) fn hash_key(&self, key: &str) -> Result<String, Problem> {
        assignments::key::hash(&self.settings.pepper, key).map_err(|error| {
            warn!(error = report(&error), "an API key cannot be hashed");
            Problem::new(ErrorCode::NotAccepted, "this bridge cannot look at API keys now; try again")
        })
    }

    /// Waits until this bridge has read everything that a stream holds now. For answers that say «there is no
    /// such thing»: they must not depend on which bridge was asked.
    pub(crate) async fn read_through(&self, stream: &'static str) -> Result<(), Problem> {
        let behind = || {
            let message = "this bridge cannot tell yet, it has not read all there is; try again in a moment";
            Problem::new(ErrorCode::NotCaughtUp, message)
        };
        let asked = tokio::time::timeout(READ_THROUGH, self.link.stream_state(stream)).await;
        let state = asked.map_err(|_| behind())?.map_err(|error| {
            warn!(stream, error = report(&error), "cannot ask how far a stream goes");
            behind()
        })?;
        let end = Cursors::of(stream, Position { created: state.created_ms, sequence: state.last });
        if self.view.reached(&end, READ_THROUGH).await { Ok(()) } else { Err(behind()) }
    }

    /// Reads from the store off the event loop: a list or a command with a thousand runs takes a while.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let view = self.view.clone();
        let done = tokio::task::spawn_blocking(move || read(&view)).await;
        match done {
            Ok(result) => result.map_err(|error| store_problem(&error)),
            Err(error) => {
                warn!(error = report(&error), "a read of the store did not end");
                Err(unreadable())
            }
        }
    }

    /// Machines that a selector means now, for a secret or not.
    ///
    /// # Errors
    /// `invalid` for one that takes too long.
    pub(crate) async fn meant(&self, selector: &Selector, for_secret: bool) -> Result<Vec<Target>, Problem> {
        self.meant_at(selector, for_secret, now_ms()).await
    }

    /// The same by what is known now, looked at from another moment, Unix ms.
    async fn meant_at(
        &self,
        selector: &Selector,
        for_secret: bool,
        now: u64,
    ) -> Result<Vec<Target>, Problem> {
        let selector = selector.clone();
        let read = move |view: &View| {
            Ok(if for_secret { view.select_for_secret(&selector, now) } else { view.select(&selector, now) })
        };
        let meant = self.read(read).await?;
        meant.map_err(|error| {
            Problem::new(ErrorCode::Invalid, format!("cannot resolve the selector: {error}"))
        })
    }

    /// Waits a moment for one's own write to be readable here.
    async fn settle_write(&self, cursors: &Cursors) {
        // Not reached in time is no failure: the cursor goes to the client.
        let _ = self.view.reached(cursors, OWN_WRITE).await;
    }
}

/// A lock whose holder panicked still holds counters and nonces that make sense.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What clients see of a failing store; the rest goes to the log.
pub(crate) fn store_problem(error: &StoreError) -> Problem {
    warn!(error = report(error), "the store cannot be read");
    unreadable()
}

fn unreadable() -> Problem {
    Problem::new(
        ErrorCode::NotCaughtUp,
        "this bridge cannot read its store now; try again, or ask another one",
    )
}
