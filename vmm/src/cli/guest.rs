//! `mote guest`: the embedded guest as a file.

use std::path::PathBuf;
use std::process::ExitCode;

use super::fail;

#[derive(clap::Args)]
pub(super) struct GuestArgs {
    /// The ELF file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn run(args: &GuestArgs) -> ExitCode {
    match std::fs::write(&args.output, guest_kernel::ELF) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write {}: {error}", args.output.display())),
    }
}
