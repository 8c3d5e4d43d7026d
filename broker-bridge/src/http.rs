//! The HTTP front: the same operations as over NATS, for applications.
//!
//! Binding is the caller's business. Every request has bounds: connections, the time for its head and its
//! body, the size of its body, the time of a long poll.

mod auth;
mod bodies;
mod brokers;
mod connection;
mod enroll;
mod health;
mod legacy;
#[cfg(fuzzing)]
pub(crate) use self::legacy::fuzzing;
mod problem;
mod v1;

use std::{future::IntoFuture as _, panic::AssertUnwindSafe, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    http::Method,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{any, get, post},
};
use futures_util::FutureExt as _;
use signalbox_schemas::{enrol, error::ErrorCode};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, info};

pub use self::brokers::Brokers;
use self::{
    bodies::Bodies,
    connection::{Bounded, Pace, Patience},
    problem::Refusal,
};
use crate::{
    api::{Api, enrol::Enroller},
    audit::HTTP,
};

/// After a stop, connections that are not done by then are dropped.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Who was refused, as the audit has it.
const NOBODY: &str = "nobody";
/// Longest path that is logged, characters.
const LOGGED_PATH: usize = 128;

/// The front is broken.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The listener failed for good. Not retryable.
    #[error("cannot serve HTTP")]
    Serve(#[source] std::io::Error),
}

/// What the front needs.
pub struct Front {
    /// The operations.
    pub api: Arc<Api>,
    /// The administrators' bearer token.
    pub admin_token: String,
    /// What enrols relays that bring an API key; absent: they are told that nobody does.
    pub enroller: Option<(Enroller, Brokers)>,
    /// Whether this bridge dispatches now.
    pub holds_lease: Box<dyn Fn() -> bool + Send + Sync>,
    /// A directory for bodies that are too large for memory.
    pub spool: PathBuf,
}

/// Shared by all requests.
struct Shared {
    front: Front,
    bodies: Bodies,
    legacy: legacy::Legacy,
    /// Requests that do not end with their connection.
    lasting: TaskTracker,
    stop: CancellationToken,
}

impl Shared {
    fn new(front: Front, stop: CancellationToken) -> Arc<Self> {
        let bodies = Bodies::new(front.spool.clone());
        let legacy = legacy::Legacy::default();
        Arc::new(Self { front, bodies, legacy, lasting: TaskTracker::new(), stop })
    }
}

/// Serves until `stop`, then ends within a second. Long polls are answered at once when it stops.
///
/// # Errors
/// [`HttpError`] when the listener fails.
pub async fn serve(listener: TcpListener, front: Front, stop: CancellationToken) -> Result<(), HttpError> {
    let shared = Shared::new(front, stop.clone());
    let api = Arc::clone(&shared.front.api);
    let refused = Arc::new(move |code| {
        if let Some(count) = api.refused("http", code) {
            info!(%code, count, "request refused: its head cannot be read");
        }
    });
    let service = router(Arc::clone(&shared)).into_make_service_with_connect_info::<Pace>();
    let serving = axum::serve(Bounded::new(listener, Patience::default(), refused), service)
        .with_graceful_shutdown(stop.clone().cancelled_owned())
        .into_future();
    let serving = async {
        serving.await.map_err(HttpError::Serve)?;
        shared.lasting.close();
        shared.lasting.wait().await;
        Ok(())
    };
    tokio::select! {
        served = serving => served,
        () = async { stop.cancelled().await; tokio::time::sleep(STOP_GRACE).await } => Ok(()),
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let v1 = Router::new()
        .route("/machines", get(v1::machines))
        .route("/commands", get(v1::list).post(v1::submit))
        .route("/commands/{id}", get(v1::show))
        .route("/commands/{id}/wait", get(v1::wait))
        .route("/commands/{id}/output", get(v1::output))
        .route("/commands/{id}/cancel", post(v1::cancel))
        .route("/commands/{id}/pause", post(v1::pause))
        .route("/commands/{id}/resume", post(v1::resume))
        .route("/commands/{id}/abort", post(v1::abort))
        .merge(v1::rooms())
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&shared), v1::after_cursor))
        .layer(from_fn_with_state(Arc::clone(&shared), auth::require));
    let router = Router::new()
        .route("/health", get(health::health))
        .route(enrol::PATH, post(enroll::enroll))
        .nest("/api/v1", v1)
        .route("/relay", any(legacy::serve))
        .route("/relay/", any(legacy::serve))
        .route("/relay/{*path}", any(legacy::serve))
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed);
    guarded(router, shared)
}

/// What surrounds every request: one layer, since each costs a held poll as much as the poll itself.
fn guarded(router: Router<Arc<Shared>>, shared: Arc<Shared>) -> Router {
    router.layer(from_fn_with_state(Arc::clone(&shared), surround)).with_state(shared)
}

async fn no_such_path() -> Refusal {
    Refusal::no_such_path()
}

async fn method_not_allowed() -> Refusal {
    Refusal::method_not_allowed()
}

/// Tells the connection that it is not idle. Answers also when a handler panics: the client would see a broken connection,
/// and nobody a count.
async fn surround(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(pace): ConnectInfo<Pace>,
    request: Request,
    next: Next,
) -> Response {
    let _guard = pace.begin();
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(LOGGED_PATH).collect();
    // What a request has changed lies behind locks that go on when their holder panicked.
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = answered.unwrap_or_else(|_| {
        shared.front.api.count("http", "panicked");
        error!(path, "a request panicked");
        Refusal::panicked().into_response()
    });
    account(&shared, &method, &path, &response);
    response
}

/// Counts refusals, and logs few of them.
fn account(shared: &Shared, method: &Method, path: &str, response: &Response) {
    let Some(code) = response.extensions().get::<ErrorCode>() else { return };
    let status = response.status().as_u16();
    // Who brings no key that counts is nobody.
    shared.front.api.view().shared().refusals.add(NOBODY, HTTP, *code);
    if let Some(count) = shared.front.api.refused("http", *code) {
        info!(%method, path, status, %code, count, "request refused");
    } else {
        debug!(%method, path, status, %code, "request refused");
    }
}

#[cfg(test)]
mod tests {
    use signalbox_testkit::http::Http;
    use tokio::task::JoinSet;

    use super::*;
    use crate::core::still::Still;

    fn front(api: &Arc<Api>) -> Front {
        Front {
            api: Arc::clone(api),
            admin_token: "t".to_owned(),
            enroller: None,
            holds_lease: Box::new(|| false),
            spool: std::env::temp_dir(),
        }
    }

    #[tokio::test]
    async fn a_held_poll_is_small() {
        let still = Still::start().await.unwrap();
        let shared = Shared::new(front(&still.api()), CancellationToken::new());
        let request = Request::get("/relay/commands").body(axum::body::Body::empty()).unwrap();
        let held = size_of_val(&*legacy::serve(State(shared), request));
        assert!(held <= 768, "its future takes {held} bytes");
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_counted() {
        let still = Still::start().await.unwrap();
        let api = still.api();
        let shared = Shared::new(front(&api), CancellationToken::new());
        let panics = || async {
            assert!(std::hint::black_box(false), "as it shall");
            "never"
        };
        let router = guarded(Router::new().route("/panics", get(panics)), shared);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = Http::new(&format!("http://{}", listener.local_addr().unwrap()), "t");
        let bounded = Bounded::new(listener, Patience::default(), Arc::new(|_| {}));
        let mut tasks = JoinSet::new();
        let service = router.into_make_service_with_connect_info::<Pace>();
        tasks.spawn(async move { axum::serve(bounded, service).into_future().await.unwrap() });
        let answer = http.get("/panics").await.unwrap();
        let problem = answer.json().unwrap();
        assert_eq!((answer.status, &problem["code"]), (500, &"not_accepted".into()), "{problem}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let counters = api.counters();
        assert_eq!((counters.get("http.panicked"), counters.get("http.not_accepted")), (Some(&1), Some(&1)));
    }
}
