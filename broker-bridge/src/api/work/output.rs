//! Output that came whole, on its way into OUT: small output travels in the exit itself, the rest in chunks.

use std::collections::VecDeque;

use bytes::Bytes;
use sha2::{Digest as _, Sha256 as Hasher};
use signalbox_link::{Headers, PendingStore, Store, StoreError};
use signalbox_schemas::{
    Base64Url,
    id::{CommandId, MachineToken, Sha256},
    limit::{CHUNK_BYTES, CHUNKS_IN_FLIGHT, INLINE_OUTPUT_BYTES},
    output::{ChunkHead, OutputStream},
    run::{InlineOutput, StreamSummary},
    subject::Subject,
};
use tokio::time::{Instant, sleep};

use super::{super::Api, PAUSE};

/// Whose output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) mid: &'a MachineToken,
    pub(super) cid: CommandId,
}

/// What the exit says of the output.
pub(super) struct Written {
    /// Of stdout and stderr.
    pub(super) summaries: [StreamSummary; 2],
    pub(super) chunks: u64,
    pub(super) inline: Option<InlineOutput>,
}

/// One chunk of a text.
struct Chunk<'a> {
    head: ChunkHead,
    body: &'a [u8],
}

/// Cuts both texts into chunks, `max_output` bytes in all, and says what the whole amounts to. Pure.
fn cut(texts: [&[u8]; 2], max_output: u64) -> (Vec<Chunk<'_>>, [StreamSummary; 2]) {
    let mut left = usize::try_from(max_output).unwrap_or(usize::MAX);
    let mut chunks: Vec<Chunk<'_>> = Vec::new();
    let summaries = [OutputStream::Stdout, OutputStream::Stderr].map(|stream| {
        let [stdout, stderr] = texts;
        let text = if stream == OutputStream::Stdout { stdout } else { stderr };
        let kept = text.get(..left.min(text.len())).unwrap_or_default();
        left -= kept.len();
        let (mut hasher, mut offset) = (Hasher::new(), 0);
        for body in kept.chunks(CHUNK_BYTES) {
            hasher.update(body);
            let sha256 = Some(Sha256(hasher.clone().finalize().into()));
            let head = ChunkHead { stream, offset, counter: chunks.len() as u64, sha256, cut: false };
            chunks.push(Chunk { head, body });
            offset += body.len() as u64;
        }
        let truncated = kept.len() < text.len();
        if truncated {
            let head = ChunkHead { stream, offset, counter: chunks.len() as u64, sha256: None, cut: true };
            chunks.push(Chunk { head, body: &[] });
        }
        StreamSummary { bytes: text.len() as u64, sha256: Sha256::of(text), truncated }
    });
    (chunks, summaries)
}

/// Stores the output, unless the exit can carry it; ends when all of it is acknowledged. Written again it changes nothing:
/// a second chunk at an offset is ignored.
///
/// # Errors
/// [`StoreError`], when the broker has not acknowledged all of it by `deadline`.
pub(super) async fn write(
    api: &Api,
    place: Place<'_>,
    texts: [&[u8]; 2],
    max_output: u64,
    deadline: Instant,
) -> Result<Written, StoreError> {
    let (chunks, summaries) = cut(texts, max_output);
    let [stdout, stderr] = texts;
    let is_small = stdout.len() + stderr.len() <= INLINE_OUTPUT_BYTES;
    if is_small && !summaries.iter().any(|summary| summary.truncated) {
        let inline = InlineOutput { stdout: Base64Url(stdout.to_vec()), stderr: Base64Url(stderr.to_vec()) };
        return Ok(Written { summaries, chunks: 0, inline: Some(inline) });
    }
    let subject = Subject::Output(api.ws().clone(), place.mid.clone(), place.cid).to_string();
    let mut on_their_way = VecDeque::new();
    for chunk in &chunks {
        if on_their_way.len() >= CHUNKS_IN_FLIGHT {
            acknowledged(api, &mut on_their_way, deadline).await?;
        }
        let message = message(&subject, chunk);
        let sent = api.link().store_pipelined(message.clone()).await;
        on_their_way.push_back((message, sent));
    }
    while !on_their_way.is_empty() {
        acknowledged(api, &mut on_their_way, deadline).await?;
    }
    Ok(Written { summaries, chunks: chunks.len() as u64, inline: None })
}

fn message(subject: &str, chunk: &Chunk<'_>) -> Store {
    let headers = chunk.head.to_headers();
    let headers = headers.iter().fold(Headers::new(), |headers, (name, value)| headers.with(name, value));
    Store::new(subject, Bytes::copy_from_slice(chunk.body)).with_headers(headers)
}

type OnTheirWay = VecDeque<(Store, Result<PendingStore, StoreError>)>;

/// Waits for the oldest acknowledgement; what is not acknowledged is sent again until `deadline`.
async fn acknowledged(api: &Api, on_their_way: &mut OnTheirWay, deadline: Instant) -> Result<(), StoreError> {
    let Some((message, sent)) = on_their_way.pop_front() else { return Ok(()) };
    let mut stored = match sent {
        Ok(pending) => pending.stored().await,
        Err(error) => Err(error),
    };
    while let Err(error) = stored {
        let is_passing = matches!(error, StoreError::Unanswered { .. } | StoreError::Full);
        if !is_passing || Instant::now() >= deadline {
            return Err(error);
        }
        sleep(PAUSE).await;
        stored = api.link().store(message.clone()).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chunks of both streams put together again, by stream, and where each stream was cut.
    fn together(chunks: &[Chunk<'_>]) -> ([Vec<u8>; 2], [Option<u64>; 2]) {
        let (mut texts, mut cuts) = ([Vec::new(), Vec::new()], [None, None]);
        for (at, chunk) in chunks.iter().enumerate() {
            let i = usize::from(chunk.head.stream == OutputStream::Stderr);
            assert_eq!(chunk.head.counter, at as u64);
            assert_eq!(chunk.head.offset, texts[i].len() as u64);
            if chunk.head.cut {
                cuts[i] = Some(chunk.head.offset);
                continue;
            }
            assert!((1..=CHUNK_BYTES).contains(&chunk.body.len()));
            texts[i].extend_from_slice(chunk.body);
            assert_eq!(chunk.head.sha256, Some(Sha256::of(&texts[i])));
        }
        (texts, cuts)
    }

    #[test]
    fn chunks_are_the_text() {
        let (a, b) = (vec![b'a'; CHUNK_BYTES * 2 + 1], vec![b'b'; 5]);
        let (chunks, [stdout, stderr]) = cut([&a, &b], u64::MAX);
        assert_eq!(chunks.len(), 4);
        assert_eq!(together(&chunks), ([a.clone(), b.clone()], [None, None]));
        assert_eq!((stdout.bytes, stdout.sha256, stdout.truncated), (a.len() as u64, Sha256::of(&a), false));
        assert_eq!((stderr.bytes, stderr.sha256, stderr.truncated), (5, Sha256::of(&b), false));
        assert!(cut([b"", b""], 0).0.is_empty());
    }

    #[test]
    fn what_is_too_much_is_cut_and_counted() {
        let (chunks, [stdout, stderr]) = cut([b"abc", b"de"], 4);
        assert_eq!(together(&chunks), ([b"abc".to_vec(), b"d".to_vec()], [None, Some(1)]));
        assert!(!stdout.truncated && stderr.truncated);
        assert_eq!((stderr.bytes, stderr.sha256), (2, Sha256::of(b"de")));
        let (chunks, [stdout, _]) = cut([b"abc", b""], 0);
        assert_eq!(together(&chunks), ([vec![], vec![]], [Some(0), None]));
        assert!(stdout.truncated);
    }
}
