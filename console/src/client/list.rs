//! Lists, read page by page.

use serde::{Serialize, de::DeserializeOwned};
use signalbox_schemas::{
    api::{
        CommandView, FleetAt, FleetThen, Get, InventoryView, ListAssignments, ListConfigPushes,
        ListCredentials, ListEvents, ListInventory, ListMachines, ListRelays, ListRuns, Listed, MachineView,
        Page, Reach, op,
    },
    error::ErrorCode,
    id::CommandId,
    limit,
};

use super::{Client, ClientError, known::Told};

/// Items per page, the most that a bridge gives.
pub(super) const PAGE: usize = 1_000;
/// A list that is refused since it has changed while it was read is read so often.
const LIST_TRIES: u32 = 5;
/// Runs per page, the most that a bridge gives.
const PAGE_OF_RUNS: u32 = 1_000;
/// Most items that are taken from a bridge: ten times what a fleet may have.
pub const MOST: usize = 100_000;
/// Pages without items in a row: where few things are meant, a bridge looks at some thousands for one page and gives those
/// it has found.
const EMPTY_PAGES: u32 = 1_000;

/// Arguments that ask for one page of a list.
pub trait Paged: Serialize + Clone + Send + Sync {
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

paged!(
    Page,
    ListMachines,
    ListAssignments,
    ListRelays,
    ListCredentials,
    ListConfigPushes,
    ListRuns,
    ListInventory,
    ListEvents,
    FleetAt,
    Reach
);

/// A list that is being read page by page.
#[derive(Debug)]
pub struct Pages<A> {
    op: &'static str,
    args: A,
    /// `next` of the page before.
    after: Option<String>,
    /// Pages without items, in a row.
    empty: u32,
    is_over: bool,
}

impl<A: Paged> Pages<A> {
    /// A list from its beginning.
    pub fn new(op: &'static str, args: A) -> Self {
        Self { op, args, after: None, empty: 0, is_over: false }
    }

    /// Whether nothing follows.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The next page, of at most `limit` items; a bridge gives no more than 1,000.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::NotAsMeant`] for a list that repeats itself, or goes on with nothing in it.
    pub async fn next<R: DeserializeOwned>(
        &mut self,
        client: &Client,
        limit: usize,
    ) -> Result<Vec<R>, ClientError> {
        let listed: Listed<R> = self.page(client, limit).await?;
        self.turned(listed)
    }

    /// The next page, whatever else is said beside its items. It is to be [`turned`](Self::turned).
    async fn page<P: DeserializeOwned>(&mut self, client: &Client, limit: usize) -> Result<P, ClientError> {
        let limit = u32::try_from(limit.min(PAGE)).unwrap_or(u32::MAX);
        self.args.set_page(limit, self.after.clone());
        client.ask(self.op, &self.args).await
    }

    /// The items of a page; the list goes on behind it.
    fn turned<R>(&mut self, listed: Listed<R>) -> Result<Vec<R>, ClientError> {
        self.empty = if listed.items.is_empty() { self.empty + 1 } else { 0 };
        if listed.next.is_some() && listed.next == self.after {
            return Err(ClientError::NotAsMeant("its list repeats itself".to_owned()));
        }
        if self.empty > EMPTY_PAGES {
            return Err(ClientError::NotAsMeant("its list goes on without items".to_owned()));
        }
        self.is_over = listed.next.is_none();
        self.after = listed.next;
        Ok(listed.items)
    }
}

/// A list that is longer than what it is of can be.
pub(super) fn too_long(most: usize) -> ClientError {
    ClientError::NotAsMeant(format!("its list has more than {most} items"))
}

impl Client {
    /// The first `most` items of a list.
    ///
    /// # Errors
    /// As [`Pages::next`].
    pub async fn list<A: Paged, R: DeserializeOwned>(
        &self,
        op: &'static str,
        args: A,
        most: usize,
    ) -> Result<Vec<R>, ClientError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.list_once(Pages::new(op, args.clone()), most).await {
                // It has changed while it was read.
                Err(ClientError::Refused(problem))
                    if problem.code == ErrorCode::IdConflict && tries < LIST_TRIES => {}
                read => return read,
            }
        }
    }

    async fn list_once<A: Paged, R: DeserializeOwned>(
        &self,
        mut pages: Pages<A>,
        most: usize,
    ) -> Result<Vec<R>, ClientError> {
        let mut items: Vec<R> = Vec::new();
        while items.len() < most && !pages.is_over() {
            items.extend(pages.next(self, most - items.len()).await?);
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
            return Err(too_long(MOST));
        }
        Ok(items)
    }

    /// The fleet as it was at a moment, Unix ms, with all of its machines.
    ///
    /// # Errors
    /// As [`Self::list_all`].
    pub async fn fleet_at(&self, at: u64) -> Result<FleetThen, ClientError> {
        let mut pages = Pages::new(op::HISTORY_FLEET, FleetAt { at, limit: None, after: None });
        let mut machines = Vec::new();
        loop {
            let mut then: FleetThen = pages.page(self, PAGE).await?;
            let next = then.listed.next.take();
            let items = std::mem::take(&mut then.listed.items);
            machines.extend(pages.turned(Listed { items, next })?);
            if machines.len() > MOST {
                return Err(too_long(MOST));
            }
            if then.at.is_some_and(|was| was > at) {
                return Err(ClientError::NotAsMeant("it tells of a later moment".to_owned()));
            }
            if pages.is_over() {
                then.listed.items = machines;
                return Ok(then);
            }
        }
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

    /// What relays with keys say that they keep, of at most `most` machines, one after another as their pages come: all of them at
    /// once would be a hundred times what is wanted of them.
    ///
    /// # Errors
    /// As [`Pages::next`]; [`ClientError::NotAsMeant`] also for more machines.
    pub async fn inventories(
        &self,
        on: String,
        most: usize,
        mut take: impl FnMut(InventoryView) + Send,
    ) -> Result<(), ClientError> {
        let asked = ListInventory { on, ..ListInventory::default() };
        let mut pages = Pages::new(op::INVENTORY_LIST, asked);
        let mut count = 0;
        while !pages.is_over() {
            let views: Vec<InventoryView> = pages.next(self, PAGE).await?;
            count += views.len();
            if count > most {
                return Err(too_long(most));
            }
            views.into_iter().for_each(&mut take);
        }
        Ok(())
    }

    /// What is told of these machines, no more than one command can have, as far as something is to be sealed for them.
    ///
    /// # Errors
    /// As [`Self::inventories`].
    pub async fn told(&self, on: &str) -> Result<Vec<Told>, ClientError> {
        let mut told = Vec::new();
        let take = |view| told.push(Told::of(&self.access().ws, view));
        self.inventories(on.to_owned(), limit::TARGETS, take).await?;
        Ok(told)
    }

    /// All machines, sorted by token.
    ///
    /// # Errors
    /// As [`Self::list_all`].
    pub async fn machines(&self) -> Result<Vec<MachineView>, ClientError> {
        self.list_all(op::MACHINES_LIST, Page::default()).await
    }
}
