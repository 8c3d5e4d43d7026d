//! `/labels`.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::StatusCode,
    routing::post,
};
use serde::Serialize;
use signalbox_schemas::api::{Labelled, LabelsSet, SetLabels};

use super::{super::Shared, Answer, At, Nothing, Who, body, json, query};
use crate::api::labels;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/labels", post(set))
}

/// The cursor goes into its header.
#[derive(Serialize)]
struct Set {
    machines: Vec<Labelled>,
}

async fn set(State(shared): At, Extension(caller): Who, request: Request) -> Answer {
    query::<Nothing>(request.uri())?;
    let asked: SetLabels = body(request).await?;
    let (LabelsSet { machines, .. }, cursors) = labels::set(&shared.front.api, &caller, asked).await?;
    Ok(json(StatusCode::OK, &Set { machines }, Some(&cursors)))
}
