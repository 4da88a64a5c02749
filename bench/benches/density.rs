//! `cargo bench --bench density`: how many machines fit, and how fast they come and go. Rates stand beside the floor's of the
//! same run, so criterion has no part in it.

use std::error::Error;
use std::process::ExitCode;

use bench::containment::contain;
use bench::density::{Limits, run};
use bench::entry;
use bench::options::Options;
use bench::process::Warden;
use bench::progress;
use bench::subjects;
use clap::Parser;

/// Unless MOTE_BENCH_RUNS says otherwise.
const RUNS: usize = 5;

/// Starts machines until a limit, has all of them answer, and ends them; then times how fast they start.
#[derive(Parser)]
#[command(name = "density", bin_name = "cargo bench --bench density --", after_help = entry::ENVIRONMENT)]
struct Flags {
    /// Stop when less than so much memory is available on the host
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    margin: u64,
    /// Stop at so many machines
    #[arg(long, value_name = "N", default_value_t = 100)]
    at_most: usize,
    /// What cargo says
    #[arg(long, hide = true)]
    bench: bool,
    /// For the benches that criterion has a part in: `cargo bench -- --save-baseline NAME` gives it to all
    #[arg(long, hide = true)]
    save_baseline: Option<String>,
    /// The same
    #[arg(long, hide = true)]
    baseline: Option<String>,
}

fn main() -> ExitCode {
    entry::main("density", None, bench)
}

fn bench() -> Result<(), Box<dyn Error>> {
    let Flags { margin, at_most, .. } = Flags::parse();
    let limits = Limits { margin_mib: margin, at_most };
    let options = Options::from_environment(RUNS)?;
    // VMMs stay in the process group; the namespace is a second net.
    let files = contain().unwrap_or_else(|_| std::env::temp_dir());
    progress::catch_interrupts()?;
    let subjects = subjects::gather(&options)?;
    run(subjects, limits, &options, &Warden::start_in(&files)?)
}
