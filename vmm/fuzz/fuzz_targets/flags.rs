#![no_main]

#[path = "../flags.rs"]
mod flags;

libfuzzer_sys::fuzz_target!(|data: &[u8]| flags::check(data));
