//! A center that enrols relays gives this machine a login for its API key; from then on it is spoken to by NATS.
//!
//! ```text
//! knock ─▶ keys, on disk ─▶ POST /enroll ─▶ relay.toml, enrolled.json, relay.creds ─▶ NATS ─▶ at half life: POST /enroll again
//! ```
//!
//! | room | holds |
//! |---|---|
//! | `answer` | what a center's answer is worth; pure |
//! | `files` | keys, login and configuration in the store |
//! | `renew` | a new login before the old one ends |
//!
//! The API key stays in memory: a login that has ended is renewed by whoever is handed the key at the next start.

mod answer;
mod files;
mod renew;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use signalbox_link::{Claims, LoginError};
use signalbox_schemas::{
    enrol::{Enrolled, Enrolment, PATH},
    signed::{PublicKey, Signed, SignedError},
};
use tokio::{
    task::{JoinError, spawn_blocking},
    time::sleep,
};

use crate::{
    backoff::Backoff,
    clock::unix_ms,
    config::{Config, ConfigError},
    journal::JournalError,
    legacy_link::{
        has_open_work,
        http::{Center, NoAnswer, StatusCode},
        may_have_open_work,
    },
    lock::{Lock, LockError},
    metrics,
};

use answer::Said;
pub use files::FilesError;
pub(crate) use files::Folder;
use files::Keys;
pub(crate) use renew::{LOOK_EVERY, Renewal};

/// First and longest wait before a center that says nothing is asked again.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_mins(1);
/// Longest host name that is told, bytes.
const HOSTNAME_BYTES: usize = 255;

/// A relay cannot be enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// No answer came. Retryable.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    /// The center is in trouble, or something is wrong that may pass, such as a clock. Retryable.
    #[error("the center answers {status} to an enrolment{}", error.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Trouble {
        /// What it said.
        status: StatusCode,
        /// And why.
        error: Option<String>,
    },
    /// The API key does not count.
    #[error("{0}")]
    Refused(String),
    /// The machine's keys are somebody else's.
    #[error("the center does not take this relay's keys: {0}")]
    Conflict(String),
    /// What it answered cannot be used.
    #[error("the center's answer to an enrolment cannot be used: {0}")]
    Unusable(String),
    /// The center tells another fleet key than the one that this relay trusts.
    #[error(
        "the center's fleet key is {told}, and this relay trusts {trusted} {}: it has become another fleet, or \
         somebody else answers; nothing is taken from it",
        pinned.as_ref().map_or_else(|| "(--fleet-key)".to_owned(), |path| format!("(`{}`)", path.display()))
    )]
    OtherFleet {
        /// What it tells.
        told: PublicKey,
        /// What is trusted.
        trusted: PublicKey,
        /// Where that stands, if not on the command line.
        pinned: Option<PathBuf>,
    },
    /// The store trusts another fleet key than the one that this relay is started with.
    #[error(
        "--fleet-key names {given}, and `{}` trusts {pinned}: leave --fleet-key out, or use another --store-dir",
        path.display()
    )]
    OtherPin {
        /// What the command line says.
        given: PublicKey,
        /// What the store says.
        pinned: PublicKey,
        /// Where.
        path: PathBuf,
    },
    /// The store is another machine's.
    #[error(
        "the API key is for machine `{told}`, and `{}` is for machine `{own}`; use another --store-dir",
        path.display()
    )]
    OtherMachine {
        /// Whose key it is.
        told: String,
        /// Whose store it is.
        own: String,
        /// What says so.
        path: PathBuf,
    },
    /// The files of the store.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The configuration in the store.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store is in use, or cannot be made.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal of what was granted by HTTP cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The enrolment cannot be signed.
    #[error("the enrolment cannot be signed")]
    Sign(#[from] SignedError),
    /// A part of the relay panicked.
    #[error("a job of the relay panicked")]
    Panicked(#[from] JoinError),
}

impl EnrollError {
    /// Whether the same may succeed later.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Trouble { .. })
    }

    /// Whether it may be the word of a center that does not enrol relays, or of a server before it, about a path that it does
    /// not know.
    fn may_mean_unknown(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Unusable(_) => true,
            Self::Trouble { status, .. } => !answer::is_of_this_moment(*status),
            _ => false,
        }
    }
}

impl From<LoginError> for EnrollError {
    fn from(error: LoginError) -> Self {
        Self::Unusable(format!("its token: {error}"))
    }
}

/// What an enrolled relay runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    /// Login file; its neighbours lie beside it.
    pub(crate) creds: PathBuf,
    /// Brokers, separated by commas.
    pub(crate) nats: String,
    /// What the login says.
    pub(crate) claims: Claims,
}

/// What became of a trade.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The store holds a login that counts from now on.
    Enrolled(Ready),
    /// The center knows nothing of it.
    NotKnown,
}

/// How far a relay has come.
#[derive(Debug)]
pub(crate) enum Enrolling {
    /// It is enrolled. With the store's lock, which nobody else has then.
    Done(Ready, Lock),
    /// The center would enrol it, and the store has work that only HTTP can finish. With the store's lock.
    NotYet(Lock),
    /// The center knows nothing of it.
    NotKnown,
}

/// What this relay's owner says about the center.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    /// The fleet key, if it is known beforehand.
    pub(crate) fleet_key: Option<PublicKey>,
}

/// Enrols the relay of a store, for as long as the center does not say no. Not while the store has commands that were
/// granted by HTTP: nobody would tell the center how they ended. With `finished`, the store's lock, that is seen to.
///
/// A store that is enrolled already needs no answer: its login may count for weeks, and is renewed meanwhile.
///
/// # Errors
/// [`EnrollError`], none of which passes by asking again. Where the API key is not good, nothing was made.
pub(crate) async fn enrol(
    center: &Center,
    store: &Path,
    terms: &Terms,
    finished: Option<Lock>,
) -> Result<Enrolling, EnrollError> {
    let folder = Folder::of(store);
    if folder.is_enrolled()? {
        let lock = finished.map_or_else(|| Lock::acquire(store), Ok)?;
        let ready = again(center, store, terms).await?;
        return Ok(Enrolling::Done(ready, lock));
    }
    let is_finished = finished.is_some();
    let mut lock = finished;
    if lock.is_none() && may_have_open_work(store) {
        lock = Some(Lock::acquire(store)?);
    }
    let mut is_open = !is_finished && has_open_work(store, center)?;
    // Until the center has said that it enrols with this key, nothing is made.
    let asked = center.clone();
    if (is_open || !folder.has_keys()?) && !until_told(move || knock(&asked)).await? {
        return Ok(Enrolling::NotKnown);
    }
    let lock = if let Some(lock) = lock {
        lock
    } else {
        let lock = Lock::acquire(store)?;
        // Another relay may have been at work here until now.
        is_open = has_open_work(store, center)?;
        lock
    };
    if is_open {
        return Ok(Enrolling::NotYet(lock));
    }
    let (asked, place, on) = (center.clone(), store.to_owned(), terms.clone());
    match until_told(move || first_trade(&asked, &place, &on)).await? {
        Outcome::Enrolled(ready) => Ok(Enrolling::Done(ready, lock)),
        Outcome::NotKnown => Ok(Enrolling::NotKnown),
    }
}

/// The login of a store that is enrolled: a new one where the center gives it, or else the one that is there.
async fn again(center: &Center, store: &Path, terms: &Terms) -> Result<Ready, EnrollError> {
    // Whatever the center says, and if it says nothing: work would go on under a key that the owner does not mean.
    if let Some(given) = &terms.fleet_key
        && let Some((path, config)) = Folder::of(store).config()?
        && config.fleet_key != *given
    {
        return Err(EnrollError::OtherPin { given: given.clone(), pinned: config.fleet_key, path });
    }
    match trade(center, store, terms).await {
        Ok(Outcome::Enrolled(ready)) => return Ok(ready),
        Ok(Outcome::NotKnown) => {
            tracing::warn!(
                "The center does not enrol relays any more; this one goes on with the login it has"
            );
        }
        // A center that answers nonsense for a while costs an enrolled relay nothing.
        Err(error) if error.is_passing() || matches!(error, EnrollError::Unusable(_)) => {
            tracing::warn!(%error, "The login is not renewed now; this relay goes on with the one it has");
        }
        Err(error) => return Err(error),
    }
    Ok(Folder::of(store).ready()?)
}

/// Trades the API key for a login once. Keys are made, on disk, before the center is asked, and kept whatever it says, so that
/// the next try is about the same ones.
///
/// # Errors
/// [`EnrollError`].
pub(crate) async fn trade(center: &Center, store: &Path, terms: &Terms) -> Result<Outcome, EnrollError> {
    let (center, store, terms) = (center.clone(), store.to_owned(), terms.clone());
    spawn_blocking(move || trade_blocking(&center, &store, &terms)).await?
}

fn trade_blocking(center: &Center, store: &Path, terms: &Terms) -> Result<Outcome, EnrollError> {
    let folder = Folder::of(store);
    let pinned = folder.config()?;
    let keys = folder.keys()?;
    let enrolment = enrolment(&keys, pinned.as_ref().map(|(_, config)| config));
    let body = Signed::sign(&enrolment, &keys.signing)?.to_json();
    let Said::Enrolled(enrolled) = answer::read(&center.post(PATH, &body)?)? else {
        return Ok(Outcome::NotKnown);
    };
    answer::check_fleet(&enrolled, terms.fleet_key.as_ref(), pinned.as_ref())?;
    let login = answer::check(&enrolled, &keys)?;
    if pinned.is_none() && terms.fleet_key.is_none() && !center.is_private() {
        tracing::warn!(
            fleet_key = %enrolled.fleet_key,
            "The fleet key is taken from an answer that anybody on the way could have changed, and is trusted from now on \
             for all that this machine runs: use https, or name the key with --fleet-key"
        );
    }
    folder.keep(&keys, &enrolled)?;
    let Enrolled { machine_id, assignment_id, name, .. } = &*enrolled;
    tracing::info!(%machine_id, assignment_id, name, "Relay enrolled");
    Ok(Outcome::Enrolled(Ready {
        creds: folder.creds(),
        nats: enrolled.nats.join(","),
        claims: login.claims(),
    }))
}

fn enrolment(keys: &Keys, pinned: Option<&Config>) -> Enrolment {
    let mut hostname = metrics::facts().hostname;
    hostname.retain(|letter| !letter.is_control());
    while hostname.len() > HOSTNAME_BYTES {
        hostname.pop();
    }
    Enrolment {
        ws: pinned.map(|config| config.ws.clone()),
        login_key: keys.login.clone(),
        signing_key: keys.signing.public().clone(),
        hostname,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        requested_at: unix_ms(),
        // Unless its owner says otherwise, who brings an API key and no signature may take the machine's work no longer.
        allow_legacy: pinned.is_some_and(|config| config.allow_legacy),
    }
}

/// The trade of a store that is not enrolled. What a center says that may not know of enrolments is not the last word: it is
/// asked by HTTP then whether it knows the key.
fn first_trade(center: &Center, store: &Path, terms: &Terms) -> Result<Outcome, EnrollError> {
    match trade_blocking(center, store, terms) {
        // A clock that is wrong, perhaps: that passes, where the center enrols at all.
        Err(error @ EnrollError::Trouble { .. }) if error.may_mean_unknown() => {
            if knock(center)? {
                Err(error)
            } else {
                Ok(Outcome::NotKnown)
            }
        }
        Err(error) if error.may_mean_unknown() => {
            tracing::warn!(%error, "The center does not enrol this relay");
            Ok(Outcome::NotKnown)
        }
        told => told,
    }
}

/// Whether the center enrols relays, and with this key. Asked without an enrolment, so that nothing need be made for it.
fn knock(center: &Center) -> Result<bool, EnrollError> {
    let error = match answer::read(&center.post_nothing(PATH)?) {
        Ok(Said::NotKnown) => return Ok(false),
        Ok(Said::Enrolled(_)) => EnrollError::Unusable("it enrols whoever sends nothing".to_owned()),
        Err(error) => error,
    };
    if let EnrollError::Trouble { status: StatusCode::BAD_REQUEST, error: Some(text) } = &error
        && *text == SignedError::Envelope.to_string()
    {
        // It takes the key, and misses the enrolment. Nobody else says so in these words.
        return Ok(true);
    }
    if error.may_mean_unknown() {
        tracing::warn!(%error, "The center does not enrol this relay");
        return Ok(false);
    }
    Err(error)
}

/// Asks until there is an answer that says something.
async fn until_told<T: Send + 'static>(
    ask: impl Fn() -> Result<T, EnrollError> + Clone + Send + 'static,
) -> Result<T, EnrollError> {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        match spawn_blocking(ask.clone()).await? {
            Err(error) if error.is_passing() => {
                tracing::warn!(%error, "The center does not enrol this relay yet, and is asked again");
            }
            told => return told,
        }
        sleep(backoff.delay()).await;
    }
}
