//! The routes of the old contract, to the letter where a client can see it.
//!
//! Checks come in the order that clients know: the body is JSON, its members are there, the key is known, its assignment
//! counts; of a body above 1 KiB the key comes first. Identity comes from the key alone: whatever else a request says of itself is not believed.
//!
//! | room | serves |
//! |---|---|
//! | `key` | who is asking |
//! | `body` | what stands in bodies |
//! | `work` | the list of commands, claims, results |
//! | `pace` | how long a poll is held |
//! | `relay` | verification, heartbeats, reports |
//! | `config` | configuration pushes, shared credentials |
//! | `answer` | the shapes of all answers |

mod answer;
mod body;
mod config;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod key;
mod pace;
mod relay;
mod work;

use std::{future::ready, pin::Pin, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{Method, request::Parts},
    response::{IntoResponse as _, Response},
};

use futures_util::FutureExt as _;
use signalbox_schemas::error::{ErrorCode, Problem, report};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{
    answer::{Answer, Refused},
    key::Keys,
    pace::Paces,
};
use super::Shared;

/// What the old routes remember between requests.
#[derive(Default)]
pub(super) struct Legacy {
    paces: Paces,
    keys: Keys,
}

/// Everything that is served, in both spellings where relays and centers never agreed on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Verify,
    Commands,
    Claim,
    Result,
    Heartbeat,
    Status,
    Pushes(Spelling),
    Ack,
    Credentials(Spelling),
}

/// Whose spelling of a route it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// The relays': it names nobody.
    Relay,
    /// The centers': it must name a relay.
    Center,
}

impl Route {
    /// What is at a path. Paths are exact.
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/relay/verify" => Self::Verify,
            "/relay/commands" => Self::Commands,
            "/relay/commands/claim" => Self::Claim,
            "/relay/commands/result" => Self::Result,
            "/relay/heartbeat" => Self::Heartbeat,
            "/relay/status" => Self::Status,
            "/relay/config/pending" => Self::Pushes(Spelling::Relay),
            "/relay/config-pushes" => Self::Pushes(Spelling::Center),
            "/relay/config/ack" | "/relay/config-pushes/ack" => Self::Ack,
            "/relay/credentials/shared" => Self::Credentials(Spelling::Relay),
            "/relay/shared-credentials" => Self::Credentials(Spelling::Center),
            _ => return None,
        })
    }

    fn method(self) -> Method {
        match self {
            Self::Commands | Self::Pushes(_) | Self::Credentials(_) => Method::GET,
            _ => Method::POST,
        }
    }
}

/// A request on its way to its answer.
type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Serves everything at and below `/relay`. Thousands of polls are held at a time: nothing of a request is kept beside its
/// own future.
pub(super) fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Answering {
    let path = request.uri().path();
    let is_preflight = request.method() == Method::OPTIONS;
    let route = match Route::at(path) {
        Some(_) if is_preflight => return Box::pin(ready(answer::preflight())),
        Some(route) if *request.method() == route.method() => route,
        _ => return Box::pin(ready(answer::no_route(path))),
    };
    let (head, body) = request.into_parts();
    match route {
        Route::Commands => answering(work::list(shared, head)),
        Route::Verify => answering(async move { relay::verify(&shared, &head, body).await }),
        Route::Claim => answering(async move { work::claim(&shared, &head, body).await }),
        Route::Result => answering(async move { result(&shared, head, body).await }),
        Route::Heartbeat => answering(async move { relay::heartbeat(&shared, &head).await }),
        Route::Status => answering(async move { relay::status(&shared, &head, body).await }),
        Route::Pushes(spelling) => answering(async move { config::pushes(&shared, &head, spelling).await }),
        Route::Ack => answering(async move { config::ack(&shared, &head, body).await }),
        Route::Credentials(spelling) => {
            answering(async move { config::credentials(&shared, &head, spelling).await })
        }
    }
}

fn answering(answered: impl Future<Output = Result<Answer, Refused>> + Send + 'static) -> Answering {
    Box::pin(answered.map(|answered| answered.unwrap_or_else(Answer::from).into_response()))
}

/// An old relay sends a result once, and may be gone before it is stored: that does not end with its connection.
async fn result(shared: &Arc<Shared>, head: Parts, body: Body) -> Result<Answer, Refused> {
    let gone = CancellationToken::new();
    let _guard = gone.clone().drop_guard();
    let storing = shared.lasting.spawn({
        let shared = Arc::clone(shared);
        async move { work::result(&shared, &head, body, gone).await }
    });
    storing.await.map_err(|error| {
        warn!(error = report(&error), "a result was not stored to the end");
        Problem::new(ErrorCode::NotAccepted, "the result was not stored for sure; send it again")
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_exact() {
        assert_eq!(Route::at("/relay/commands"), Some(Route::Commands));
        for other in ["/relay/commands/", "/relay", "/relay/", "/relay/Commands", "/relay/commands/claim/x"] {
            assert_eq!(Route::at(other), None, "{other}");
        }
    }
}
