//! `cargo xtask fuzz manifest`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unsaid_fuzz::manifest(bytes);
});
