//! Error codes, the same on every front.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an operation was refused. Stable: clients decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Nobody, or nobody known, is asking.
    Unauthenticated,
    /// The asker may not do this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The id is taken by something else.
    IdConflict,
    /// A body, text or document is above its limit.
    TooLarge,
    /// A member is missing, malformed or out of range.
    Invalid,
    /// The selector matches no machine.
    NoTargets,
    /// Too many requests; try again later.
    RateLimited,
    /// The broker did not acknowledge; nothing is promised. Try again with the same id.
    NotAccepted,
    /// This bridge has not read the streams far enough yet, or began to serve after the request was signed. Try again,
    /// signed anew.
    NotCaughtUp,
}

impl ErrorCode {
    /// The HTTP status that goes with the code.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::IdConflict => 409,
            Self::TooLarge => 413,
            Self::Invalid | Self::NoTargets => 422,
            Self::RateLimited => 429,
            Self::NotAccepted | Self::NotCaughtUp => 503,
        }
    }

    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::IdConflict => "id_conflict",
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::NoTargets => "no_targets",
            Self::RateLimited => "rate_limited",
            Self::NotAccepted => "not_accepted",
            Self::NotCaughtUp => "not_caught_up",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: what clients see. Never holds details of the inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Problem {
    /// What kind of refusal.
    pub code: ErrorCode,
    /// One sentence for people: what was being done, to what, and what to do next.
    pub message: String,
}

impl Problem {
    /// A refusal with its sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Formats an error with every cause, outermost first, separated by `: `.
///
/// `Display` of our errors never includes the cause, so every log line and every message to people goes
/// through here.
pub fn report(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_spelled_alike_in_json_and_text() {
        for code in [ErrorCode::IdConflict, ErrorCode::NoTargets, ErrorCode::NotCaughtUp, ErrorCode::TooLarge]
        {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("{:?}", code.as_str()));
        }
    }
}
