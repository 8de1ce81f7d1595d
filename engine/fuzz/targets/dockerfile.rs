//! Dockerfiles.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| windlassd::fuzzing::dockerfile(bytes));
