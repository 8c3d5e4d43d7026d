//! What a selector means now, as it is shown before a command is written down.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use signalbox_schemas::{api::Target, error::ErrorCode};

use super::{Client, ClientError};

/// The machines that a selector means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meant {
    /// Sorted by token, at least one.
    pub targets: Vec<Target>,
    /// How many of them are protected.
    pub protected: usize,
}

impl Client {
    /// The machines that a selector means, and how many of them another one, `protected`, means, too.
    ///
    /// # Errors
    /// As [`Self::preview`], and what a command could not be signed for.
    pub async fn look_up(&self, on: &str, protected: &str) -> Result<Meant, ClientError> {
        let targets = self.meant(on, false).await?;
        let protected = self.protected(protected, &targets).await?;
        Ok(Meant { targets, protected })
    }

    /// How many of these machines a selector means; an empty one means none.
    ///
    /// # Errors
    /// As [`Self::preview`].
    pub async fn protected(&self, selector: &str, targets: &[Target]) -> Result<usize, ClientError> {
        if selector.is_empty() {
            return Ok(0);
        }
        let protected = match self.preview(selector).await {
            Ok(protected) => protected,
            Err(ClientError::Refused(problem)) if problem.code == ErrorCode::NoTargets => return Ok(0),
            Err(error) => return Err(error),
        };
        let protected: BTreeSet<_> = protected.into_iter().map(|target| target.token).collect();
        Ok(targets.iter().filter(|target| protected.contains(&target.token)).count())
    }
}
