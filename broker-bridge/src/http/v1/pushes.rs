//! `/config-pushes`.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{StatusCode, Uri},
    routing::{get, post},
};
use signalbox_schemas::api::AckConfigPush;

use super::{super::Shared, Answer, At, Named, Nothing, Who, body, json, query, same_id};
use crate::api::pushes;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/config-pushes", get(list).post(create))
        .route("/config-pushes/{id}", get(show))
        .route("/config-pushes/{id}/sent", post(sent))
        .route("/config-pushes/{id}/ack", post(ack))
        .route("/config-pushes/{id}/retry", post(retry))
}

async fn list(State(shared): At, Extension(caller): Who, uri: Uri) -> Answer {
    let listed = pushes::list(&shared.front.api, &caller, &query(&uri)?).await?;
    Ok(json(StatusCode::OK, &listed, None))
}

async fn create(State(shared): At, Extension(caller): Who, request: Request) -> Answer {
    query::<Nothing>(request.uri())?;
    let asked = body(request).await?;
    let (made, cursors) = pushes::create(&shared.front.api, &caller, asked).await?;
    Ok(json(StatusCode::CREATED, &made, Some(&cursors)))
}

async fn show(State(shared): At, Extension(caller): Who, Named(id): Named, uri: Uri) -> Answer {
    query::<Nothing>(&uri)?;
    Ok(json(StatusCode::OK, &pushes::get(&shared.front.api, &caller, &id).await?, None))
}

async fn sent(State(shared): At, Extension(caller): Who, Named(id): Named, uri: Uri) -> Answer {
    query::<Nothing>(&uri)?;
    let (push, cursors) = pushes::sent(&shared.front.api, &caller, &id).await?;
    Ok(json(StatusCode::OK, &push, Some(&cursors)))
}

async fn ack(State(shared): At, Extension(caller): Who, Named(id): Named, request: Request) -> Answer {
    query::<Nothing>(request.uri())?;
    let said: AckConfigPush = body(request).await?;
    let said = AckConfigPush { id: same_id(&said.id, id)?, ..said };
    let (push, cursors) = pushes::ack(&shared.front.api, &caller, said).await?;
    Ok(json(StatusCode::OK, &push, Some(&cursors)))
}

async fn retry(State(shared): At, Extension(caller): Who, Named(id): Named, uri: Uri) -> Answer {
    query::<Nothing>(&uri)?;
    let (push, cursors) = pushes::retry(&shared.front.api, &caller, &id).await?;
    Ok(json(StatusCode::OK, &push, Some(&cursors)))
}
