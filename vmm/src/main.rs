//! The `mote` binary: see `vmm::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    vmm::cli::main()
}
