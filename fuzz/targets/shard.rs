//! `cargo xtask fuzz shard`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unsaid_fuzz::shard(bytes);
});
