//! What a bridge reads from the streams: any bytes on any subject, with any headers.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, u64, &[u8])| {
    let (subject, sequence, body) = input;
    signalbox_bridge::fuzzing::stored(subject, sequence, &Bytes::copy_from_slice(body));
});
