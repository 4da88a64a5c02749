//! `cargo bench --bench cold_start`: the interleaved runner first, for all ratios, then criterion for floor and mote, for
//! baselines over time (`-- --save-baseline NAME`, `-- --baseline NAME`). MOTE_BENCH_RUNS=0 leaves the first out.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use bench::cold_start::{Starter, run};
use bench::entry;
use bench::options::Options;
use bench::process::Warden;
use bench::progress;
use bench::subjects::{self, Subjects};
use criterion::Criterion;

/// Unless MOTE_BENCH_RUNS says otherwise.
const RUNS: usize = 200;

fn main() -> ExitCode {
    entry::main(
        "cold_start",
        Some("How long it takes until a guest runs: alone, many at once, and among others that live."),
        bench,
    )
}

fn bench() -> Result<(), Box<dyn Error>> {
    let options = Options::from_environment(RUNS)?;
    progress::catch_interrupts()?;
    let mut subjects = subjects::gather(&options)?;
    let warden = Warden::start()?;
    // A machine that has ended may hold its TAP for a moment longer.
    subjects::add_idle_devices(&mut subjects, &options, 4, warden.directory())?;
    let Subjects { present, absent } = subjects;
    let starters = present.into_iter().map(|subject| Starter::new(subject, &warden));
    let starters = starters.collect::<Result<Vec<_>, _>>()?;
    if options.runs > 0 {
        run(&starters, &absent, &options, &warden)?;
    }
    baselines(&starters, &warden);
    Ok(())
}

/// Criterion knows no peers: it compares what is built here with what was built here before.
fn baselines(starters: &[Starter], warden: &Warden) {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .configure_from_args();
    let mut group = criterion.benchmark_group("cold_start");
    for starter in starters.iter().filter(|starter| matches!(starter.name(), "floor" | "mote")) {
        if let Err(failure) = starter.time(warden) {
            println!("left out: criterion for {}: {}", starter.name(), bench::report::chain(&failure));
            continue;
        }
        group.bench_function(format!("{}/spawn_to_ready", starter.name()), |bencher| {
            bencher.iter_custom(|runs| (0..runs).map(|_| ready(starter, warden)).sum());
        });
    }
    group.finish();
    criterion.final_summary();
}

/// A figure that leaves out the failures would be a lie, and criterion cannot count them.
fn ready(starter: &Starter, warden: &Warden) -> Duration {
    match starter.time(warden) {
        Ok(times) => times.ready,
        Err(failure) => panic!("{}: {failure}", starter.name()),
    }
}
