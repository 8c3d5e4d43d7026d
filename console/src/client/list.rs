//! Lists, read page by page.

use serde::{Serialize, de::DeserializeOwned};
use signalbox_schemas::{
    api::{
        CommandView, Get, ListAssignments, ListConfigPushes, ListCredentials, ListRelays, ListRuns, Listed,
        MachineView, Page, op,
    },
    id::CommandId,
    limit,
};

use super::{Client, ClientError};

/// Items per page, the most that a bridge gives.
const PAGE: usize = 1_000;
/// Runs per page, the most that a bridge gives.
const PAGE_OF_RUNS: u32 = 1_000;
/// Most items that are taken from a bridge: ten times what a fleet may have.
const MOST: usize = 100_000;
/// Pages without items in a row: where few things are meant, a bridge looks at some thousands for one page and gives those
/// it has found.
const EMPTY_PAGES: u32 = 1_000;

/// Arguments that ask for one page of a list.
pub trait Paged: Serialize + Send + Sync {
    /// Asks for at most `limit` items after those of the page that had this `next`.
    fn set_page(&mut self, limit: u32, after: Option<String>);
}

macro_rules! paged {
    ($($args:ty),*) => {$(
        impl Paged for $args {
            fn set_page(&mut self, limit: u32, after: Option<String>) {
                (self.limit, self.after) = (Some(limit), after);
            }
        }
    )*};
}

paged!(Page, ListAssignments, ListRelays, ListCredentials, ListConfigPushes, ListRuns);

impl Client {
    /// The first `most` items of a list.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::NotAsMeant`] for a list that repeats itself, or goes on with nothing in it.
    pub async fn list<A: Paged, R: DeserializeOwned>(
        &self,
        op: &'static str,
        mut args: A,
        most: usize,
    ) -> Result<Vec<R>, ClientError> {
        let mut items: Vec<R> = Vec::new();
        let mut after = None;
        let mut empty = 0;
        while items.len() < most {
            let left = u32::try_from((most - items.len()).min(PAGE)).unwrap_or(u32::MAX);
            args.set_page(left, after.clone());
            let listed: Listed<R> = self.ask(op, &args).await?;
            empty = if listed.items.is_empty() { empty + 1 } else { 0 };
            items.extend(listed.items);
            if listed.next.is_some() && listed.next == after {
                return Err(ClientError::NotAsMeant("its list repeats itself".to_owned()));
            }
            if empty > EMPTY_PAGES {
                return Err(ClientError::NotAsMeant("its list goes on without items".to_owned()));
            }
            after = listed.next;
            if after.is_none() {
                break;
            }
        }
        items.truncate(most);
        Ok(items)
    }

    /// All items of a list.
    ///
    /// # Errors
    /// As [`Self::list`]; [`ClientError::NotAsMeant`] also for a list that is longer than any fleet: it would fill the
    /// memory.
    pub async fn list_all<A: Paged, R: DeserializeOwned>(
        &self,
        op: &'static str,
        args: A,
    ) -> Result<Vec<R>, ClientError> {
        let items = self.list(op, args, MOST + 1).await?;
        if items.len() > MOST {
            return Err(ClientError::NotAsMeant(format!("its list has more than {MOST} items")));
        }
        Ok(items)
    }

    /// A command with all of its runs, read page by page.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::NotAsMeant`] for more runs than a command can have, or pages out of order.
    pub async fn command(&self, id: CommandId) -> Result<CommandView, ClientError> {
        let page = |after| Get { id, limit: Some(PAGE_OF_RUNS), after };
        let mut whole: CommandView = self.ask(op::COMMANDS_GET, &page(None)).await?;
        while let Some(after) = whole.next.take() {
            let more: CommandView = self.ask(op::COMMANDS_GET, &page(Some(after))).await?;
            let goes_on = match (whole.runs.last(), more.runs.first()) {
                (Some(last), Some(first)) => last.machine < first.machine,
                (_, first) => first.is_some() || more.next.is_none(),
            };
            if !goes_on || whole.runs.len() + more.runs.len() > limit::TARGETS {
                return Err(ClientError::NotAsMeant(
                    "its list of runs is not in order, or too long".to_owned(),
                ));
            }
            // What is said last of all of them counts.
            whole.summary = more.summary;
            whole.next = more.next;
            whole.runs.extend(more.runs);
        }
        Ok(whole)
    }

    /// All machines, sorted by token.
    ///
    /// # Errors
    /// As [`Self::list_all`].
    pub async fn machines(&self) -> Result<Vec<MachineView>, ClientError> {
        self.list_all(op::MACHINES_LIST, Page::default()).await
    }
}
