//! What the main function of each bench does.

use std::error::Error;
use std::process::ExitCode;

use crate::report::chain;

/// What all benches understand.
pub const ENVIRONMENT: &str = "\
Environment:
  MOTE_BENCH_RUNS=N          interleaved runs; 0 leaves out all but criterion's part
  MOTE_BENCH_SUBJECTS=A,B    only these; an unknown name prints all
  MOTE_BENCH_MACHINES=N      machines at once, where the bench is about many (default 50)
  MOTE_BENCH_SEED=N          repeats the random order of another run
  MOTE_PEER_FIRECRACKER, MOTE_PEER_CLOUD_HYPERVISOR, MOTE_PEER_QEMU=PATH
                             where a peer is, if not on PATH

docs/benchmark.md tells how to read what is printed.";

/// Runs the bench `name`, and says what was wrong if it fails. Asked for help, it says which `question` it answers, and how to ask;
/// a bench with a parser of its own has none here.
pub fn main(
    name: &str,
    question: Option<&str>,
    bench: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    if let Some(question) = question.filter(|_| given("--help") || given("-h")) {
        println!("{}", help(name, question));
        return ExitCode::SUCCESS;
    }
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
    given("--bench") && !given("--test")
}

fn given(name: &str) -> bool {
    std::env::args().any(|argument| argument == name)
}

fn help(name: &str, question: &str) -> String {
    format!(
        "\
{question}

Usage: cargo bench --bench {name} [-- --save-baseline NAME | --baseline NAME]

  --save-baseline NAME, --baseline NAME
                             keep the figures, compare with those kept: criterion's part of cold_start and idle_memory,
                             which take its other flags, too; the other benches have none

{ENVIRONMENT}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_the_bench_and_every_variable() {
        let text = help("exits", "What an exit costs.");
        assert!(text.starts_with("What an exit costs.\n\nUsage: cargo bench --bench exits "), "{text}");
        let options = include_str!("options.rs");
        let variables =
            options.split('"').filter(|word| word.starts_with("MOTE_BENCH_") && !word.contains([' ', '=']));
        assert!(variables.clone().count() >= 4);
        variables.for_each(|name| assert!(text.contains(name), "{name}"));
    }
}
