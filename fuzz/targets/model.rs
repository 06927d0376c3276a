//! `cargo xtask fuzz model`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unsaid_fuzz::model(bytes);
});
