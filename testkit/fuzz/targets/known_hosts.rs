//! What may stand in a file of known hosts: a person's editor, other tools and other machines write it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    let (host, text) = input;
    signalbox_relay::fuzzing::known_hosts(text, host);
});
