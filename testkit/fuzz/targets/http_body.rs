//! Bodies of HTTP requests and operations: those of the API, and those of the older system with and without their spool.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, body) = input;
    signalbox_bridge::fuzzing::body(kind, body);
});
