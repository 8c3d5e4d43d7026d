//! What a center of the older system may answer to a relay.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &str, &[u8])| {
    let (status, content_type, body) = input;
    signalbox_relay::fuzzing::center_answer(status, content_type, body);
});
