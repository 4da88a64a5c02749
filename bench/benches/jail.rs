//! `cargo bench --bench jail`: what a jail adds to a start. As root.

use std::error::Error;
use std::process::ExitCode;

use bench::jail::{Jails, run};
use bench::options::{Options, is_bench};
use bench::process::Warden;

/// Unless MOTE_BENCH_RUNS says otherwise.
const RUNS: usize = 100;

fn main() -> ExitCode {
    if !is_bench() {
        println!("jail: nothing is timed in a test; run `cargo bench --bench jail`");
        return ExitCode::SUCCESS;
    }
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jail: {}", bench::report::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<(), Box<dyn Error>> {
    let options = Options::from_environment(RUNS)?;
    let warden = Warden::start()?;
    run(&mut Jails::prepare(&warden)?, &options, &warden)
}
