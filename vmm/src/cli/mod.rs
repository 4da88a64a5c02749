//! The command line: one file per subcommand.

mod doctor;
mod guest;
mod heap;
mod last_words;
mod run;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::outcome::{EXIT_ERROR, EXIT_USAGE};
use crate::timeline::{Phase, Timeline, process_start_ns};

/// Starts microVMs on Linux KVM.
#[derive(Parser)]
#[command(name = "mote", version, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a machine on this terminal until its guest ends; without a kernel, the guest inside mote
    #[command(after_help = RUN_HELP)]
    Run(Box<run::RunArgs>),
    /// Write the guest inside mote to a file, to boot it under another VMM
    Guest(guest::GuestArgs),
    /// Say what this host can do, and the cure for what it cannot
    Doctor,
}

const RUN_HELP: &str = "\
Keys: Ctrl-A x ends the machine, Ctrl-A Ctrl-A sends one Ctrl-A; all others, Ctrl-C included, are the guest's.
SIGTERM presses the power button; a second one, SIGINT, SIGHUP or SIGQUIT ends the machine at once.

Exit codes: 0 the guest powered off or asked for a reset; 1 host or configuration error; 2 bad command line;
  3 the guest crashed or panicked; 4 mote made a system call that its seccomp filter forbids; 5 the guest reported
  a status that is not 0; 6 --timeout passed; 128 + n ended by signal n.";

/// The whole program.
pub fn main() -> ExitCode {
    let timeline = Timeline::default();
    timeline.mark(Phase::Exec);
    heap::share_one_arena();
    let wanted = |argument: OsString| argument.as_encoded_bytes().starts_with(b"--timeline");
    let start = std::env::args_os().any(wanted).then(process_start_ns);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    match cli.command {
        Command::Run(args) => run::run(&args, timeline, start.unwrap_or(0)),
        Command::Guest(args) => guest::run(&args),
        Command::Doctor => doctor::run(),
    }
}

/// Prints help or what is wrong with the flags.
fn refuse(error: &clap::Error) -> ExitCode {
    // A closed stderr or stdout leaves nobody to tell.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
}

/// Says one line on stderr.
fn say(line: &str) {
    crate::console::tell(&format!("mote: {line}\n"));
}

fn fail(line: &str) -> ExitCode {
    say(&format!("error: {line}"));
    ExitCode::from(EXIT_ERROR)
}
