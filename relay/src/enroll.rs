//! Whether a center enrols relays: gives a machine an identity for its API key. Blocks.

use ureq::http::StatusCode;

use crate::legacy_link::http::{Center as Link, NoAnswer};

/// What a center said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Center {
    /// It enrols this machine. The identity, as JSON.
    Enrolled(Vec<u8>),
    /// It does not know what is meant.
    NotKnown,
}

/// Asks the center for an identity.
///
/// # Errors
/// When it does not answer, or in a way that says nothing; retryable.
pub(crate) fn trade(link: &Link) -> Result<Center, TradeError> {
    let answer = link.post_nothing("/enroll")?;
    let is_json = answer.content_type.contains("application/json");
    match answer.status {
        status if status.is_success() && is_json => Ok(Center::Enrolled(answer.body)),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            Ok(Center::NotKnown)
        }
        // Whether the key is good is asked for where every center answers it. A page instead of JSON is some other server's
        // word for a path that it does not know.
        status if status.is_success() || status.is_client_error() => Ok(Center::NotKnown),
        status => Err(TradeError::Status(status)),
    }
}

/// Nothing is known of what the center does.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TradeError {
    /// It does not answer.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    /// It is in trouble.
    #[error("the center answers {0} to an enrolment")]
    Status(StatusCode),
}
