//! `cargo xtask fuzz update_frame`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unsaid_fuzz::update_frame(bytes);
});
