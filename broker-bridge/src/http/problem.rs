//! Refusals over HTTP: `application/problem+json` (RFC 9457).

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use signalbox_schemas::error::{ErrorCode, Problem};

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A refusal on its way to a client.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    problem: Problem,
}

impl Refusal {
    /// The path is known and the method is not.
    pub(super) fn method_not_allowed() -> Self {
        let message = "this path does not know the method; see the `Allow` header for those it knows";
        Self { status: StatusCode::METHOD_NOT_ALLOWED, problem: Problem::new(ErrorCode::Invalid, message) }
    }

    /// There is nothing at this path.
    pub(super) fn no_such_path() -> Self {
        Problem::new(ErrorCode::NotFound, "there is nothing at this path; the API begins at /api/v1").into()
    }

    /// A handler panicked. The nearest of the codes: nothing is promised, and nobody knows what was done.
    pub(super) fn panicked() -> Self {
        let message = "this bridge failed at the request, and nothing is promised; look before you try again";
        let problem = Problem::new(ErrorCode::NotAccepted, message);
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, problem }
    }

    /// What the server underneath refuses with a bare status, because it cannot read the head of a request; `None` when
    /// that is no such status.
    pub(super) fn bad_head(status: u16) -> Option<Self> {
        let (code, message) = match status {
            400 => (ErrorCode::Invalid, "the head of the request cannot be read as HTTP/1.1"),
            414 => (ErrorCode::TooLarge, "the path and query of the request are too long"),
            431 => (ErrorCode::TooLarge, "the headers of the request are too many or too long"),
            _ => return None,
        };
        let status = StatusCode::from_u16(status).ok()?;
        Some(Self { status, problem: Problem::new(code, message) })
    }

    /// Its code.
    pub(super) fn code(&self) -> ErrorCode {
        self.problem.code
    }

    /// The whole answer as it is written to a connection that is closed behind it.
    pub(super) fn to_last_answer(&self) -> Vec<u8> {
        let body = self.body();
        let head = format!(
            "HTTP/1.1 {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.status,
            body.len()
        );
        [head.into_bytes(), body].concat()
    }

    fn body(&self) -> Vec<u8> {
        let title = match self.status {
            StatusCode::METHOD_NOT_ALLOWED => "method not allowed",
            StatusCode::INTERNAL_SERVER_ERROR => "the bridge failed",
            _ => title(self.problem.code),
        };
        let body = Body9457 {
            r#type: "about:blank",
            title,
            status: self.status.as_u16(),
            code: self.problem.code,
            detail: &self.problem.message,
        };
        // Five plain members always have a JSON form.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let status = StatusCode::from_u16(problem.code.http_status());
        Self { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), problem }
    }
}

#[derive(Serialize)]
struct Body9457<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: ErrorCode,
    detail: &'a str,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        match self.problem.code {
            ErrorCode::Unauthenticated => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            ErrorCode::RateLimited | ErrorCode::NotAccepted | ErrorCode::NotCaughtUp => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self.problem.code);
        response
    }
}

fn title(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unauthenticated => "nobody known is asking",
        ErrorCode::Forbidden => "not allowed",
        ErrorCode::NotFound => "no such thing",
        ErrorCode::IdConflict => "the id is taken by something else",
        ErrorCode::TooLarge => "above the limit",
        ErrorCode::Invalid => "missing, malformed or out of range",
        ErrorCode::NoTargets => "no machine is meant",
        ErrorCode::RateLimited => "too many requests",
        ErrorCode::NotAccepted => "not accepted",
        ErrorCode::NotCaughtUp => "not caught up",
    }
}
