//! `/audit`.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::State,
    http::{StatusCode, Uri},
    routing::get,
};

use super::{super::Shared, Answer, At, Paging, Who, json, query};
use crate::api::audit;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/audit", get(list))
}

async fn list(State(shared): At, Extension(caller): Who, uri: Uri) -> Answer {
    let page = query::<Paging>(&uri)?.into();
    Ok(json(StatusCode::OK, &audit::list(&shared.front.api, &caller, &page).await?, None))
}
