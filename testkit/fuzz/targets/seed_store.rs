//! Stores of the relay that this one replaces, and what is sealed in them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| signalbox_relay::fuzzing::seed_store(bytes));
