//! The body of a result, read from the spool while it is sent.
//!
//! Its output is cut where the body would become larger than what it may be: the first part of each stream stays, a line
//! says how much is left out, and the last [`TAIL_BYTES`] stay. A stream that needs less than its half leaves the rest to the
//! other one. A cut says nothing of how the command ended, so it stands in the output and not in `error`.

use std::{
    collections::VecDeque,
    io::{self, Read},
    path::{Path, PathBuf},
};

use signalbox_schemas::{
    id::CommandId,
    output::OutputStream::{self, Stderr, Stdout},
};

use super::{
    text::{Escaper, continues, escape},
    wire::Ended,
};
use crate::keeper::{
    protocol::StreamStatus,
    spool::{left_behind, read_spool},
};

/// Most output of both streams in one body, as JSON text. With all that is around it the body is below 16 MiB.
pub(super) const OUTPUT_BYTES: u64 = 15 * 1024 * 1024;
/// Output is not cut to less than this, however little a center takes.
pub(super) const MIN_OUTPUT_BYTES: u64 = 256 * 1024;
/// So much of the end of a cut stream stays, as it was written.
const TAIL_BYTES: u64 = 16 * 1024;
/// Most JSON text that one byte of output becomes: `\u0000`.
const MAX_GROWTH: u64 = 6;
/// Room for the line that says what is left out.
const MARKER_BYTES: u64 = 64;
/// So much of the spool is read at once.
const BLOCK_BYTES: usize = 64 * 1024;
/// A cut is found to this many bytes.
const STEP_BYTES: usize = 1024;

/// Bytes of the longest character.
const LONGEST_CHARACTER: usize = 4;

const _: () =
    assert!(MIN_OUTPUT_BYTES / 2 > TAIL_BYTES * MAX_GROWTH + MARKER_BYTES, "a cut stream has a beginning");

/// Where output lies.
#[derive(Debug, Clone)]
struct Spool {
    store: PathBuf,
    cid: CommandId,
}

impl Spool {
    /// The next block of a stream from `from` on, up to `to`.
    fn block(&self, stream: OutputStream, from: u64, to: u64) -> io::Result<bytes::Bytes> {
        let wanted = usize::try_from(to.saturating_sub(from)).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        let block = read_spool(&self.store, self.cid, stream, from, wanted)?;
        if block.is_empty() && wanted > 0 {
            return Err(io::Error::other("output is gone from the spool"));
        }
        Ok(block)
    }

    /// Length of a part as JSON text.
    fn text_bytes(&self, stream: OutputStream, mut from: u64, to: u64) -> io::Result<u64> {
        let (mut escaper, mut text, mut length) = (Escaper::default(), Vec::new(), 0);
        while from < to {
            let block = self.block(stream, from, to)?;
            from += block.len() as u64;
            escaper.push(&block, &mut text);
            length += text.len() as u64;
            text.clear();
        }
        escaper.finish(&mut text);
        Ok(length + text.len() as u64)
    }

    /// Where a beginning ends that is no longer than `room` as JSON text. Between two characters.
    fn fitting(&self, stream: OutputStream, to: u64, room: u64) -> io::Result<u64> {
        let (mut escaper, mut text, mut at, mut length) = (Escaper::default(), Vec::new(), 0, 0);
        while at < to {
            let block = self.block(stream, at, to)?;
            for step in block.chunks(STEP_BYTES) {
                escaper.push(step, &mut text);
                length += text.len() as u64;
                text.clear();
                if length > room {
                    return self.between_characters(stream, at, true);
                }
                at += step.len() as u64;
            }
        }
        Ok(to)
    }

    /// The next place that is in no character, before `at` or after it.
    fn between_characters(&self, stream: OutputStream, at: u64, is_before: bool) -> io::Result<u64> {
        let mut place = at;
        for _ in 0..LONGEST_CHARACTER {
            let byte = read_spool(&self.store, self.cid, stream, place, 1)?;
            if !byte.first().is_some_and(|byte| continues(*byte)) {
                return Ok(place);
            }
            place = if is_before { place.saturating_sub(1) } else { place + 1 };
        }
        // That is no text anyway.
        Ok(at)
    }
}

/// What of a stream goes into a body: the beginning up to `head`, and what is between `tail` and `kept_to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    head: u64,
    tail: u64,
    kept_to: u64,
    /// Bytes that are left out.
    missing: u64,
}

impl Cut {
    /// All that is kept of a stream to which `bytes` were written.
    fn nothing(kept: &StreamStatus, bytes: u64) -> Self {
        let kept_to = kept.tail.map_or(kept.kept, |tail| tail.offset.saturating_add(tail.len));
        let tail = kept.tail.map_or(kept.kept, |tail| tail.offset);
        let gap = tail - kept.kept.min(tail);
        Self { head: kept.kept, tail, kept_to, missing: gap + bytes.saturating_sub(kept_to) }
    }

    fn text_bytes(&self, spool: &Spool, stream: OutputStream) -> io::Result<u64> {
        let head = spool.text_bytes(stream, 0, self.head)?;
        Ok(head + spool.text_bytes(stream, self.tail, self.kept_to)? + MARKER_BYTES)
    }

    /// The same in no more than `room`.
    fn within(self, spool: &Spool, stream: OutputStream, room: u64) -> io::Result<Self> {
        let last = self.kept_to.saturating_sub(TAIL_BYTES);
        // The end is what lies together there: with the beginning, or apart from it.
        let from = if last >= self.tail || self.tail == self.head { last } else { self.tail };
        let tail = spool.between_characters(stream, from, false)?.min(self.kept_to);
        let head_room = room.saturating_sub(TAIL_BYTES * MAX_GROWTH + MARKER_BYTES);
        let head = spool.fitting(stream, self.head.min(tail), head_room)?;
        let left_out = tail - head;
        let was_left_out = self.tail - self.head.min(self.tail);
        Ok(Self { head, tail, missing: self.missing + left_out - was_left_out, ..self })
    }

    fn parts(self, stream: OutputStream) -> Vec<Part> {
        if self.missing == 0 {
            return vec![Part::Kept { stream, from: 0, to: self.kept_to }];
        }
        let mut marker = Vec::new();
        escape(&format!("\n[... {} bytes left out ...]\n", self.missing), &mut marker);
        let head = Part::Kept { stream, from: 0, to: self.head };
        vec![head, Part::Text(marker), Part::Kept { stream, from: self.tail, to: self.kept_to }]
    }
}

/// A piece of the body.
#[derive(Debug, Clone)]
enum Part {
    Text(Vec<u8>),
    Kept { stream: OutputStream, from: u64, to: u64 },
}

/// A body while it is read.
#[derive(Debug)]
pub(super) struct ResultBody {
    spool: Spool,
    parts: VecDeque<Part>,
    escaper: Escaper,
    /// What is ready, and how much of it was taken.
    ready: Vec<u8>,
    taken: usize,
}

/// The body that says how a command ended, with at most `most_output` bytes of its output as JSON text, and its length.
/// Blocks on the disk.
///
/// # Errors
/// When what is in the spool cannot be read.
pub(super) fn compose(
    store: &Path,
    cid: CommandId,
    ended: &Ended,
    most_output: u64,
) -> io::Result<(ResultBody, u64)> {
    let spool = Spool { store: store.to_owned(), cid };
    let [kept_out, kept_err] = left_behind(store, cid);
    let [bytes_out, bytes_err] = ended.bytes;
    let (mut out, mut err) = (Cut::nothing(&kept_out, bytes_out), Cut::nothing(&kept_err, bytes_err));
    let (need_out, need_err) = (out.text_bytes(&spool, Stdout)?, err.text_bytes(&spool, Stderr)?);
    if need_out + need_err > most_output {
        let half = most_output / 2;
        let (room_out, room_err) = (most_output - need_err.min(half), most_output - need_out.min(half));
        if need_out > room_out {
            out = out.within(&spool, Stdout, room_out)?;
        }
        if need_err > room_err {
            err = err.within(&spool, Stderr, room_err)?;
        }
    }
    let parts = [
        vec![Part::Text(begin(ended))],
        out.parts(Stdout),
        vec![Part::Text(br#"","stderr":""#.to_vec())],
        err.parts(Stderr),
        vec![Part::Text(said(ended, bytes_err))],
        vec![Part::Text(end(ended))],
    ];
    let parts: VecDeque<Part> = parts.into_iter().flatten().collect();
    let mut length = 0;
    for part in &parts {
        length += match part {
            Part::Text(text) => text.len() as u64,
            Part::Kept { stream, from, to } => spool.text_bytes(*stream, *from, *to)?,
        };
    }
    Ok((ResultBody { spool, parts, escaper: Escaper::default(), ready: Vec::new(), taken: 0 }, length))
}

/// What the relay itself says at the end of a standard error to which the command wrote `bytes`.
fn said(ended: &Ended, bytes: u64) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(fault) = &ended.fault {
        if bytes > 0 {
            escape("\n", &mut text);
        }
        escape(fault, &mut text);
    } else if let Some(error) = ended.error.as_ref().filter(|_| ended.is_told_twice && bytes == 0) {
        escape(error, &mut text);
    }
    text
}

/// Up to the quote before the output.
fn begin(ended: &Ended) -> Vec<u8> {
    let mut text = br#"{"commandId":""#.to_vec();
    escape(&ended.command_id, &mut text);
    text.extend_from_slice(format!(r#"","success":{},"output":""#, ended.success).as_bytes());
    text
}

/// From the quote after the standard error on.
fn end(ended: &Ended) -> Vec<u8> {
    let mut text = format!(r#"","exitCode":{}"#, ended.exit_code).into_bytes();
    if let Some(error) = &ended.error {
        text.extend_from_slice(br#","error":""#);
        escape(error, &mut text);
        text.push(b'"');
    }
    text.extend_from_slice(format!(r#","durationMs":{}}}"#, ended.duration_ms).as_bytes());
    text
}

impl ResultBody {
    /// Makes more of the body ready. `false` at its end.
    fn advance(&mut self) -> io::Result<bool> {
        self.ready.clear();
        self.taken = 0;
        while self.ready.is_empty() {
            match self.parts.front_mut() {
                None => return Ok(false),
                Some(Part::Text(text)) => {
                    std::mem::swap(&mut self.ready, text);
                    self.parts.pop_front();
                }
                Some(Part::Kept { stream, from, to }) => {
                    if *from < *to {
                        let block = self.spool.block(*stream, *from, *to)?;
                        *from += block.len() as u64;
                        self.escaper.push(&block, &mut self.ready);
                    } else {
                        self.escaper.finish(&mut self.ready);
                        self.parts.pop_front();
                    }
                }
            }
        }
        Ok(true)
    }
}

impl Read for ResultBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.ready.len() && !self.advance()? {
            return Ok(0);
        }
        let rest = self.ready.get(self.taken..).unwrap_or_default();
        let taken = Read::read(&mut &*rest, buffer)?;
        self.taken += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::Value;
    use std::fs;

    fn cid() -> CommandId {
        CommandId::from_idempotency_key("test", "1")
    }

    fn ended(bytes: [u64; 2]) -> Ended {
        Ended { success: true, exit_code: 0, error: None, bytes, ..Ended::without_a_run("c\"1", "") }
    }

    struct Room(tempfile::TempDir);

    impl Room {
        fn new(out: &[u8], err: &[u8]) -> Self {
            let room = Self(tempfile::tempdir().unwrap());
            fs::create_dir(room.0.path().join("spool")).unwrap();
            room.write("out", out);
            room.write("err", err);
            room
        }

        fn write(&self, ending: &str, bytes: &[u8]) {
            if !bytes.is_empty() {
                fs::write(self.0.path().join("spool").join(format!("{}.{ending}", cid())), bytes).unwrap();
            }
        }

        fn body(&self, ended: &Ended, most: u64) -> String {
            let (mut body, length) = compose(self.0.path(), cid(), ended, most).unwrap();
            let mut text = String::new();
            body.read_to_string(&mut text).unwrap();
            assert_eq!(text.len() as u64, length, "the length that was announced");
            text
        }
    }

    #[test]
    fn a_body_has_its_members_in_order() {
        let room = Room::new("a\0ß\n".as_bytes(), b"\xff");
        let body = room.body(&ended([5, 1]), OUTPUT_BYTES);
        let expected = "{\"commandId\":\"c\\\"1\",\"success\":true,\"output\":\"a\\u0000ß\\n\",\"stderr\":\"\u{fffd}\",\"exitCode\":0,\"durationMs\":0}";
        assert_eq!(body, expected);
        let failed = Ended::without_a_run("c1", "no \"way\"");
        let body = Room::new(b"", b"").body(&failed, OUTPUT_BYTES);
        let expected = r#"{"commandId":"c1","success":false,"output":"","stderr":"","exitCode":-1,"error":"no \"way\"","durationMs":0}"#;
        assert_eq!(body, expected);
        let body = Room::new(b"", b"").body(&Ended { is_told_twice: true, ..failed }, OUTPUT_BYTES);
        assert_eq!(body, expected.replace(r#""stderr":"""#, r#""stderr":"no \"way\"""#));
    }

    #[rstest]
    #[case::alone(b"", "it may go on")]
    #[case::behind_what_was_written(b"err", "err\nit may go on")]
    #[case::behind_half_a_character(b"err\xe2\x82", "err\u{fffd}\nit may go on")]
    fn what_went_wrong_beside_the_error_is_told(#[case] written: &[u8], #[case] stderr: &str) {
        let late = Ended { fault: Some("it may go on".to_owned()), ..Ended::without_a_run("c1", "late") };
        let late = Ended { bytes: [0, written.len() as u64], ..late };
        let body = Room::new(b"", written).body(&late, OUTPUT_BYTES);
        assert_eq!(streams(&body), ["", stderr]);
        assert!(body.contains(r#""error":"late""#), "{body}");
    }

    fn streams(body: &str) -> [String; 2] {
        let body: Value = serde_json::from_str(body).unwrap();
        ["output", "stderr"].map(|name| body[name].as_str().unwrap().to_owned())
    }

    #[rstest]
    #[case("", "€")]
    #[case("a", "😀")]
    #[case("aa", "😀")]
    #[case("aaa", "😀")]
    fn what_is_too_long_loses_its_middle(#[case] begin: &str, #[case] character: &str) {
        let out = format!("{begin}{}", character.repeat(400_000));
        let room = Room::new(out.as_bytes(), b"short");
        let most = MIN_OUTPUT_BYTES;
        let [output, stderr] = streams(&room.body(&ended([out.len() as u64, 5]), most));
        assert_eq!(stderr, "short");
        assert!(!output.contains('\u{fffd}'), "a character was cut");
        let (head, rest) = output.split_once("\n[... ").unwrap();
        let (missing, tail) = rest.split_once(" bytes left out ...]\n").unwrap();
        let missing: usize = missing.parse().unwrap();
        assert_eq!(head.len() + missing + tail.len(), out.len());
        assert!(tail.len() as u64 > TAIL_BYTES - 4 && head.len() as u64 > most / 2);
        assert!((head.len() + tail.len()) as u64 <= most);
    }

    #[test]
    fn two_long_streams_get_a_half_each_however_they_grow() {
        let room = Room::new(&vec![0; 500_000], &vec![b'x'; 500_000]);
        let body = room.body(&ended([500_000, 500_000]), MIN_OUTPUT_BYTES);
        assert!(body.len() as u64 <= MIN_OUTPUT_BYTES + 1024, "{}", body.len());
        let [output, stderr] = streams(&body);
        assert!(output.contains("bytes left out") && stderr.contains("bytes left out"));
        assert!(output.starts_with("\0\0") && output.ends_with("\0\0") && stderr.ends_with("xx"));
    }

    #[test]
    fn what_the_keeper_cut_is_counted_as_well() {
        let room = Room::new(b"begin", b"");
        let mut tail = 100_u64.to_be_bytes().to_vec();
        tail.extend_from_slice(b"end");
        room.write("out.tail", &tail);
        let body = room.body(&ended([103, 0]), OUTPUT_BYTES);
        assert_eq!(streams(&body)[0], "begin\n[... 95 bytes left out ...]\nend");
        let together = Room::new(b"begin", b"");
        let mut tail = 5_u64.to_be_bytes().to_vec();
        tail.extend_from_slice(b"end");
        together.write("out.tail", &tail);
        assert_eq!(streams(&together.body(&ended([8, 0]), OUTPUT_BYTES))[0], "beginend");
        let lost = Room::new(b"", b"").body(&ended([7, 0]), OUTPUT_BYTES);
        assert_eq!(streams(&lost)[0], "\n[... 7 bytes left out ...]\n");
    }
}
