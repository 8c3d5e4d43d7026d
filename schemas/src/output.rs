//! Output chunks: raw bytes, with these headers.
//!
//! A chunk goes to `out.<ws>.<mid>.<cid>`; its body is what the process wrote, untouched. Losing chunks never
//! changes a state: sizes and hashes of the whole stand in the signed exit.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::id::Sha256;

/// Header: `stdout` or `stderr`.
pub const STREAM_HEADER: &str = "Sb-Stream";
/// Header: absolute offset of the first byte within its stream, decimal.
pub const OFFSET_HEADER: &str = "Sb-Offset";
/// Header: run-wide counter of chunks over both streams, from 0, decimal.
pub const COUNTER_HEADER: &str = "Sb-Counter";
/// Header: SHA-256 over the stream up to and with this chunk. Absent on chunks past a cut.
pub const SHA256_HEADER: &str = "Sb-Sha256";
/// Header: present (`1`) on the notice that bulk output stops at this offset; its body is empty.
pub const CUT_HEADER: &str = "Sb-Cut";

/// Headers for eyes on every stored message; never for decisions.
pub mod eyes {
    /// The type of the signed payload.
    pub const TYPE: &str = "Sb-Type";
    /// Who signed.
    pub const BY: &str = "Sb-By";
    /// In whose name, where that is somebody other than who signed.
    pub const FOR: &str = "Sb-For";
    /// One line of what it says.
    pub const SUMMARY: &str = "Sb-Summary";
}

/// One of the two streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither stdout nor stderr")]
pub struct StreamNameError;

impl FromStr for OutputStream {
    type Err = StreamNameError;

    fn from_str(text: &str) -> Result<Self, StreamNameError> {
        Self::ALL.into_iter().find(|stream| stream.as_str() == text).ok_or(StreamNameError)
    }
}

/// Where a chunk belongs; the body is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHead {
    /// Its stream.
    pub stream: OutputStream,
    /// Offset of its first byte.
    pub offset: u64,
    /// Run-wide counter.
    pub counter: u64,
    /// SHA-256 up to and with this chunk.
    pub sha256: Option<Sha256>,
    /// Whether this is the notice of a cut.
    pub cut: bool,
}

/// The headers of a chunk are missing or malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chunk header {0} is missing or malformed")]
pub struct ChunkError(pub &'static str);

impl ChunkHead {
    /// Header names and values, to be put on the message.
    pub fn to_headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            (STREAM_HEADER, self.stream.to_string()),
            (OFFSET_HEADER, self.offset.to_string()),
            (COUNTER_HEADER, self.counter.to_string()),
        ];
        headers.extend(self.sha256.map(|sha256| (SHA256_HEADER, sha256.to_string())));
        headers.extend(self.cut.then(|| (CUT_HEADER, "1".to_owned())));
        headers
    }

    /// Reads the headers; `get` answers a header's only value.
    ///
    /// # Errors
    /// [`ChunkError`] naming the first header that is wrong.
    pub fn from_headers<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, ChunkError> {
        fn number(text: Option<&str>, name: &'static str) -> Result<u64, ChunkError> {
            let text = text.filter(|t| t.len() <= 20 && t.bytes().all(|b| b.is_ascii_digit()));
            text.and_then(|t| t.parse().ok()).ok_or(ChunkError(name))
        }
        let stream = get(STREAM_HEADER).and_then(|t| t.parse().ok()).ok_or(ChunkError(STREAM_HEADER))?;
        let sha256 = get(SHA256_HEADER).map(str::parse).transpose().map_err(|_| ChunkError(SHA256_HEADER))?;
        Ok(Self {
            stream,
            offset: number(get(OFFSET_HEADER), OFFSET_HEADER)?,
            counter: number(get(COUNTER_HEADER), COUNTER_HEADER)?,
            sha256,
            cut: get(CUT_HEADER) == Some("1"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn headers_are_read_as_they_were_written() {
        for sha256 in [None, Some(Sha256::of(b"x"))] {
            let head = ChunkHead { stream: OutputStream::Stderr, offset: 7, counter: 3, sha256, cut: false };
            let headers: HashMap<_, _> = head.to_headers().into_iter().collect();
            assert_eq!(ChunkHead::from_headers(|name| headers.get(name).map(String::as_str)), Ok(head));
        }
    }

    #[test]
    fn odd_numbers_are_refused() {
        for bad in ["", "+1", "-1", "1.0", "99999999999999999999999", " 1"] {
            let get = |name: &str| match name {
                STREAM_HEADER => Some("stdout"),
                OFFSET_HEADER => Some(bad),
                _ => Some("1"),
            };
            assert!(ChunkHead::from_headers(get).is_err(), "accepted {bad:?}");
        }
    }
}
