//! Layers: archives as registries and files bring them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| windlassd::fuzzing::layer(bytes));
