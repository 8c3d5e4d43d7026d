//! Until the center knows this relay: for as long as it does not say no.

use std::{path::Path, time::Duration};

use tokio::{
    task::{JoinError, spawn_blocking},
    time::sleep,
};

use super::{
    LinkError,
    http::Center,
    wire::{Verdict, Verify, verdict},
};
use crate::{
    backoff::Backoff,
    enroll::{EnrollError, Enrolling, Ready, Terms, enrol},
    legacy_args::Transport,
    lock::Lock,
};

/// First and longest wait before a center that says nothing is asked again.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// What the center says of this relay.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) relay_id: String,
    pub(super) machine_id: String,
    pub(super) name: String,
}

/// How this relay works for the center from now on.
#[derive(Debug)]
pub(super) enum Introduced {
    /// By HTTP, as this relay.
    Known(Known),
    /// By HTTP until all that was granted before is finished, with the store's lock; then it is to be introduced again.
    Finishing(Known, Lock),
    /// By NATS, with this login and the store's lock.
    Enrolled(Ready, Lock),
}

/// Asks the center who this relay is. A center that is down now is up later. `finished`: the store's lock, when everything
/// that was granted before is finished as far as it can be.
///
/// # Errors
/// [`LinkError::Refused`] when it says that the key is not good; [`LinkError::Enroll`].
pub(super) async fn introduce(
    center: &Center,
    transport: Transport,
    store: &Path,
    terms: &Terms,
    finished: Option<Lock>,
) -> Result<Introduced, LinkError> {
    let mut open_work = None;
    if transport == Transport::Auto {
        match enrol(center, store, terms, finished).await {
            Ok(Enrolling::Done(ready, lock)) => return Ok(Introduced::Enrolled(ready, lock)),
            Ok(Enrolling::NotYet(lock)) => open_work = Some(lock),
            Ok(Enrolling::NotKnown) => tracing::debug!("The center does not enrol relays"),
            Err(EnrollError::Refused(error)) => return Err(LinkError::Refused(error)),
            Err(error) => return Err(error.into()),
        }
    }
    match until_known(center, verify).await? {
        Verdict::Valid { relay_id, machine_id, name } => {
            let known = Known { relay_id, machine_id, name };
            Ok(match open_work {
                Some(lock) => Introduced::Finishing(known, lock),
                None => Introduced::Known(known),
            })
        }
        Verdict::Invalid(error) | Verdict::Unclear(error) => Err(LinkError::Refused(error)),
    }
}

fn verify(center: &Center) -> Result<Verdict, String> {
    // A string always has a JSON form.
    let body = serde_json::to_vec(&Verify { api_key: center.key().reveal() }).unwrap_or_default();
    let answer = center.post_unknown("/relay/verify", &body).map_err(|error| error.to_string())?;
    match verdict(&answer) {
        Verdict::Unclear(what) => Err(format!("verification was answered with {what}")),
        known => Ok(known),
    }
}

/// Asks until there is an answer that says something.
async fn until_known<T: Send + 'static>(
    center: &Center,
    ask: fn(&Center) -> Result<T, String>,
) -> Result<T, JoinError> {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        let asked = center.clone();
        match spawn_blocking(move || ask(&asked)).await? {
            Ok(known) => return Ok(known),
            Err(error) => {
                tracing::warn!(error, "The center does not know this relay yet, and is asked again");
            }
        }
        sleep(backoff.delay()).await;
    }
}
