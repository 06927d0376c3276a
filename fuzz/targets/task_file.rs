//! `cargo xtask fuzz task_file`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unsaid_fuzz::task_file(bytes);
});
