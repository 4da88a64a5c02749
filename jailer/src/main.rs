//! The `mote-jailer` binary: see `jailer::jail`.

use std::process::ExitCode;

fn main() -> ExitCode {
    jailer::jail::main()
}
