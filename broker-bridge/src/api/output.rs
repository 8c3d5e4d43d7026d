//! Ranges of output: which stored pieces make up the bytes that were asked for.
//!
//! Offsets are true ones, also behind a cut: a range ends where bytes were left out, and one that begins there
//! is empty and says where bytes go on.

use std::collections::VecDeque;

use bytes::Bytes;
use signalbox_schemas::{
    api::ReadOutput,
    authors::Role,
    error::{ErrorCode, Problem, report},
    id::{CommandId, MachineId, MachineToken},
    output::OutputStream,
    stream::OUT,
};
use tracing::warn;

use super::{Api, Caller, commands};
use crate::{
    store::StoreError,
    view::{BodyError, ChunkBody, ChunkRef, View},
};

/// Most pieces of one range. A command that prints a byte at a time has many: its range is then shorter than
/// was asked for, and the reader goes on behind it.
const PIECES: usize = 4096;

/// Some bytes of one stream of one run, not read yet.
#[derive(Debug, Clone)]
pub struct Range {
    /// The machine.
    pub machine: MachineId,
    /// Absolute offset of the first byte.
    pub offset: u64,
    /// Bytes in the range.
    pub len: u64,
    /// The bytes at `offset` were left out: they go on here.
    pub next_offset: Option<u64>,
    /// Bytes of the whole stream, as far as it is known.
    pub total: u64,
    /// Whether bytes of the stream were left out.
    pub truncated: bool,
    /// The run has ended, and bytes of this range that it did not cut are not there (yet).
    lacks_bytes: bool,
    pieces: VecDeque<Piece>,
}

/// Part of a stored chunk, or of what the exit carried.
#[derive(Debug, Clone)]
struct Piece {
    stored: Stored,
    place: Place,
}

/// Which bytes of what is stored.
#[derive(Debug, Clone, Copy)]
struct Place {
    skip: usize,
    take: usize,
}

impl Place {
    fn of(self, bytes: &Bytes) -> Result<Bytes, PieceError> {
        let end = self.skip + self.take;
        let whole = bytes.len() >= end;
        whole.then(|| bytes.slice(self.skip..end)).ok_or(PieceError::Gone { len: self.take as u64 })
    }
}

#[derive(Debug, Clone)]
enum Stored {
    Chunk(Box<ChunkRef>),
    Inline(Bytes),
}

/// Finds the range; nothing is read from the broker.
///
/// # Errors
/// `forbidden`, `not_caught_up`, `not_found` for a command or a machine that it is not for.
pub async fn range(api: &Api, caller: &Caller, args: &ReadOutput) -> Result<Range, Problem> {
    caller.require(Role::Viewer, "read output")?;
    commands::known(api, args.id).await?;
    let not_found = || {
        let name: String = args.machine.chars().take(64).collect();
        let message = format!("command {} has no run on `{name}`; show it to see its machines", args.id);
        Problem::new(ErrorCode::NotFound, message)
    };
    let machine = api.view().machine(&args.machine).ok_or_else(not_found)?;
    let (id, stream, offset, limit) = (args.id, args.stream, args.offset, args.limit);
    let find = move |view: &View| find(view, id, machine.id.clone(), &machine.token, stream, offset, limit);
    let found = api.read(find.clone()).await?.ok_or_else(not_found)?;
    if !found.lacks_bytes {
        return Ok(found);
    }
    // The exit may have been read before the last chunks: two streams, two cursors. What is still missing once
    // OUT was read to its end is gone.
    api.read_through(OUT).await?;
    api.read(find).await?.ok_or_else(not_found)
}

/// The first bytes of a stream, at most `most`, up to where bytes were left out; and whether that is not all there is.
///
/// # Errors
/// Those of [`range`], and `not_caught_up` when the broker does not answer.
pub(crate) async fn head(
    api: &Api,
    caller: &Caller,
    id: CommandId,
    machine: &str,
    stream: OutputStream,
    most: u64,
) -> Result<(Vec<u8>, bool), Problem> {
    let mut bytes = Vec::new();
    loop {
        let offset = bytes.len() as u64;
        let limit = u32::try_from(most.saturating_sub(offset)).unwrap_or(u32::MAX);
        let asked = ReadOutput { id, machine: machine.to_owned(), stream, offset, limit };
        let mut range = range(api, caller, &asked).await?;
        let mut pieces = range.take_pieces();
        while let Some(piece) = pieces.next(api.view()).await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(PieceError::Gone { .. }) => return Ok((bytes, true)),
                Err(error) => return Err(error.problem()),
            }
        }
        let end = bytes.len() as u64;
        if end == offset || end >= most || end >= range.total {
            return Ok((bytes, end < range.total));
        }
    }
}

fn find(
    view: &View,
    id: CommandId,
    machine: MachineId,
    token: &MachineToken,
    stream: OutputStream,
    offset: u64,
    limit: u32,
) -> Result<Option<Range>, StoreError> {
    let Some(run) = view.run(id, token)? else { return Ok(None) };
    let known = match stream {
        OutputStream::Stdout => &run.stdout,
        OutputStream::Stderr => &run.stderr,
    };
    let mut range = Range {
        machine,
        offset,
        len: 0,
        next_offset: None,
        total: known.bytes,
        truncated: known.truncated,
        lacks_bytes: false,
        pieces: VecDeque::new(),
    };
    if let Some(inline) = view.inline(id, token)? {
        let bytes = match stream {
            OutputStream::Stdout => inline.stdout,
            OutputStream::Stderr => inline.stderr,
        };
        range.push(Stored::Inline(bytes.0.into()), 0, limit);
        return Ok(Some(range));
    }
    while range.len < u64::from(limit) && range.pieces.len() < PIECES {
        let at = range.end();
        match view.chunk_covering(id, token, stream, at)? {
            Some(chunk) if chunk.offset <= at && at < chunk.offset + u64::from(chunk.len) => {
                let start = chunk.offset;
                range.push(Stored::Chunk(Box::new(chunk)), start, limit);
            }
            Some(chunk) if chunk.offset > at => {
                range.lacks_bytes = run.state.is_settled() && !known.truncated;
                range.next_offset = range.pieces.is_empty().then_some(chunk.offset);
                break;
            }
            _ => {
                // Behind the last byte that is kept. When the run has ended, no more comes.
                let lost = run.state.is_settled() && at < known.bytes;
                range.lacks_bytes = lost;
                range.next_offset = (lost && range.pieces.is_empty()).then_some(known.bytes);
                break;
            }
        }
    }
    Ok(Some(range))
}

impl Range {
    /// Offset behind its last byte.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    fn push(&mut self, stored: Stored, start: u64, limit: u32) {
        let size = match &stored {
            Stored::Chunk(chunk) => u64::from(chunk.len),
            Stored::Inline(bytes) => bytes.len() as u64,
        };
        let skip = self.end().saturating_sub(start).min(size);
        let take = (size - skip).min(u64::from(limit).saturating_sub(self.len));
        if take > 0 {
            self.len += take;
            let to_usize = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let place = Place { skip: to_usize(skip), take: to_usize(take) };
            self.pieces.push_back(Piece { stored, place });
        }
    }

    /// Takes the pieces, to be read one after the other with [`Pieces::next`].
    pub fn take_pieces(&mut self) -> Pieces {
        Pieces { pieces: std::mem::take(&mut self.pieces) }
    }
}

/// The bytes of a range, piece by piece, so that only one of them is in memory.
#[derive(Debug)]
pub struct Pieces {
    pieces: VecDeque<Piece>,
}

impl Pieces {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`PieceError`].
    pub async fn next(&mut self, view: &View) -> Option<Result<Bytes, PieceError>> {
        let piece = self.pieces.pop_front()?;
        let chunk = match piece.stored {
            Stored::Inline(bytes) => return Some(piece.place.of(&bytes)),
            Stored::Chunk(chunk) => chunk,
        };
        match view.chunk_body(&chunk).await {
            Ok(ChunkBody::Kept(bytes)) => Some(piece.place.of(&bytes)),
            Ok(ChunkBody::Gone { below }) => Some(Err(self.gone(piece.place, below))),
            Err(error) => Some(Err(PieceError::Unanswered(error))),
        }
    }

    /// A piece is gone, and those that follow it and were stored below a position.
    fn gone(&mut self, first: Place, below: u64) -> PieceError {
        let mut len = first.take as u64;
        let is_gone =
            |piece: &mut Piece| matches!(&piece.stored, Stored::Chunk(chunk) if chunk.position < below);
        while let Some(piece) = self.pieces.pop_front_if(is_gone) {
            len += piece.place.take as u64;
        }
        PieceError::Gone { len }
    }
}

/// A piece of output cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PieceError {
    /// The broker dropped it to make room. Not retryable.
    #[error("{len} bytes of output are no longer kept")]
    Gone {
        /// How many bytes are missing, from the piece on: bytes that follow it and are known to be gone are of them.
        len: u64,
    },
    /// The broker did not answer. Retryable.
    #[error("the broker did not answer for output")]
    Unanswered(#[source] BodyError),
}

impl PieceError {
    /// What clients see.
    pub fn problem(&self) -> Problem {
        warn!(error = report(self), "output cannot be read");
        let message = "cannot read this range of output from the broker now; try again";
        Problem::new(ErrorCode::NotCaughtUp, message)
    }
}
