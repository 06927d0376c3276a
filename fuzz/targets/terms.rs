//! `cargo xtask fuzz terms`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unsaid_fuzz::terms(bytes);
});
