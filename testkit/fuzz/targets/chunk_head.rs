//! Headers of output.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signalbox_schemas::output::{COUNTER_HEADER, CUT_HEADER, ChunkHead, OFFSET_HEADER, SHA256_HEADER, STREAM_HEADER};

fuzz_target!(|input: (Option<&str>, Option<&str>, Option<&str>, Option<&str>, Option<&str>)| {
    let (stream, offset, counter, sha256, cut) = input;
    let read = |name: &str| match name {
        STREAM_HEADER => stream,
        OFFSET_HEADER => offset,
        COUNTER_HEADER => counter,
        SHA256_HEADER => sha256,
        CUT_HEADER => cut,
        _ => None,
    };
    let Ok(head) = ChunkHead::from_headers(read) else { return };
    let written = head.to_headers();
    let again = ChunkHead::from_headers(|name| {
        written.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str())
    });
    assert_eq!(again, Ok(head));
});
