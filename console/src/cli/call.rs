//! One operation: called with its arguments, its answer printed as JSON for programs, as a table or a card for people.

use std::io::IsTerminal as _;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    card::card,
    event,
    exit::{self, Failure},
    printer::{Piece, Printer},
    table::{Column, Table},
    watch,
};
use crate::{
    args::Listing,
    client::{Client, ClientError, clock::now_ms, list::Paged},
    config::{Config, Environment},
};

/// A thing that is one row of a table.
pub(super) trait Row: Serialize + DeserializeOwned {
    /// The columns.
    const COLUMNS: &'static [Column];

    /// Members that change all the time: that they did is not told to programs that watch.
    const FLEETING: &'static [&'static str] = &[];

    /// One cell per column, as clean text. `ellipsis` stands where one was cut.
    fn cells(&self, ellipsis: char) -> Vec<String>;

    /// What tells it from the others of its list: the first cell, unless it says otherwise.
    fn key(&self) -> String {
        self.cells('~').into_iter().next().unwrap_or_default()
    }
}

/// A call of an operation.
pub(super) struct Call<'a> {
    config: &'a Config,
    json: bool,
    watch: bool,
    what: String,
}

impl<'a> Call<'a> {
    /// `what` it does completes «cannot …».
    pub(super) fn new(config: &'a Config, json: bool, what: impl Into<String>) -> Self {
        Self { config, json, watch: false, what: what.into() }
    }

    /// The same for a list.
    pub(super) fn of(config: &'a Config, listing: &Listing, what: impl Into<String>) -> Self {
        Self { watch: listing.watch, ..Self::new(config, listing.json, what) }
    }

    /// The environment.
    pub(super) fn environment(&self) -> &Environment {
        &self.config.environment
    }

    /// What it does, which completes «cannot …».
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Whether the answer is for programs.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Asks for something that changes nothing.
    pub(super) async fn ask<A, R>(&self, op: &'static str, args: &A) -> Result<R, Failure>
    where
        A: Serialize + Sync,
        R: DeserializeOwned,
    {
        let client = self.connect().await?;
        client.ask(op, args).await.map_err(|error| self.failed(&error))
    }

    /// Asks for a change.
    pub(super) async fn change<A, R>(&self, op: &'static str, args: &A) -> Result<R, Failure>
    where
        A: Serialize + Sync,
        R: DeserializeOwned,
    {
        let client = self.connect().await?;
        client.change(op, args).await.map_err(|error| Failure::change(&self.what, &error))
    }

    /// Prints a list: its first `most` items, or all.
    pub(super) async fn list<A: Paged + Clone, R: Row>(
        &self,
        op: &'static str,
        args: A,
        most: Option<u32>,
    ) -> Result<u8, Failure> {
        let read = async |client: &Client| -> Result<Vec<R>, ClientError> {
            match most {
                Some(most) => client.list(op, args.clone(), most as usize).await,
                None => client.list_all(op, args.clone()).await,
            }
        };
        if self.watch {
            return watch::watch(self, most, read).await;
        }
        let client = self.connect().await?;
        self.table(&read(&client).await.map_err(|error| self.failed(&error))?).await
    }

    /// Prints several things: a line of JSON each, or a table.
    pub(super) async fn table<R: Row>(&self, items: &[R]) -> Result<u8, Failure> {
        rows(items, self.json, self.config.environment.ellipsis()).await
    }

    /// Prints one thing: a line of JSON, or its members one below the other.
    pub(super) async fn show<T: Serialize>(&self, answer: &T) -> Result<u8, Failure> {
        print(if self.json { event::line(answer) } else { card(answer, now_ms()).into_bytes() }).await
    }

    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        connect(self.config, &self.what).await
    }

    pub(super) fn failed(&self, error: &ClientError) -> Failure {
        Failure::client(&self.what, error)
    }
}

/// Prints several things: a line of JSON each, or a table.
pub(super) async fn rows<R: Row>(items: &[R], json: bool, ellipsis: char) -> Result<u8, Failure> {
    if json {
        return print(items.iter().flat_map(event::line).collect::<Vec<u8>>()).await;
    }
    let mut table = Table::new(R::COLUMNS);
    for item in items {
        table.push(item.cells(ellipsis));
    }
    print(table.render(columns(), ellipsis)).await
}

/// Connects for one question.
pub(super) async fn connect(config: &Config, what: &str) -> Result<Client, Failure> {
    let access = config.access().map_err(|error| Failure::client(what, &error))?;
    Client::connect(access, false).await.map_err(|error| Failure::client(what, &error))
}

/// Prints everything and waits until it is written.
pub(crate) async fn print(text: impl Into<bytes::Bytes>) -> Result<u8, Failure> {
    let printer = Printer::start().map_err(|error| Failure::system("print", &error))?;
    let written = printer.print(Piece::Out(text.into())).await;
    printer.finish().await.map_err(|error| Failure::written(&error))?;
    written.map(|()| exit::OK).map_err(|_| Failure::hangup())
}

/// Width to fit into: the terminal's, if stdout is one.
pub(super) fn columns() -> Option<usize> {
    let stdout = std::io::stdout();
    let size = rustix::termios::tcgetwinsize(&stdout).ok().filter(|_| stdout.is_terminal())?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
