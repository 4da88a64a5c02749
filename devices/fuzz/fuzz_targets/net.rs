#![no_main]

#[path = "../driver.rs"]
mod driver;
#[path = "../net.rs"]
mod net;

libfuzzer_sys::fuzz_target!(|data: &[u8]| net::check(data));
