//! `cargo bench --bench idle_memory`: what machines cost that wait. One look at each tells all, so criterion has no part in it.

use std::error::Error;
use std::process::ExitCode;

use bench::idle_memory::run;
use bench::options::{Options, is_bench};
use bench::process::Warden;
use bench::subjects::{self, Subjects};

fn main() -> ExitCode {
    if !is_bench() {
        println!("idle_memory: nothing is measured in a test; run `cargo bench --bench idle_memory`");
        return ExitCode::SUCCESS;
    }
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idle_memory: {}", bench::report::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<(), Box<dyn Error>> {
    let options = Options::from_environment(1)?;
    let mut subjects = subjects::gather(&options)?;
    let warden = Warden::start()?;
    subjects::add_idle_devices(&mut subjects, &options, options.machines, warden.directory())?;
    let Subjects { present, absent } = subjects;
    run(&present, &absent, &options, &warden)
}
