#![no_main]

#[path = "../cmdline.rs"]
mod cmdline;

libfuzzer_sys::fuzz_target!(|data: &[u8]| cmdline::check(data));
