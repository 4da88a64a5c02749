//! What the main function of each bench does.

use std::error::Error;
use std::process::ExitCode;

use crate::report::chain;

/// Runs the bench `name`, and says what was wrong if it fails.
pub fn main(name: &str, bench: impl FnOnce() -> Result<(), Box<dyn Error>>) -> ExitCode {
    if !is_bench() {
        println!("{name}: nothing is measured in a test; run `cargo bench --bench {name}`");
        return ExitCode::SUCCESS;
    }
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Whether this process was started by `cargo bench`, and not to be tested (`cargo test --benches`): a bench that takes
/// minutes and times a shared machine proves nothing there.
fn is_bench() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    given("--bench") && !given("--test")
}
