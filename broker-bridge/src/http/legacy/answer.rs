//! Answers: JSON with CORS headers, members in the order that clients know, and left out where there is nothing to say.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use signalbox_schemas::error::{ErrorCode, Problem};

/// Headers of every JSON answer, and of the answer to `OPTIONS`.
const CORS: [(HeaderName, HeaderValue); 3] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS")),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Content-Type, X-API-Key, Authorization"),
    ),
];
const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn cors() -> HeaderMap {
    CORS.into_iter().collect()
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    body: Vec<u8>,
    code: Option<ErrorCode>,
}

impl Answer {
    /// 200 with this body.
    pub(super) fn ok(body: &impl Serialize) -> Self {
        Self::new(StatusCode::OK, None, body)
    }

    /// Another status with this body; `code` is what it is counted under.
    pub(super) fn refusal(code: ErrorCode, status: StatusCode, body: &impl Serialize) -> Self {
        Self::new(status, Some(code), body)
    }

    fn new(status: StatusCode, code: Option<ErrorCode>, body: &impl Serialize) -> Self {
        // Plain members always have a JSON form.
        Self { status, body: serde_json::to_vec(body).unwrap_or_default(), code }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = cors();
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        if let Some(code) = self.code {
            response.extensions_mut().insert(code);
        }
        response
    }
}

/// 204 with CORS headers, for anybody.
pub(super) fn preflight() -> Response {
    (StatusCode::NO_CONTENT, cors()).into_response()
}

/// 404 as text: nothing is at this path, or not with this method.
pub(super) fn no_route(path: &str) -> Response {
    let path: String = path.chars().filter(|c| !c.is_control()).take(super::super::LOGGED_PATH).collect();
    let mut response = (StatusCode::NOT_FOUND, format!("No HttpAction routed for {path}")).into_response();
    response.extensions_mut().insert(ErrorCode::NotFound);
    response
}

/// A request that is refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// The body, or a member of it, is not as it must be: 400.
    Malformed(String),
    /// The body is too large: 413.
    TooLarge(String),
    /// No key: 401.
    NoKey,
    /// A key that nobody knows: 401.
    UnknownKey,
    /// A key whose assignment is gone: 403.
    Unassigned,
    /// A key whose assignment does not count: 403.
    Disabled,
    /// What the operation says.
    Problem(Problem),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
}

/// Texts of the refusals that have one for ever.
pub(super) const NO_KEY: &str = "API key is required";
pub(super) const UNKNOWN_KEY: &str = "Invalid API key";
pub(super) const UNASSIGNED: &str = "No relay assignment found for this API key";
pub(super) const DISABLED: &str = "Relay assignment is disabled";

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        let (code, error) = match &refused {
            Refused::Malformed(text) => (ErrorCode::Invalid, text.as_str()),
            Refused::TooLarge(text) => (ErrorCode::TooLarge, text.as_str()),
            Refused::NoKey => (ErrorCode::Unauthenticated, NO_KEY),
            Refused::UnknownKey => (ErrorCode::Unauthenticated, UNKNOWN_KEY),
            Refused::Unassigned => (ErrorCode::Forbidden, UNASSIGNED),
            Refused::Disabled => (ErrorCode::Forbidden, DISABLED),
            Refused::Problem(problem) => (problem.code, problem.message.as_str()),
        };
        let status = match &refused {
            Refused::Malformed(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        Self::refusal(code, status, &ErrorBody { error })
    }
}

/// `{"success":…}`
#[derive(Debug, Serialize)]
pub(super) struct Success {
    pub(super) success: bool,
}

/// `{"success":false,"error":…}`
#[derive(Debug, Serialize)]
pub(super) struct Failure<'a> {
    pub(super) success: bool,
    pub(super) error: &'a str,
}

impl<'a> Failure<'a> {
    /// 400 with this text.
    pub(super) fn bad_request(error: &'a str) -> Answer {
        let body = Self { success: false, error };
        Answer::refusal(ErrorCode::Invalid, StatusCode::BAD_REQUEST, &body)
    }
}
