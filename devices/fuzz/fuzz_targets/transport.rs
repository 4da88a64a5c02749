#![no_main]

#[path = "../transport.rs"]
mod transport;

libfuzzer_sys::fuzz_target!(|data: &[u8]| transport::check(data));
