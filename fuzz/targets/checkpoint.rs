//! `cargo xtask fuzz checkpoint`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unsaid_fuzz::checkpoint(bytes);
});
