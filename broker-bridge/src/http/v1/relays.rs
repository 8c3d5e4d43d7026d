//! `/relays`: by assignment.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{StatusCode, Uri},
    routing::{get, post},
};
use signalbox_schemas::api::{ListCredentials, Report};

use super::{super::Shared, Answer, At, Named, Nothing, Paging, Who, body, json, query, same_id};
use crate::api::{credentials, relays};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/relays", get(list))
        .route("/relays/{id}", get(show))
        .route("/relays/{id}/report", post(report))
        .route("/relays/{id}/credentials", get(held))
        .route("/relays/{id}/shared-credentials", get(shared_with))
}

async fn list(State(shared): At, Extension(caller): Who, uri: Uri) -> Answer {
    let listed = relays::list(&shared.front.api, &caller, &query(&uri)?)?;
    Ok(json(StatusCode::OK, &listed, None))
}

async fn show(State(shared): At, Extension(caller): Who, Named(id): Named, uri: Uri) -> Answer {
    query::<Nothing>(&uri)?;
    Ok(json(StatusCode::OK, &relays::get(&shared.front.api, &caller, &id).await?, None))
}

async fn report(State(shared): At, Extension(caller): Who, Named(id): Named, request: Request) -> Answer {
    query::<Nothing>(request.uri())?;
    let said: Report = body(request).await?;
    let said = Report { id: same_id(&said.id, id)?, ..said };
    let (reported, cursors) = relays::report_for(&shared.front.api, &caller, said).await?;
    Ok(json(StatusCode::OK, &reported, Some(&cursors)))
}

async fn held(State(shared): At, Extension(caller): Who, Named(id): Named, uri: Uri) -> Answer {
    let Paging { limit, after } = query(&uri)?;
    let asked = ListCredentials { assignment_id: Some(id), target_host: None, limit, after };
    let listed = credentials::list(&shared.front.api, &caller, &asked).await?;
    Ok(json(StatusCode::OK, &listed, None))
}

async fn shared_with(State(shared): At, Extension(caller): Who, Named(id): Named, uri: Uri) -> Answer {
    let page = query::<Paging>(&uri)?.into();
    let listed = credentials::list_shared_with(&shared.front.api, &caller, &id, &page).await?;
    Ok(json(StatusCode::OK, &listed, None))
}
