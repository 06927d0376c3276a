//! `cargo xtask fuzz ledger`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unsaid_fuzz::ledger(bytes);
});
