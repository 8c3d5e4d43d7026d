//! `/health`: whether this bridge can be asked, and what it has counted. Needs no token.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;

use super::Shared;
use crate::core::now_ms;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    bridge: String,
    caught_up: bool,
    broker: &'static str,
    lease: &'static str,
    warnings: Vec<String>,
    counters: BTreeMap<String, u64>,
}

/// What the whole amounts to: `ending` once the store has failed, `degraded` without a broker, `starting` while streams
/// are read, else `ok`.
fn status(sound: bool, connected: bool, caught_up: bool) -> &'static str {
    match (sound, connected, caught_up) {
        (false, _, _) => "ending",
        (true, false, _) => "degraded",
        (true, true, false) => "starting",
        (true, true, true) => "ok",
    }
}

/// 200 when all is well, else 503, with the same body.
pub(super) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let api = &shared.front.api;
    let connected = api.link().state().borrow().is_connected;
    let caught_up = api.view().is_caught_up();
    let status = status(api.view().is_sound(), connected, caught_up);
    let health = Health {
        status,
        bridge: api.bridge().to_string(),
        caught_up,
        broker: if connected { "connected" } else { "disconnected" },
        lease: if (shared.front.holds_lease)() { "held" } else { "standby" },
        warnings: api.view().warnings(now_ms()),
        counters: api.counters(),
    };
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(health)).into_response()
}

#[cfg(test)]
mod tests {
    use super::status;
    use rstest::rstest;

    #[rstest]
    #[case(true, true, true, "ok")]
    #[case(true, true, false, "starting")]
    #[case(true, false, true, "degraded")]
    #[case(true, false, false, "degraded")]
    #[case(false, true, true, "ending")]
    #[case(false, false, false, "ending")]
    fn a_bridge_that_cannot_be_relied_on_is_not_ok(
        #[case] sound: bool,
        #[case] connected: bool,
        #[case] caught_up: bool,
        #[case] word: &str,
    ) {
        assert_eq!(status(sound, connected, caught_up), word);
    }
}
