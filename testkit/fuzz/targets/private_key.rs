//! Texts of private keys: as they are, with a passphrase, and with a text that may be a certificate.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A text behind the key is its certificate, so that an input is a file that somebody may have.
    let (key, certificate) = text.split_once("\n\n").map_or((text, None), |(key, rest)| (key, Some(rest)));
    signalbox_relay::fuzzing::private_key(key, None, certificate);
    signalbox_relay::fuzzing::private_key(key, Some("hunter2"), None);
});
