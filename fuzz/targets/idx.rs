//! `cargo xtask fuzz idx`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unsaid_fuzz::idx(bytes);
});
