//! `cargo bench --bench idle_memory`: what machines cost that wait. Many at once first, then criterion for floor and mote, in KiB
//! instead of time, for baselines over time (`-- --save-baseline NAME`, `-- --baseline NAME`). MOTE_BENCH_RUNS=0 leaves the
//! first out.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use bench::entry;
use bench::idle_memory::{Idlers, run};
use bench::options::Options;
use bench::process::Warden;
use bench::subjects::{self, Subjects};
use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, SamplingMode, Throughput};

fn main() -> ExitCode {
    entry::main("idle_memory", Some("What a machine costs that waits, in memory of the host."), bench)
}

fn bench() -> Result<(), Box<dyn Error>> {
    let options = Options::from_environment(1)?;
    let mut subjects = subjects::gather(&options)?;
    let warden = Warden::start()?;
    if options.runs > 0 {
        subjects::add_idle_devices(&mut subjects, &options, options.machines, warden.directory())?;
        run(&subjects.present, &subjects.absent, &options, &warden)?;
    }
    baselines(subjects, &warden)
}

/// Criterion knows no peers: it compares what is built here with what was built here before.
fn baselines(subjects: Subjects, warden: &Warden) -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default()
        .with_measurement(Memory)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_secs(5))
        .configure_from_args();
    let mut group = criterion.benchmark_group("idle_memory");
    group.sampling_mode(SamplingMode::Flat);
    for subject in subjects.present {
        if !matches!(subject.name(), "floor" | "mote") {
            continue;
        }
        let idlers = Idlers::new(subject, warden)?;
        group.bench_function(format!("{}/private_memory", idlers.name()), |bencher| {
            bencher.iter_custom(|machines| (0..machines).map(|_| private_kib(&idlers, warden)).sum());
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// A figure that leaves out the failures would be a lie, and criterion cannot count them.
fn private_kib(idlers: &Idlers, warden: &Warden) -> u64 {
    match idlers.private_kib(warden) {
        Ok(kib) => kib,
        Err(error) => panic!("{}: {}", idlers.name(), bench::report::chain(&*error)),
    }
}

/// Memory in KiB in the place of time.
struct Memory;

impl Measurement for Memory {
    type Intermediate = ();
    type Value = u64;

    /// The routine itself says how much it was.
    fn start(&self) {}

    fn end(&self, (): ()) -> u64 {
        0
    }

    fn add(&self, one: &u64, other: &u64) -> u64 {
        one + other
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, kib: &u64) -> f64 {
        *kib as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for Memory {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        "KiB"
    }

    /// No benchmark here has a throughput.
    fn scale_throughputs(
        &self,
        _typical: f64,
        _throughput: &Throughput,
        _values: &mut [f64],
    ) -> &'static str {
        "KiB"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "KiB"
    }
}
