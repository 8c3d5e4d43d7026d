//! `/assignments`.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{StatusCode, Uri},
    routing::{get, post},
};
use serde::Deserialize;
use signalbox_schemas::api::{RemoveAssignment, UpdateAssignment};

use super::{super::Shared, Answer, At, Named, Nothing, Who, body, json, query, same_id};
use crate::api::assignments;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/assignments", get(list).post(create))
        .route("/assignments/{id}", get(show).patch(update).delete(remove))
        .route("/assignments/{id}/heartbeat", post(heartbeat))
}

async fn list(State(shared): At, Extension(caller): Who, uri: Uri) -> Answer {
    let listed = assignments::list(&shared.front.api, &caller, &query(&uri)?)?;
    Ok(json(StatusCode::OK, &listed, None))
}

async fn create(State(shared): At, Extension(caller): Who, request: Request) -> Answer {
    query::<Nothing>(request.uri())?;
    let asked = body(request).await?;
    let (assigned, cursors) = assignments::create_keyed(&shared.front.api, &caller, asked).await?;
    Ok(json(StatusCode::CREATED, &assigned, Some(&cursors)))
}

async fn show(State(shared): At, Extension(caller): Who, Named(id): Named, uri: Uri) -> Answer {
    query::<Nothing>(&uri)?;
    Ok(json(StatusCode::OK, &assignments::get(&shared.front.api, &caller, &id).await?, None))
}

async fn update(State(shared): At, Extension(caller): Who, Named(id): Named, request: Request) -> Answer {
    query::<Nothing>(request.uri())?;
    let asked: UpdateAssignment = body(request).await?;
    let asked = UpdateAssignment { id: same_id(&asked.id, id)?, ..asked };
    let (updated, cursors) = assignments::update(&shared.front.api, &caller, asked).await?;
    Ok(json(StatusCode::OK, &updated, Some(&cursors)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Removing {
    #[serde(default)]
    cascade: bool,
}

async fn remove(State(shared): At, Extension(caller): Who, Named(id): Named, uri: Uri) -> Answer {
    let Removing { cascade } = query(&uri)?;
    let asked = RemoveAssignment { id, cascade };
    let (removed, cursors) = assignments::remove(&shared.front.api, &caller, asked).await?;
    Ok(json(StatusCode::OK, &removed, Some(&cursors)))
}

async fn heartbeat(State(shared): At, Extension(caller): Who, Named(id): Named, uri: Uri) -> Answer {
    query::<Nothing>(&uri)?;
    let assignment = assignments::heartbeat(&shared.front.api, &caller, &id).await?;
    Ok(json(StatusCode::OK, &assignment, None))
}
