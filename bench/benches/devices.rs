//! `cargo bench --bench devices`: what operations of virtio devices cost. Criterion has no part in it: a figure without its
//! peers beside it says little of a path that is mostly the host's.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use bench::devices::run;
use bench::entry;
use bench::options::Options;
use bench::process::Warden;
use bench::subjects::{self, Subjects};

/// Unless MOTE_BENCH_RUNS says otherwise.
const RUNS: usize = 20;
/// A tmpfs, so that no disk of the host's is measured.
const DIRECTORY: &str = "/dev/shm";

fn main() -> ExitCode {
    entry::main(
        "devices",
        Some("What operations of virtio devices cost: disks, networks (as root), sockets."),
        bench,
    )
}

fn bench() -> Result<(), Box<dyn Error>> {
    let options = Options::from_environment(RUNS)?;
    let Subjects { present, absent } = subjects::gather(&options)?;
    run(present, absent, &options, &Warden::start_in(Path::new(DIRECTORY))?)
}
