//! Questions to the server's JetStream API: JSON there, JSON back, an error as a code.

use async_nats::jetstream::context::{RequestError, RequestErrorKind};
use async_nats::jetstream::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connect::Link;
use crate::error::Cause;

/// No such stream.
pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
/// Nothing stands at this sequence.
pub(crate) const SEQUENCE_NOT_FOUND: u64 = 10043;
/// A message could not be deleted.
pub(crate) const DELETE_FAILED: u64 = 10057;
/// No such message.
pub(crate) const MESSAGE_NOT_FOUND: u64 = 10037;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// None came, or no sense is in it.
    Unanswered(Cause),
    /// The server said no.
    Refused {
        /// Its error code.
        code: u64,
        /// Its words.
        description: String,
    },
}

impl Link {
    /// Asks `$JS.API.<subject>`. Bounded by the context's timeout (10 s), connected or not. After a lost
    /// connection it is asked again, since what was asked on the old one is never answered: every question here
    /// means the same when it is asked twice.
    pub(crate) async fn api<T: DeserializeOwned>(
        &self,
        subject: String,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        // The client bounds the wait for the answer, not the wait for room in its queue.
        let answer =
            tokio::time::timeout(crate::connect::API_TIMEOUT, self.ask_until_answered(subject, body))
                .await
                .map_err(|elapsed| ApiError::Unanswered(Box::new(elapsed)))?;
        match answer {
            Ok(Response::Ok(answer)) => Ok(answer),
            Ok(Response::Err { error }) => {
                Err(ApiError::Refused { code: error.error_code().0, description: words(&error) })
            }
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                let description = "nobody answers for jetstream".to_owned();
                Err(ApiError::Refused { code: 503, description })
            }
            Err(error) => Err(ApiError::Unanswered(Box::new(error))),
        }
    }

    async fn ask_until_answered<T: DeserializeOwned>(
        &self,
        subject: String,
        body: &impl Serialize,
    ) -> Result<Response<T>, RequestError> {
        let mut state = self.state();
        loop {
            let connects = state.borrow_and_update().connects;
            let lost = state.wait_for(|state| !state.is_closed && state.connects != connects);
            tokio::select! {
                biased;
                answer = self.jetstream.request(subject.clone(), body) => return answer,
                Ok(_) = lost => {}
            }
        }
    }
}

/// The server's own words; the client adds the codes to them.
pub(crate) fn words(error: &async_nats::jetstream::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" (code ").map_or(text.clone(), |(words, _)| words.to_owned())
}
