#![no_main]

#[path = "../vsock.rs"]
mod vsock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| vsock::check(data));
