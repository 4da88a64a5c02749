//! What a jail adds to a start: mote alone and in mote-jailer's jail, Firecracker alone and in its jailer's, interleaved; one
//! at a time and 100 at once, on this host and on one with 1,000 mounts more.
//!
//! The added time is a difference of medians from just before the spawn to READY. With many at once, starts wait for one
//! another's CPU time, and what counts is how much longer all of them take: the difference of the whole batches' times,
//! times the CPUs, by the number of starts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{error, fs, io, thread};

use fastrand::Rng;

use crate::binaries;
use crate::cold_start::good;
use crate::mounts;
use crate::options::Options;
use crate::process::{Failure, Machine, Warden};
use crate::report::{chain, table};
use crate::results::{Measurement, Run};
use crate::statistics::{Summary, noise, pairs};
use crate::subjects::{Job, MEMORY_MIB, Mode};

/// Rounds before any that counts.
const WARM_UPS: usize = 3;
/// Starts at once, and how many batches of them: one has a hundred starts already, and a peer can take a minute of processor
/// time for it.
const AT_ONCE: usize = 100;
const BATCHES: usize = 1;
/// Mounts that are added for the second half.
const MOUNTS: usize = 1000;
const LIMIT: Duration = Duration::from_secs(60);
/// Nobody's.
const UID: &str = "61001";

/// What is promised: the jail adds at most so many ms; at most so many times that with many at once; at most so much of
/// what Firecracker's adds.
const ADDED_MS: f64 = 2.5;
const AT_ONCE_FACTOR: f64 = 3.0;
const PEER_RATIO: f64 = 0.6;

/// What is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mote,
    MoteJailed,
    Firecracker,
    FirecrackerJailed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Mote => "mote",
            Self::MoteJailed => "mote-jailed",
            Self::Firecracker => "firecracker",
            Self::FirecrackerJailed => "firecracker-jailed",
        }
    }
}

/// Starts machines, in jails or not.
pub struct Jails {
    mote: PathBuf,
    jailer: PathBuf,
    peer: Option<Peer>,
    directory: PathBuf,
    /// The version of the cgroup that each jail gets; `None`: none.
    cgroups: Option<u8>,
    job: Job,
    started: usize,
}

struct Peer {
    program: PathBuf,
    jailer: PathBuf,
    /// What it needs in its jail to be loaded: empty for a static program.
    libraries: Vec<PathBuf>,
}

impl Jails {
    /// Builds what is timed, and looks for Firecracker (MOTE_PEER_FIRECRACKER) and the jailer beside it.
    ///
    /// # Errors
    /// When something does not build, or files cannot be written.
    pub fn prepare(warden: &Warden) -> Result<Self, Box<dyn error::Error>> {
        if !rustix::process::geteuid().is_root() {
            return Err("a jail takes root".into());
        }
        let directory = warden.directory().to_owned();
        // The jailer trusts no path that others may change.
        let mote = directory.join("mote");
        fs::copy(binaries::build("vmm", "mote")?, &mote)?;
        fs::create_dir(directory.join("base"))?;
        let cgroups = std::env::var("MOTE_BENCH_CGROUPS").ok().map(|version| version.parse()).transpose()?;
        Ok(Self {
            mote,
            jailer: binaries::build("jailer", "mote-jailer")?,
            peer: std::env::var_os("MOTE_PEER_FIRECRACKER")
                .map(|path| Peer::find(path.into()))
                .transpose()?,
            cgroups,
            job: Job::new(Mode::Ready, &directory)?,
            directory,
            started: 0,
        })
    }

    fn kinds(&self) -> Vec<Kind> {
        let peers = self.peer.iter().flat_map(|_| [Kind::Firecracker, Kind::FirecrackerJailed]);
        [Kind::Mote, Kind::MoteJailed].into_iter().chain(peers).collect()
    }

    /// Makes all that a start needs, before the clock runs.
    fn ready(&mut self, kind: Kind) -> Result<Ready, Failure> {
        self.started += 1;
        let id = format!("jail-{}", self.started);
        let command = self.command(kind, &id).map_err(Failure::Prepare)?;
        Ok(Ready { command, complaints: self.job.file(&format!("stderr-{id}")), kind, id })
    }

    fn command(&self, kind: Kind, id: &str) -> io::Result<Command> {
        let mote_arguments = ["run", "--cmdline", self.job.command_line()];
        let peer = || self.peer.as_ref().ok_or(io::ErrorKind::NotFound);
        Ok(match kind {
            Kind::Mote => with(&self.mote, &mote_arguments),
            Kind::MoteJailed => {
                let mut command = self.jail(&self.jailer, &self.mote, id);
                command.arg("--").args(mote_arguments);
                command
            }
            Kind::Firecracker => {
                let file = self.job.file(&format!("{id}.json"));
                write_configuration(&file, &self.job.kernel(), &self.job)?;
                let mut command = with(&peer()?.program, &["--no-api", "--level", "Off", "--config-file"]);
                command.arg(file);
                command
            }
            Kind::FirecrackerJailed => {
                let peer = peer()?;
                peer.furnish(&self.root_of(id), &self.job)?;
                let mut command = self.jail(&peer.jailer, &peer.program, id);
                command.args(["--cgroup-version", if self.cgroups == Some(1) { "1" } else { "2" }]);
                command.args(["--", "--no-api", "--level", "Off", "--config-file", "/firecracker.json"]);
                command
            }
        })
    }

    /// The flags that both jailers have.
    fn jail(&self, jailer: &Path, program: &Path, id: &str) -> Command {
        let mut command = with(jailer, &["--id", id, "--uid", UID, "--gid", UID, "--exec-file"]);
        command.arg(program).arg("--chroot-base-dir").arg(self.directory.join("base"));
        let settings: &[&str] = match self.cgroups {
            Some(1) => &["memory.limit_in_bytes=1073741824", "pids.max=64"],
            Some(_) => &["memory.max=1073741824", "pids.max=64"],
            None => &[],
        };
        command.args(settings.iter().flat_map(|setting| ["--cgroup", setting]));
        command
    }

    fn root_of(&self, id: &str) -> PathBuf {
        self.directory.join("base/firecracker").join(id).join("root")
    }

    /// Waits until it has ended, and removes what its jailer leaves.
    fn end(&self, started: Started) {
        let Started { mut machine, kind, id } = started;
        // What it says after READY is nothing, which is an error to those who wait for words.
        let _ = machine.wait_until_end(LIMIT);
        drop(machine);
        if kind == Kind::FirecrackerJailed {
            let _ = fs::remove_dir_all(self.directory.join("base/firecracker").join(&id));
            for hierarchy in ["", "memory", "pids"] {
                let _ =
                    fs::remove_dir(Path::new("/sys/fs/cgroup").join(hierarchy).join("firecracker").join(&id));
            }
        }
    }

    /// ms to READY, one at a time.
    fn time_one(&mut self, kind: Kind, warden: &Warden) -> Result<f64, Failure> {
        let mut started = self.ready(kind)?.start(warden)?;
        let times = started.machine.wait_until_ready(LIMIT);
        self.end(started);
        Ok(ms(times?.ready))
    }

    /// ms of one CPU for each of many that start at once, until the last is READY.
    fn time_batch(&mut self, kind: Kind, warden: &Warden) -> Result<f64, Failure> {
        let ready = (0..AT_ONCE).map(|_| self.ready(kind)).collect::<Result<Vec<_>, _>>()?;
        let begun = Instant::now();
        let mut all = ready.into_iter().map(|it| it.start(warden)).collect::<Result<Vec<_>, _>>()?;
        let ready: Result<Vec<_>, _> =
            all.iter_mut().map(|started| started.machine.wait_until_ready(LIMIT)).collect();
        let took = begun.elapsed();
        all.into_iter().for_each(|started| self.end(started));
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        ready.map(|_| ms(took) * cpus as f64 / AT_ONCE as f64)
    }
}

struct Ready {
    command: Command,
    complaints: PathBuf,
    kind: Kind,
    id: String,
}

impl Ready {
    fn start(mut self, warden: &Warden) -> Result<Started, Failure> {
        let machine = warden.spawn(&mut self.command, &self.complaints)?;
        Ok(Started { machine, kind: self.kind, id: self.id })
    }
}

struct Started {
    machine: Machine,
    kind: Kind,
    id: String,
}

impl Peer {
    fn find(program: PathBuf) -> io::Result<Self> {
        let jailer = program.with_file_name("jailer");
        // `ldd` fails for a static program.
        let output =
            Command::new("ldd").arg(&program).output().map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&output).into_owned();
        let libraries =
            text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect();
        if jailer.exists() {
            Ok(Self { program, jailer, libraries })
        } else {
            Err(io::Error::other(format!("{} is not there", jailer.display())))
        }
    }

    /// Puts into the jail's root what Firecracker's jailer expects there.
    fn furnish(&self, root: &Path, job: &Job) -> io::Result<()> {
        fs::create_dir_all(root)?;
        fs::copy(job.kernel(), root.join("guest.elf"))?;
        write_configuration(&root.join("firecracker.json"), Path::new("/guest.elf"), job)?;
        for library in &self.libraries {
            let inside = root.join(library.strip_prefix("/").unwrap_or(library));
            inside.parent().map(fs::create_dir_all).transpose()?;
            fs::copy(library, inside)?;
        }
        Ok(())
    }
}

fn write_configuration(file: &Path, kernel: &Path, job: &Job) -> io::Result<()> {
    let configuration = serde_json::json!({
        "boot-source": {"kernel_image_path": kernel, "boot_args": job.command_line()},
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB},
    });
    fs::write(file, configuration.to_string())
}

fn with(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// All samples of one kind, in ms.
struct Series {
    kind: Kind,
    /// One for each round; none where it failed.
    alone: Vec<Option<f64>>,
    at_once: Vec<Option<f64>>,
}

impl Series {
    fn failures(&self) -> usize {
        self.alone.iter().chain(&self.at_once).filter(|sample| sample.is_none()).count()
    }
}

/// Times everything, prints what came of it, and appends it to the results.
///
/// # Errors
/// When results cannot be kept, or there can be no more mounts. A start that fails is counted.
pub fn run(jails: &mut Jails, options: &Options, warden: &Warden) -> Result<(), Box<dyn error::Error>> {
    let run = Run::begin("jail", options.seed, binaries::commit());
    let cgroups = jails
        .cgroups
        .map_or("none (MOTE_BENCH_CGROUPS=1|2)".to_owned(), |version| format!("version {version}"));
    println!(
        "jail: {} interleaved runs, seed {}, commit {}, cgroups: {cgroups}",
        options.runs, run.seed, run.commit
    );
    let mut random = Rng::with_seed(options.seed);
    for (mounts, metric) in [(0, "spawn_to_ready"), (MOUNTS, "spawn_to_ready_1000_mounts")] {
        if mounts > 0 {
            mounts::add(mounts, warden.directory())?;
        }
        let (series, again) = measure(jails, options.runs, &mut random, warden);
        println!("\nms to READY, {mounts} mounts added\n{}", report(&series));
        if let Some(first) = series.iter().find(|series| series.kind == again.kind) {
            let pairs = pairs(&again.alone, &first.alone);
            println!("{}", noise(again.kind.name(), &pairs, &mut random));
        }
        promises(&series).iter().for_each(|line| println!("{line}"));
        let results = binaries::results_directory()?.join("results.jsonl");
        for series in &series {
            if let Some(summary) = Summary::of(&good(&series.alone).0) {
                let (subject, failures) = (series.kind.name(), series.failures());
                run.append(
                    &results,
                    &Measurement { subject, version: "", metric, unit: "ms", failures, summary },
                )?;
            }
        }
    }
    Ok(())
}

/// All kinds, and the second series of one of them.
fn measure(jails: &mut Jails, runs: usize, random: &mut Rng, warden: &Warden) -> (Vec<Series>, Series) {
    let new = |kind| Series { kind, alone: Vec::new(), at_once: Vec::new() };
    let mut again = new(Kind::MoteJailed);
    let mut all: Vec<Series> = jails.kinds().into_iter().map(new).collect();
    for round in 0..WARM_UPS + runs + BATCHES {
        let batch = round >= WARM_UPS + runs;
        let mut turns: Vec<&mut Series> = all.iter_mut().chain((!batch).then_some(&mut again)).collect();
        random.shuffle(&mut turns);
        for Series { kind, alone, at_once } in turns {
            let timed = if batch { jails.time_batch(*kind, warden) } else { jails.time_one(*kind, warden) };
            if let Err(failure) = &timed {
                println!("failed: {}: {}", kind.name(), chain(failure));
            }
            if batch {
                at_once.push(timed.ok());
            } else if round >= WARM_UPS {
                alone.push(timed.ok());
            }
        }
    }
    (all, again)
}

fn report(series: &[Series]) -> String {
    let heads = ["subject", "n", "failed", "min", "p50", "p99", "CPU ms a start, 100 at once"];
    let row = |series: &Series| {
        let (alone, _) = good(&series.alone);
        let figures = Summary::of(&alone).map(|all| [all.min, all.p50, all.p99]);
        let figures =
            figures.map_or([const { String::new() }; 3], |figures| figures.map(|ms| format!("{ms:.2}")));
        let at_once = Summary::of(&good(&series.at_once).0);
        let batch = at_once.map(|all| format!("{:.2}", all.p50)).unwrap_or_default();
        let head = [series.kind.name().to_owned(), alone.len().to_string(), series.failures().to_string()];
        head.into_iter().chain(figures).chain([batch]).collect()
    };
    table(&heads, &series.iter().map(row).collect::<Vec<_>>())
}

/// What a jail adds, by one kind of samples.
fn added(
    series: &[Series],
    alone: Kind,
    jailed: Kind,
    samples: fn(&Series) -> &[Option<f64>],
) -> Option<f64> {
    let p50 = |kind| {
        let of_kind = series.iter().find(|series| series.kind == kind)?;
        Summary::of(&good(samples(of_kind)).0).map(|summary| summary.p50)
    };
    Some(p50(jailed)? - p50(alone)?)
}

fn promises(series: &[Series]) -> [String; 3] {
    let mote = added(series, Kind::Mote, Kind::MoteJailed, |series| &series.alone);
    let peer = added(series, Kind::Firecracker, Kind::FirecrackerJailed, |series| &series.alone);
    let at_once = added(series, Kind::Mote, Kind::MoteJailed, |series| &series.at_once);
    let ratio = mote.zip(peer).filter(|(_, peer)| *peer > 0.0).map(|(mote, peer)| mote / peer);
    [
        promise("a jail adds to p50, in ms", mote, ADDED_MS),
        promise("of what Firecracker's jailer adds", ratio, PEER_RATIO),
        promise("a jail adds, 100 at once, in ms of one CPU", at_once, AT_ONCE_FACTOR * ADDED_MS),
    ]
}

fn promise(what: &str, value: Option<f64>, limit: f64) -> String {
    match value {
        Some(value) if value <= limit => format!("promise: {what} <= {limit}: kept: {value:.2}"),
        Some(value) => format!("promise: {what} <= {limit}: NOT KEPT: {value:.2}"),
        None => format!("promise: {what} <= {limit}: UNMET: not both were measured"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(kind: Kind, alone: f64, at_once: f64) -> Series {
        Series { kind, alone: vec![Some(alone)], at_once: vec![Some(at_once)] }
    }

    #[test]
    fn promises_are_differences() {
        let mote = [series(Kind::Mote, 2.0, 3.0), series(Kind::MoteJailed, 4.0, 13.0)];
        let [adds, ratio, at_once] = promises(&mote);
        assert_eq!(adds, "promise: a jail adds to p50, in ms <= 2.5: kept: 2.00");
        assert!(ratio.ends_with("UNMET: not both were measured"));
        assert!(at_once.ends_with("NOT KEPT: 10.00"));
        let [a, b] = mote;
        let all = [a, b, series(Kind::Firecracker, 8.0, 8.0), series(Kind::FirecrackerJailed, 13.0, 13.0)];
        assert!(promises(&all)[1].ends_with("kept: 0.40"));
    }
}
