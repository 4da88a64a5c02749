#![no_main]

#[path = "../driver.rs"]
mod driver;
#[path = "../rng.rs"]
mod rng;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rng::check(data));
