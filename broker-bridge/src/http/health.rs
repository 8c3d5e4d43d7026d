//! `/health`: whether this bridge can be asked, and what it has counted. Needs no token.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;

use super::Shared;
use crate::{api::health, core::now_ms};

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

/// 200 when all is well, else 503, with the same body.
pub(super) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let api = &shared.front.api;
    let connected = api.link().state().borrow().is_connected;
    let caught_up = api.view().is_caught_up();
    let status = health::status(api);
    let warnings = api.view().warnings(now_ms());
    let health = Health {
        status,
        bridge: api.bridge().to_string(),
        caught_up,
        broker: if connected { "connected" } else { "disconnected" },
        lease: if (shared.front.holds_lease)() { "held" } else { "standby" },
        warnings: warnings
            .into_iter()
            .map(|warning| format!("{}; {}", warning.text, warning.advice))
            .collect(),
        counters: api.counters(),
    };
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(health)).into_response()
}
