//! `cargo bench --bench jail`: what a jail adds to a start. As root.

use std::error::Error;
use std::process::ExitCode;

use bench::entry;
use bench::jail::{Jails, run};
use bench::options::Options;
use bench::process::Warden;

/// Unless MOTE_BENCH_RUNS says otherwise.
const RUNS: usize = 100;

fn main() -> ExitCode {
    entry::main("jail", Some("What a jail adds to a start. As root."), bench)
}

fn bench() -> Result<(), Box<dyn Error>> {
    let options = Options::from_environment(RUNS)?;
    let warden = Warden::start()?;
    run(&mut Jails::prepare(&warden)?, &options, &warden)
}
