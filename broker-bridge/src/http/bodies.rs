//! Bodies of up to 16 MiB: read in pieces, bounded in size, in time, and in what all of them take together.
//!
//! | of a body | is kept | all at once take |
//! |---|---|---|
//! | the first KiB, whoever sends it | in memory | 1 KiB of each of 16,384 connections, and what is read of it: 32 MiB |
//! | up to 64 KiB, of a [`Client`] with room | in memory | [`IN_MEMORY`]; [`IN_MEMORY_OF_ONE`] of one client |
//! | up to 16 MiB, of such a client | in a file without a name | a buffer of [`PIECE`] for each of [`FILES`], 4 MiB; [`FILES_OF_ONE`] of one client |
//! | what is read of a file | in memory, until it is stored | the text and one copy of the longest member for each of [`DIGESTED`]: 64 MiB |
//!
//! That makes 124 MiB. A body that waits for room has its first KiB here, and what the HTTP server had read beside it,
//! which is in that server's own buffer: nothing is read meanwhile.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek as _, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use signalbox_schemas::error::{ErrorCode, Problem, report};
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::warn;

use super::problem::Refusal;

/// What is read of every body, before anything is asked for.
pub(super) const FIRST: usize = 1024;
/// Largest body that is kept in memory.
pub(super) const SMALL: usize = 64 * 1024;
/// Largest body.
pub(super) const LARGEST: usize = 16 * 1024 * 1024;
/// Bodies in memory together, bytes: as they came, and once more as what is read of them.
const IN_MEMORY: usize = 24 * 1024 * 1024;
/// And those of one client.
const IN_MEMORY_OF_ONE: usize = 512 * 1024;
/// Bodies in files at once: at most 1 GiB of the disk.
const FILES: usize = 64;
/// And those of one client.
const FILES_OF_ONE: usize = 2;
/// Bodies in files that are parsed and stored at once.
const DIGESTED: usize = 2;
/// Written to a file at once, or read from it: less would be a thread's turn for each piece of the network.
const PIECE: usize = 64 * 1024;

/// Longest time without a byte of a body.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time for the first part, and then for the rest of what is kept in memory.
const SMALL_WITHIN: Duration = Duration::from_secs(30);
/// Longest time for a piece of what goes into a file: nobody keeps a place with 1 KiB/s.
const PIECE_WITHIN: Duration = Duration::from_mins(1);
/// Longest time for all of it: 16 MiB at 4 KiB/s.
const LARGE_WITHIN: Duration = Duration::from_mins(70);
/// Longest wait for room, or for a turn to be parsed.
const TURN: Duration = Duration::from_mins(2);

/// Whose bodies are bounded together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// All whose assignment is not known, or is none any more.
    Nobody,
    /// The relay of an assignment.
    Assignment(String),
    /// Whoever brings the administrators' token.
    Admin,
}

/// Why a body is not taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// It has, or promises, more than is allowed.
    TooLarge(String),
    /// It ended early, or did not come in time.
    Broken(String),
    /// There is no room for it.
    Problem(Problem),
}

impl From<NotTaken> for Refusal {
    fn from(refused: NotTaken) -> Self {
        match refused {
            NotTaken::TooLarge(message) => Problem::new(ErrorCode::TooLarge, message),
            NotTaken::Broken(message) => Problem::new(ErrorCode::Invalid, message),
            NotTaken::Problem(problem) => problem,
        }
        .into()
    }
}

/// Room for bodies.
#[derive(Debug)]
pub(super) struct Bodies {
    spool: PathBuf,
    all: Share,
    digested: Arc<Semaphore>,
    /// Of each client that ever needed room. Bounded by the number of assignments.
    of_one: Mutex<HashMap<Client, Share>>,
}

/// What there is room for.
#[derive(Debug, Clone)]
struct Share {
    /// Bytes.
    memory: Arc<Semaphore>,
    files: Arc<Semaphore>,
}

/// Room that a body has, until this is dropped.
#[derive(Debug, Default)]
pub(super) struct Room(Vec<OwnedSemaphorePermit>);

/// What has come of a body, and what is still to come.
pub(super) struct Reading {
    begun: BytesMut,
    /// Came, and is not in `begun` yet.
    piece: Bytes,
    rest: Option<BodyDataStream>,
    promised: Option<usize>,
    largest: usize,
}

/// A body that has arrived.
pub(super) struct Arrived {
    kept: Kept,
    room: Room,
    digested: Arc<Semaphore>,
    has_turn: bool,
}

enum Kept {
    Memory(Bytes),
    File(Arc<File>),
}

/// A body as it is parsed.
pub(super) enum Source<'a> {
    Memory(&'a [u8]),
    File(BufReader<&'a File>),
}

impl Read for Source<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(bytes) => bytes.read(space),
            Self::File(file) => file.read(space),
        }
    }
}

fn too_large(limit: usize) -> NotTaken {
    NotTaken::TooLarge(format!("the body is above {limit} bytes; send less"))
}

fn late(within: Duration) -> NotTaken {
    NotTaken::Broken(format!("the body did not arrive within {} s; send it again", within.as_secs()))
}

fn no_room(why: &'static str) -> NotTaken {
    NotTaken::Problem(Problem::new(ErrorCode::RateLimited, format!("{why}; try again in a moment")))
}

impl Share {
    fn new(memory: usize, files: usize) -> Self {
        let [memory, files] = [memory, files].map(|count| Arc::new(Semaphore::new(count)));
        Self { memory, files }
    }

    /// Room in memory for a body of so many bytes, or for a file.
    async fn take(&self, in_memory: Option<u32>) -> Result<OwnedSemaphorePermit, AcquireError> {
        match in_memory {
            Some(bytes) => Arc::clone(&self.memory).acquire_many_owned(bytes).await,
            None => Arc::clone(&self.files).acquire_owned().await,
        }
    }
}

impl Bodies {
    /// `spool` is a directory on a disk, for bodies that are too large for memory.
    pub(super) fn new(spool: PathBuf) -> Self {
        Self {
            spool,
            all: Share::new(IN_MEMORY, FILES),
            digested: Arc::new(Semaphore::new(DIGESTED)),
            of_one: Mutex::default(),
        }
    }

    /// Waits for room for all of a body. One that is there already needs no more.
    pub(super) fn room(
        &self,
        reading: &Reading,
        client: Client,
    ) -> impl Future<Output = Result<Room, NotTaken>> + use<'_> {
        let goes_on = reading.goes_on();
        let in_memory = reading.in_memory().and_then(|bytes| u32::try_from(2 * bytes).ok());
        async move {
            if !goes_on {
                return Ok(Room::default());
            }
            let own = self.share_of(client);
            let taken = async { Ok(vec![own.take(in_memory).await?, self.all.take(in_memory).await?]) };
            let taken: Result<Result<_, AcquireError>, _> = timeout(TURN, taken).await;
            let Ok(Ok(taken)) = taken else { return Err(no_room("too many large bodies are on their way")) };
            Ok(Room(taken))
        }
    }

    fn share_of(&self, client: Client) -> Share {
        let mut of_one = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        of_one.entry(client).or_insert_with(|| Share::new(IN_MEMORY_OF_ONE, FILES_OF_ONE)).clone()
    }

    /// Reads the rest of a body into the room that it has.
    pub(super) async fn read_on(&self, mut reading: Reading, room: Room) -> Result<Arrived, NotTaken> {
        let kept = if reading.in_memory().is_some() || !reading.goes_on() {
            let filled = timeout(SMALL_WITHIN, reading.fill(reading.most())).await;
            filled.map_err(|_| late(SMALL_WITHIN))??;
            if reading.goes_on() {
                return Err(too_large(reading.largest));
            }
            Kept::Memory(reading.begun.freeze())
        } else {
            let file = timeout(LARGE_WITHIN, self.to_file(reading)).await;
            Kept::File(Arc::new(file.map_err(|_| late(LARGE_WITHIN))??))
        };
        Ok(Arrived { kept, room, digested: Arc::clone(&self.digested), has_turn: false })
    }

    async fn to_file(&self, mut reading: Reading) -> Result<File, NotTaken> {
        let spool = self.spool.clone();
        let mut file = on_disk(move || tempfile::tempfile_in(spool)).await?;
        let mut len = 0;
        while !reading.begun.is_empty() || reading.goes_on() {
            let filled = timeout(PIECE_WITHIN, reading.fill(PIECE)).await;
            filled.map_err(|_| late(PIECE_WITHIN))??;
            len += reading.begun.len();
            if len > reading.largest {
                return Err(too_large(reading.largest));
            }
            let bytes = reading.begun.split().freeze();
            file = on_disk(move || file.write_all(&bytes).map(|()| file)).await?;
        }
        Ok(file)
    }
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, NotTaken> {
    let done = tokio::task::spawn_blocking(work).await;
    let failed = |error: &dyn std::error::Error| {
        warn!(error = report(error), "a large body cannot be kept on disk");
        NotTaken::Problem(Problem::new(ErrorCode::NotAccepted, "the body cannot be kept here; try again"))
    };
    done.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

impl Reading {
    /// Reads the first part of a body, which may have `largest` bytes.
    pub(super) async fn begin(headers: &HeaderMap, body: Body, largest: usize) -> Result<Self, NotTaken> {
        let promised = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let promised = promised.and_then(|text| text.parse().ok());
        if promised.is_some_and(|len| len > largest) {
            return Err(too_large(largest));
        }
        let (begun, piece, rest) = (BytesMut::new(), Bytes::new(), Some(body.into_data_stream()));
        let mut reading = Self { begun, piece, rest, promised, largest };
        let filled = timeout(SMALL_WITHIN, reading.fill(FIRST)).await;
        filled.map_err(|_| late(SMALL_WITHIN))??;
        Ok(reading)
    }

    /// Whether there is more.
    pub(super) fn goes_on(&self) -> bool {
        self.rest.is_some()
    }

    /// The most that the body can have.
    fn most(&self) -> usize {
        self.promised.unwrap_or(self.largest)
    }

    /// The most that the body can have, if it is kept in memory.
    fn in_memory(&self) -> Option<usize> {
        Some(self.most()).filter(|most| *most <= SMALL)
    }

    /// Reads until all is there, or it is known that there is more than `most` bytes, which are there then.
    async fn fill(&mut self, most: usize) -> Result<(), NotTaken> {
        let Some(rest) = &mut self.rest else { return Ok(()) };
        self.begun.reserve(most.saturating_sub(self.begun.len()));
        loop {
            let fits = self.piece.len().min(most.saturating_sub(self.begun.len()));
            self.begun.extend_from_slice(&self.piece.split_to(fits));
            if !self.piece.is_empty() {
                return Ok(());
            }
            let Some(piece) = next(rest).await? else {
                self.rest = None;
                return Ok(());
            };
            self.piece = piece;
        }
    }
}

async fn next(rest: &mut BodyDataStream) -> Result<Option<Bytes>, NotTaken> {
    match timeout(PATIENCE, rest.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
        Ok(Some(Err(_))) => Err(NotTaken::Broken("the body ended early; send it again".to_owned())),
        Err(_) => {
            let message = format!("nothing of the body came for {} s; send it again", PATIENCE.as_secs());
            Err(NotTaken::Broken(message))
        }
    }
}

impl Arrived {
    /// Reads a body; one in a file waits for its turn, which it keeps.
    pub(super) async fn parse<T: Send + 'static>(
        &mut self,
        read: impl FnOnce(&mut Source<'_>) -> serde_json::Result<T> + Send + 'static,
    ) -> Result<serde_json::Result<T>, NotTaken> {
        let file = match &self.kept {
            Kept::Memory(bytes) => return Ok(read(&mut Source::Memory(bytes))),
            Kept::File(file) => Arc::clone(file),
        };
        if !self.has_turn {
            let turn = timeout(TURN, Arc::clone(&self.digested).acquire_owned()).await;
            let Ok(Ok(turn)) = turn else { return Err(no_room("too many large bodies wait")) };
            self.room.0.push(turn);
            self.has_turn = true;
        }
        on_disk(move || {
            (&*file).rewind()?;
            Ok(read(&mut Source::File(BufReader::with_capacity(PIECE, &file))))
        })
        .await
    }

    /// Lets go of the body, and keeps the room for what was read of it.
    pub(super) fn into_room(self) -> Room {
        self.room
    }
}

#[cfg(test)]
mod tests;
