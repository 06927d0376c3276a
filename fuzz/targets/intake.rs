//! `cargo xtask fuzz intake`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unsaid_fuzz::intake(bytes);
});
