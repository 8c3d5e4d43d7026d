//! Streams, from their first message to their last.

use std::time::Duration;

use anyhow::{Context as _, Result};
use signalbox_link::{Link, Message};
use signalbox_schemas::{
    Base64Url,
    output::{ChunkHead, OutputStream},
};
use tokio::time::timeout;

use crate::{
    observed::{Chunk, Stored},
    told::Piece,
};

/// Messages at once.
const BATCH: usize = 500;
/// How long a stream may be silent though it has more.
const SILENCE: Duration = Duration::from_mins(1);

/// All that a stream holds now.
pub(super) async fn read(link: &Link, name: &str) -> Result<Vec<Message>> {
    let state = link.stream_state(name).await.with_context(|| format!("looking at {name}"))?;
    let mut messages = Vec::new();
    if state.messages == 0 {
        return Ok(messages);
    }
    let mut follow = link.follow(name, state.first, None);
    // What was deleted at the end of the stream never comes; then nothing is pending.
    while follow.next_sequence() <= state.last && (messages.is_empty() || follow.pending() > 0) {
        let batch = timeout(SILENCE, follow.next_batch(BATCH)).await;
        messages.extend(batch.with_context(|| format!("{name} is silent"))??);
    }
    Ok(messages)
}

pub(super) fn stored(message: Message) -> Stored {
    Stored {
        subject: message.subject,
        sequence: message.sequence,
        at: message.time_ms,
        body: Base64Url(message.payload.to_vec()),
    }
}

pub(super) fn chunk(message: Message) -> Chunk {
    let head = ChunkHead::from_headers(|name| message.headers.get(name));
    let (stream, offset) = head.map_or((OutputStream::Stdout, 0), |head| (head.stream, head.offset));
    Chunk {
        subject: message.subject,
        sequence: message.sequence,
        head: head.map(Into::into).map_err(|error| error.to_string()),
        piece: Piece::of(stream, offset, &message.payload),
    }
}
