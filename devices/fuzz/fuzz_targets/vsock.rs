#![no_main]

#[path = "../vsock.rs"]
mod vsock;

libfuzzer_sys::fuzz_target!(
    init: {
        // As Rust's runtime does for every program that has its main: a peer that hangs up is an error, not the end.
        // SAFETY: no handler is installed, and no other thread runs yet.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    },
    |data: &[u8]| vsock::check(data)
);
