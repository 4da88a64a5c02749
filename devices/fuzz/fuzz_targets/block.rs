#![no_main]

#[path = "../block.rs"]
mod block;
#[path = "../driver.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| block::check(data));
