#![no_main]

#[path = "../balloon.rs"]
mod balloon;
#[path = "../driver.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| balloon::check(data));
