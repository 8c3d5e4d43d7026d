//! What may lie where a vault should be.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| signalbox_relay::fuzzing::vault_file(bytes));
