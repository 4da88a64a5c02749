#![no_main]

#[path = "../unpack.rs"]
mod unpack;

libfuzzer_sys::fuzz_target!(|data: &[u8]| unpack::check(data));
