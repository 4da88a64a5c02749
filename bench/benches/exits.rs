//! `cargo bench --bench exits`: what an exit costs a guest, and what it costs to wake it. Ratios stand in one run, so criterion
//! has no part in it.

use std::error::Error;
use std::process::ExitCode;

use bench::entry;
use bench::exits::run;
use bench::options::Options;
use bench::process::Warden;
use bench::progress;
use bench::subjects;

/// Unless MOTE_BENCH_RUNS says otherwise.
const RUNS: usize = 10;

fn main() -> ExitCode {
    entry::main("exits", Some("What it costs a guest to leave for its VMM, and to be woken."), bench)
}

fn bench() -> Result<(), Box<dyn Error>> {
    let options = Options::from_environment(RUNS)?;
    progress::catch_interrupts()?;
    run(subjects::gather(&options)?, &options, &Warden::start()?)
}
