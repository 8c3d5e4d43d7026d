//! `POST /enroll`: a relay with an API key becomes one with keys. No rule lives here.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::to_bytes,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{HOST, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde_json::json;
use signalbox_schemas::{
    enrol::{ENROLMENT_BYTES, KEY_HEADER},
    error::ErrorCode,
};
use tokio::time::timeout;

use super::{Shared, problem::Refusal};
use crate::api::enrol::{Refused, enrol};

/// Longest time for the body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// `POST /enroll`
pub(super) async fn enroll(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Some((enroller, brokers)) = &shared.front.enroller else {
        // As a bridge that knows nothing of it: the relay goes on with HTTP.
        return Refusal::no_such_path().into_response();
    };
    let (head, body) = request.into_parts();
    let key = only(&head.headers, KEY_HEADER);
    let nats = brokers.urls(only(&head.headers, HOST.as_str()));
    let body = timeout(BODY_TIMEOUT, to_bytes(body, ENROLMENT_BYTES)).await;
    let answer = match body {
        Ok(Ok(body)) => enrol(&shared.front.api, enroller, key, &body, nats).await,
        Ok(Err(_)) => {
            Err(Refused::Invalid(format!("the body is no enrolment of at most {ENROLMENT_BYTES} bytes")))
        }
        Err(_) => Err(Refused::Invalid("the body did not arrive in time; send it again".to_owned())),
    };
    answer.map_or_else(IntoResponse::into_response, |enrolled| Json(enrolled).into_response())
}

/// The text of a header that was sent once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok()
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code) = match self {
            Self::NoKey | Self::UnknownKey => (StatusCode::UNAUTHORIZED, ErrorCode::Unauthenticated),
            Self::NoAssignment | Self::Disabled => (StatusCode::FORBIDDEN, ErrorCode::Forbidden),
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, ErrorCode::Invalid),
            Self::Conflict(_) => (StatusCode::CONFLICT, ErrorCode::IdConflict),
            Self::Later(_) => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::NotCaughtUp),
        };
        let mut response = (status, Json(json!({ "error": self.to_string() }))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(code);
        response
    }
}
