//! `/credentials`, `/inventory`, `/reach` and `/shared-credentials`.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{StatusCode, Uri},
    routing::get,
};
use signalbox_schemas::api::UpdateSharedCredential;

use super::{super::Shared, Answer, At, Named, Nothing, Paging, Who, body, json, query, same_id};
use crate::api::{credentials, inventory};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/credentials", get(held))
        .route("/inventory", get(kept))
        .route("/reach", get(reach))
        .route("/shared-credentials", get(list).post(create))
        .route("/shared-credentials/{id}", get(show).patch(update).delete(remove))
}

async fn held(State(shared): At, Extension(caller): Who, uri: Uri) -> Answer {
    let listed = credentials::list(&shared.front.api, &caller, &query(&uri)?).await?;
    Ok(json(StatusCode::OK, &listed, None))
}

async fn kept(State(shared): At, Extension(caller): Who, uri: Uri) -> Answer {
    let listed = inventory::list(&shared.front.api, &caller, query(&uri)?).await?;
    Ok(json(StatusCode::OK, &listed, None))
}

async fn reach(State(shared): At, Extension(caller): Who, uri: Uri) -> Answer {
    let listed = inventory::reach(&shared.front.api, &caller, query(&uri)?).await?;
    Ok(json(StatusCode::OK, &listed, None))
}

async fn list(State(shared): At, Extension(caller): Who, uri: Uri) -> Answer {
    let page = query::<Paging>(&uri)?.into();
    let listed = credentials::list_shared(&shared.front.api, &caller, &page)?;
    Ok(json(StatusCode::OK, &listed, None))
}

async fn create(State(shared): At, Extension(caller): Who, request: Request) -> Answer {
    query::<Nothing>(request.uri())?;
    let asked = body(request).await?;
    let (made, cursors) = credentials::create(&shared.front.api, &caller, asked).await?;
    Ok(json(StatusCode::CREATED, &made, Some(&cursors)))
}

async fn show(State(shared): At, Extension(caller): Who, Named(id): Named, uri: Uri) -> Answer {
    query::<Nothing>(&uri)?;
    Ok(json(StatusCode::OK, &credentials::get(&shared.front.api, &caller, &id).await?, None))
}

async fn update(State(shared): At, Extension(caller): Who, Named(id): Named, request: Request) -> Answer {
    query::<Nothing>(request.uri())?;
    let asked: UpdateSharedCredential = body(request).await?;
    let asked = UpdateSharedCredential { id: same_id(&asked.id, id)?, ..asked };
    let (updated, cursors) = credentials::update(&shared.front.api, &caller, asked).await?;
    Ok(json(StatusCode::OK, &updated, Some(&cursors)))
}

async fn remove(State(shared): At, Extension(caller): Who, Named(id): Named, uri: Uri) -> Answer {
    query::<Nothing>(&uri)?;
    let (removed, cursors) = credentials::remove(&shared.front.api, &caller, &id).await?;
    Ok(json(StatusCode::OK, &removed, Some(&cursors)))
}
