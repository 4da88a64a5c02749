//! `mote run`: one machine, from the flags to the exit code.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boot::{Cmdline, Protocol};
use clap::ValueEnum;
use devices::rate_limiter::RateLimits;
use jailer::seccomp::{FilterError, Filters, MAX_FILE};

use super::{heap, last_words, say};
use crate::config::{
    Balloon, ConfigFile, CpuCount, Disk, Kernel, LoggerConfig, MemorySize, Nic, PageBacking, VmConfig, Vsock,
};
use crate::console::{ConsoleOutput, RawTerminal, Sink};
use crate::event_loop::Waker;
use crate::inherited;
use crate::logger::{self, Level};
use crate::machine::{self, Shared};
use crate::outcome::{Ending, Outcome};
use crate::session::{Limits, Session, Wiring};
use crate::signals::Signals;
use crate::timeline::{Phase, Timeline};

#[derive(clap::Args)]
pub(super) struct RunArgs {
    /// JSON file that describes the machine, in Firecracker's format
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd", "cmdline", "cpus", "memory", "hugepages", "disks", "nics", "vsock", "balloon", "rng"])]
    config_file: Option<PathBuf>,
    /// Kernel: an ELF vmlinux or a bzImage [default: the guest inside mote]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// Number of vCPUs, 1 to 32 [default: 1]
    #[arg(long, value_name = "N")]
    cpus: Option<CpuCount>,
    /// RAM in MiB, or with a unit: 16M to 511G [default: 128M]
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,
    /// Pages behind the RAM: none (the host's choice), thp (transparent huge pages), 2m (reserved ones) [default: none]
    #[arg(long, value_name = "KIND")]
    hugepages: Option<PageBacking>,
    /// Fill the RAM before the guest starts
    #[arg(long)]
    prefault: bool,
    /// Block device: a raw image or a block device. Options: readonly, direct, cache=writeback|unsafe, queues=N, id=TEXT,
    /// bandwidth=SIZE and ops=N a second. A comma in the path is written twice
    #[arg(long = "disk", value_name = "PATH[,OPTION]...")]
    disks: Vec<Disk>,
    /// Network device on a TAP device of this name, or on an open one (fd=N). Options: mac=ADDRESS, mtu=N, and rx-bandwidth=SIZE,
    /// rx-ops=N, tx-bandwidth=SIZE, tx-ops=N a second
    #[arg(long = "net", value_name = "tap=NAME|fd=N[,OPTION]...")]
    nics: Vec<Nic>,
    /// Socket device: the host's programs reach the guest at PATH, the guest reaches port N of the host at PATH_N
    #[arg(long, value_name = "cid=N,uds=PATH")]
    vsock: Option<Vsock>,
    /// Memory balloon, at first of SIZE. Options: deflate-on-oom, free-page-reporting, stats=SECONDS
    #[arg(long, value_name = "SIZE[,OPTION]...")]
    balloon: Option<Balloon>,
    /// Entropy device: the host's random bytes for the guest
    #[arg(long)]
    rng: bool,
    /// For kernels that do not read ACPI: name the devices on the command line (virtio_mmio.device=), and write an MP table
    #[arg(long)]
    virtio_cmdline: bool,
    /// Threads that serve the devices; by default the event loop does
    #[arg(long, value_name = "N", default_value = "0")]
    io_threads: u8,
    /// How the kernel is entered
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value = "auto")]
    boot_protocol: ProtocolFlag,
    /// End the machine after this long: exit code 6
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    /// How long the guest may take to power off after SIGTERM
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "5")]
    shutdown_timeout: Duration,
    /// Write how the machine ended, as one JSON object, to a file or to an open descriptor (fd:N)
    #[arg(long, value_name = "FILE|fd:N")]
    result: Option<Target>,
    /// Write when each phase was reached, in ns since the process started, one JSON object a line
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// Least important log lines to show: off, error, warn, info, debug or trace [default: warn]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<Level>,
    /// System calls that the threads may make, in the form of jailer/filters/mote.json [default: those that mote needs]
    #[arg(long, value_name = "FILE", conflicts_with = "no_seccomp")]
    seccomp_filter: Option<PathBuf>,
    /// Let the threads make every system call: for debugging, a wall less around the guest
    #[arg(long)]
    no_seccomp: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProtocolFlag {
    /// PVH where the image has the note, else the 64-bit entry
    Auto,
    /// The Linux 64-bit entry
    Linux64,
    /// PVH
    Pvh,
}

/// `--result`'s value.
#[derive(Clone)]
enum Target {
    File(PathBuf),
    Descriptor(RawFd),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("fd:") {
            None => Ok(Self::File(PathBuf::from(text))),
            Some(number) => match number.parse() {
                Ok(fd) if fd >= 0 => Ok(Self::Descriptor(fd)),
                _ => Err("after 'fd:' comes the number of an open descriptor".to_owned()),
            },
        }
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("'{text}' is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text} seconds is no span of time"))
}

/// What can go wrong before there is a machine.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("cannot open {what}")]
    Open {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{}", path.display())]
    ConfigFile {
        path: PathBuf,
        #[source]
        source: crate::config::FileError,
    },
    #[error("{}", path.display())]
    Filter {
        path: PathBuf,
        #[source]
        source: FilterError,
    },
    #[error("--cmdline")]
    Cmdline(#[source] boot::CmdlineError),
    #[error(transparent)]
    Value(#[from] crate::config::ValueError),
    #[error("cannot set up the event loop")]
    Host(#[from] io::Error),
    #[error(transparent)]
    Build(#[from] machine::BuildError),
}

/// Runs the machine; the exit code tells its end. `process_start` is what the timeline counts from.
pub(super) fn run(args: &RunArgs, timeline: Timeline, process_start: u64) -> ExitCode {
    let since = Instant::now();
    let outputs = match Outputs::open(args) {
        Ok(outputs) => outputs,
        Err(error) => return super::fail(&crate::error_line(&error)),
    };
    let timeline = Arc::new(timeline);
    let ending = run_machine(args, &timeline, since, outputs.result.as_ref())
        .unwrap_or_else(|error| Ending::new(Outcome::Error, crate::error_line(&error)));
    timeline.mark(Phase::Exit);
    if let Some(message) = ending.message() {
        match ending.outcome {
            Outcome::Error => say(&format!("error: {message}")),
            _ => say(&message),
        }
    }
    let code = ending.exit_code();
    match outputs.write(&ending, &timeline, process_start) {
        Ok(()) => ExitCode::from(code),
        Err(error) => super::fail(&crate::error_line(&error)),
    }
}

fn run_machine(
    args: &RunArgs,
    timeline: &Arc<Timeline>,
    since: Instant,
    result: Option<&File>,
) -> Result<Ending, RunError> {
    let (config, logger) = configure(args)?;
    let level = args.log_level.or(logger.level).unwrap_or_default();
    logger::start(level, logger.path.as_deref()).map_err(|source| RunError::Open {
        what: format!("the log file {}", logger.path.unwrap_or_default().display()),
        source,
    })?;
    timeline.mark(Phase::Args);

    heap::give_back();
    let signals = Signals::take_over()?;
    let wake = Waker::new()?;
    let sink = Sink::new(io::stdout().as_fd().try_clone_to_owned()?)?;
    let console = Arc::new(ConsoleOutput::new(sink, wake.clone(), Arc::clone(timeline)));
    let filters = filters(args)?;
    if filters.is_some() {
        last_words::prepare(result)?;
    }
    let shared = Arc::new(Shared::new(Arc::clone(timeline), wake.clone(), filters));

    let machine = machine::build(&config, Arc::clone(&console), shared)?;
    let terminal = RawTerminal::enter()?;
    let wiring = Wiring { console, wake, signals, terminal: terminal.is_some() };
    let limits = Limits { timeout: args.timeout, shutdown: args.shutdown_timeout };
    Ok(Session::new(machine, wiring, limits, since)?.run())
}

/// The system calls that the threads may make; `None`: all.
fn filters(args: &RunArgs) -> Result<Option<Filters>, RunError> {
    match &args.seccomp_filter {
        _ if args.no_seccomp => Ok(None),
        None => Ok(Some(Filters::default())),
        Some(path) => {
            let mut json = Vec::new();
            let file = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut json));
            file.map_err(|source| RunError::Open { what: path.display().to_string(), source })?;
            let filters = Filters::from_json(&json);
            filters.map(Some).map_err(|source| RunError::Filter { path: path.clone(), source })
        }
    }
}

/// Flags or file, to a valid configuration.
fn configure(args: &RunArgs) -> Result<(VmConfig, LoggerConfig), RunError> {
    let mut logger = LoggerConfig::default();
    let mut config = match &args.config_file {
        Some(path) => {
            let refused = |source| RunError::ConfigFile { path: path.clone(), source };
            let file = ConfigFile::read(path).map_err(refused)?;
            logger = file.logger();
            file.into_config().map_err(refused)?
        }
        None => from_flags(args)?,
    };
    config.prefault = args.prefault;
    config.io_threads = args.io_threads;
    config.virtio_cmdline = args.virtio_cmdline;
    config.protocol = match args.boot_protocol {
        ProtocolFlag::Auto => Protocol::Auto,
        ProtocolFlag::Linux64 => Protocol::Linux64,
        ProtocolFlag::Pvh => Protocol::Pvh,
    };
    config.validate()?;
    Ok((config, logger))
}

fn from_flags(args: &RunArgs) -> Result<VmConfig, RunError> {
    let default = VmConfig::default();
    let cmdline = args.cmdline.as_deref().map(Cmdline::new).transpose().map_err(RunError::Cmdline)?;
    Ok(VmConfig {
        kernel: args.kernel.clone().map_or(default.kernel, Kernel::File),
        initrd: args.initrd.clone(),
        cmdline: cmdline.unwrap_or(default.cmdline),
        cpus: args.cpus.unwrap_or(default.cpus),
        memory: args.memory.unwrap_or(default.memory),
        backing: args.hugepages.unwrap_or(default.backing),
        disks: args.disks.clone(),
        nics: args.nics.clone(),
        vsock: args.vsock.clone(),
        balloon: args.balloon.clone(),
        rng: args.rng.then(RateLimits::default),
        ..default
    })
}

/// The files that are written at the end, opened at the start: a wrong path must not cost a run.
struct Outputs {
    result: Option<File>,
    timeline: Option<File>,
}

impl Outputs {
    fn open(args: &RunArgs) -> Result<Self, RunError> {
        let timeline = match &args.timeline {
            Some(path) => Some(create(path)?),
            None => None,
        };
        let result = match &args.result {
            Some(Target::File(path)) => Some(create(path)?),
            Some(Target::Descriptor(fd)) => Some(duplicate(*fd)?),
            None => None,
        };
        Ok(Self { result, timeline })
    }

    fn write(self, ending: &Ending, timeline: &Timeline, process_start: u64) -> Result<(), RunError> {
        let cannot = |what: &str| {
            let what = what.to_owned();
            move |source| RunError::Open { what, source }
        };
        if let Some(mut file) = self.timeline {
            let mut text = Vec::new();
            timeline.write(process_start, &mut text)?;
            file.write_all(&text).map_err(cannot("the timeline for writing"))?;
        }
        if let Some(mut file) = self.result {
            let mut text = serde_json::to_vec(ending).map_err(io::Error::from)?;
            text.push(b'\n');
            file.write_all(&text).map_err(cannot("the result for writing"))?;
        }
        Ok(())
    }
}

/// Opens a file for writing, empty. Our own stdout and stderr are shared rather than opened again: a second open file
/// description would have a position of its own, and overwrite what others write there.
fn create(path: &std::path::Path) -> Result<File, RunError> {
    let cannot = |source| RunError::Open { what: format!("{} for writing", path.display()), source };
    let inherited = match path.to_str() {
        Some("/dev/stdout") => Some(io::stdout().as_fd().try_clone_to_owned()),
        Some("/dev/stderr") => Some(io::stderr().as_fd().try_clone_to_owned()),
        _ => None,
    };
    match inherited {
        Some(fd) => fd.map(File::from).map_err(cannot),
        None => File::create(path).map_err(cannot),
    }
}

/// The descriptor that our parent left open for us.
fn duplicate(fd: RawFd) -> Result<File, RunError> {
    let cannot = |source| RunError::Open { what: format!("descriptor {fd} (--result)"), source };
    inherited::duplicate(fd).map(File::from).map_err(cannot)
}
