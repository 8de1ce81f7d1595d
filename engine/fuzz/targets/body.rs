//! Bodies and filters of requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| windlassd::fuzzing::body(bytes));
