//! Values that a center of the older system hands out.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| signalbox_relay::fuzzing::shared_value(input.0, input.1));
