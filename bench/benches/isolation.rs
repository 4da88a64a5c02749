//! `cargo bench --bench isolation`: what isolation costs, from a plain process to a whole PC. Every figure stands beside others
//! of the same run, so criterion has no part in it.

use std::error::Error;
use std::process::ExitCode;

use bench::binaries;
use bench::containment::contain;
use bench::entry;
use bench::isolation::run;
use bench::options::Options;
use bench::process::Warden;
use bench::progress;
use bench::subjects;

/// Unless MOTE_BENCH_RUNS says otherwise.
const RUNS: usize = 40;

fn main() -> ExitCode {
    entry::main("isolation", Some("What isolation costs: process, containers, microVMs, a whole PC."), bench)
}

fn bench() -> Result<(), Box<dyn Error>> {
    let options = Options::from_environment(RUNS)?;
    let (files, uncontained) = match contain() {
        Ok(directory) => (directory, None),
        Err(reason) => (std::env::temp_dir(), Some(reason)),
    };
    progress::catch_interrupts()?;
    let program = binaries::build("bench", "job")?;
    let subjects = subjects::gather_isolation(&options, &program, uncontained.as_deref())?;
    run(subjects, &program, &options, &Warden::start_in(&files)?)
}
