//! `cargo xtask fuzz records`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unsaid_fuzz::records(bytes);
});
