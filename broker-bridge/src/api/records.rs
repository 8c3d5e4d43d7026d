//! What all operations that change records share: writing them in bounded time, and what clients see when that fails.

use std::time::Duration;

use signalbox_link::StoreError;
use signalbox_schemas::{
    error::{ErrorCode, Problem, report},
    record::Edition,
    signed::{PublicKey, SignedError},
};
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;

use super::Api;
use crate::{
    broker_link::{BrokerError, NewRecord},
    view::Cursors,
};

/// Longest time for one change, with every try: a client gives up after 5 s.
const WRITE: Duration = Duration::from_secs(4);

/// Whether a text is an id as they are drawn here. What is none names nothing, and must not become part of a subject.
pub(super) fn is_id(text: &str) -> bool {
    Uuid::try_parse(text).is_ok_and(|id| id.as_hyphenated().to_string() == text)
}

/// A new id; ids sort like the time they were drawn at.
pub(super) fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// Refuses a text above a size.
pub(super) fn check_size(doing: &str, member: &str, text: &str, most: usize) -> Result<(), Problem> {
    if text.len() <= most {
        return Ok(());
    }
    let message = format!("cannot {doing}: {member} is {} bytes, at most {most} are allowed", text.len());
    Err(Problem::new(ErrorCode::Invalid, message))
}

/// Refuses what is no text for people: 1 to `most` printable characters.
pub(super) fn check_printable(doing: &str, member: &str, text: &str, most: usize) -> Result<(), Problem> {
    let count = text.chars().count();
    if (1..=most).contains(&count) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("cannot {doing}: {member} must be 1 to {most} printable characters");
    Err(Problem::new(ErrorCode::Invalid, message))
}

impl Api {
    /// Changes one record as [`Self::edit_unread`] does, and waits a moment for it to be readable here.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn edit<T: Edition>(
        &self,
        by: &str,
        doing: &str,
        table: &str,
        id: &str,
        edit: impl Fn(Option<T>) -> Option<T>,
    ) -> Result<(Option<T>, Cursors), Problem> {
        let (record, cursors) = self.edit_unread(by, doing, table, id, edit).await?;
        self.settle_write(&cursors).await;
        Ok((record, cursors))
    }

    /// Changes one record as [`edit_record`](crate::broker_link::BrokerLink::edit_record) does, within 4 s. `by` is who asked for
    /// it. Changes of one record through this bridge take turns.
    ///
    /// # Errors
    /// `not_accepted`; `too_large` when the record has no room for it.
    pub(super) async fn edit_unread<T: Edition>(
        &self,
        by: &str,
        doing: &str,
        table: &str,
        id: &str,
        edit: impl Fn(Option<T>) -> Option<T>,
    ) -> Result<(Option<T>, Cursors), Problem> {
        let authors = self.view.authors();
        let is_bridge = |key: &PublicKey, at| {
            key == self.broker.public() || authors.as_ref().is_some_and(|doc| doc.was_bridge(key, at))
        };
        let editing = async {
            let _turn = self.edits.of(&(table, id)).await;
            self.broker.asked_by(by).edit_record(table, id, is_bridge, edit).await
        };
        let edited = timeout(WRITE, editing).await.map_err(|_| late(doing))?;
        edited.map_err(|error| stored_problem(doing, &error))
    }

    /// Writes new records, all or none, within 4 s, and waits a moment for them to be readable here.
    pub(super) async fn put_new(&self, records: Vec<NewRecord>) -> Result<Cursors, PutError> {
        let put = timeout(WRITE, self.broker.put_records_atomic(records)).await;
        let cursors = put.map_err(|_| PutError::Late)?.map_err(PutError::Refused)?;
        self.settle_write(&cursors).await;
        Ok(cursors)
    }
}

/// New records were not written, as far as is known.
pub(super) enum PutError {
    /// The broker did not answer in time.
    Late,
    /// It refused, or did not acknowledge.
    Refused(BrokerError),
}

impl PutError {
    /// What clients see.
    pub(super) fn problem(&self, doing: &str) -> Problem {
        match self {
            Self::Late => late(doing),
            Self::Refused(error) => stored_problem(doing, error),
        }
    }
}

fn late(doing: &str) -> Problem {
    let message = format!(
        "cannot {doing}: the broker did not answer in time, and nothing is promised; look, then try again"
    );
    Problem::new(ErrorCode::NotAccepted, message)
}

/// What clients see when a record could not be written; the rest goes to the log.
pub(super) fn stored_problem(doing: &str, error: &BrokerError) -> Problem {
    match error {
        BrokerError::Sign { source: SignedError::TooLarge { .. }, .. }
        | BrokerError::Store { source: StoreError::TooLarge { .. }, .. } => {
            Problem::new(ErrorCode::TooLarge, format!("cannot {doing}: it is too large in all; send less"))
        }
        _ => {
            warn!(error = report(error), doing, "a record was not written");
            let message = format!(
                "cannot {doing}: the broker did not acknowledge it, and nothing is promised; look, then try again"
            );
            Problem::new(ErrorCode::NotAccepted, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("0193a2b4-0000-7000-8000-000000000000", true)]
    #[case("0193A2B4-0000-7000-8000-000000000000", false)]
    #[case("0193a2b4000070008000000000000000", false)]
    #[case("{0193a2b4-0000-7000-8000-000000000000}", false)]
    #[case("*", false)]
    #[case("a.b", false)]
    #[case("", false)]
    fn what_is_no_id_names_nothing(#[case] text: &str, #[case] is: bool) {
        assert_eq!(is_id(text), is);
    }

    #[test]
    fn what_is_drawn_here_names_a_record() {
        assert!(is_id(&new_id()));
    }
}
