//! What is measured: one file each, which says how to start it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::binaries::{self, BuildError};
use crate::options::Options;

mod cloud_hypervisor;
mod firecracker;
mod floor;
mod mote;
mod mote_devices;
mod qemu;
#[cfg(test)]
mod tests;

/// The memory of every machine, in MiB.
pub const MEMORY_MIB: u64 = 128;

/// Something that runs the embedded guest.
///
/// However it does so, the guest has [`MEMORY_MIB`], one vCPU and a serial port on stdout, there are no other devices than
/// the job asks for and the subject insists on, and no logging; its safeguards (seccomp) are what they are by default.
pub trait Subject {
    /// What results call it.
    fn name(&self) -> &'static str;

    /// The program.
    fn executable(&self) -> &Path;

    /// The program's arguments for `job`. A file that it needs is written to the job's directory.
    ///
    /// # Errors
    /// When that file is not written.
    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>>;

    /// Whether the machine can have devices that the guest finds: virtio-mmio ones.
    fn has_devices(&self) -> bool {
        false
    }

    /// What the program says of its version; empty if nothing.
    fn version(&self) -> String {
        let output = Command::new(self.executable()).arg("--version").output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
    }
}

/// What the guest does after READY.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// It powers off.
    Ready,
    /// It waits for ever.
    Idle,
}

/// The devices of a machine, by what stands behind them on the host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Devices {
    /// A raw image.
    pub disk: Option<PathBuf>,
    /// The name of a TAP.
    pub tap: Option<String>,
    /// The Unix socket of a vsock device whose guest has [`GUEST_CID`]; the VMM makes it.
    pub vsock: Option<PathBuf>,
}

/// The guest's address on its vsock device.
pub const GUEST_CID: u32 = 3;

/// The guest and its task, on disk for those who read it from there.
#[derive(Debug)]
pub struct Job {
    directory: TempDir,
    command_line: String,
    devices: Devices,
}

impl Job {
    /// Writes the guest to a new directory in `parent`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(mode: Mode, parent: &Path) -> io::Result<Self> {
        let command_line = match mode {
            Mode::Ready => "mode=ready",
            Mode::Idle => "mode=idle",
        };
        Self::with_devices(command_line.into(), Devices::default(), parent)
    }

    /// The same for any command line, and with devices.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn with_devices(command_line: String, devices: Devices, parent: &Path) -> io::Result<Self> {
        let job = Self { directory: TempDir::new_in(parent)?, command_line, devices };
        std::fs::write(job.kernel(), guest_kernel::ELF)?;
        Ok(job)
    }

    /// The guest's ELF file.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.file("guest.elf")
    }

    /// The guest's command line.
    #[must_use]
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// The machine's devices.
    #[must_use]
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// A file of the job's own; it goes when the job does.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// The command that starts `subject` on `job`.
///
/// # Errors
/// When a file that it needs is not written.
pub fn command(subject: &dyn Subject, job: &Job) -> io::Result<Command> {
    let mut command = Command::new(subject.executable());
    command.args(subject.arguments(job)?);
    Ok(command)
}

/// Who is measured, and who cannot be.
#[derive(Default)]
pub struct Subjects {
    /// Those that are there.
    pub present: Vec<Box<dyn Subject>>,
    /// Those that are not.
    pub absent: Vec<Absent>,
}

/// A subject that is not there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Absent {
    /// Its name.
    pub name: &'static str,
    /// Where it was looked for.
    pub reason: String,
}

/// A VMM that others make.
struct Peer {
    name: &'static str,
    variable: &'static str,
    program: &'static str,
    subject: fn(PathBuf) -> Box<dyn Subject>,
}

/// Those that are looked for.
const PEERS: [Peer; 3] = [
    Peer {
        name: firecracker::NAME,
        variable: "MOTE_PEER_FIRECRACKER",
        program: "firecracker",
        subject: |path| Box::new(firecracker::Firecracker(path)),
    },
    Peer {
        name: cloud_hypervisor::NAME,
        variable: "MOTE_PEER_CLOUD_HYPERVISOR",
        program: "cloud-hypervisor",
        subject: |path| Box::new(cloud_hypervisor::CloudHypervisor(path)),
    },
    Peer {
        name: qemu::NAME,
        variable: "MOTE_PEER_QEMU",
        program: "qemu-system-x86_64",
        subject: |path| Box::new(qemu::Qemu(path)),
    },
];

/// The names of all subjects.
#[must_use]
pub fn names() -> Vec<&'static str> {
    [floor::NAME, mote::NAME, mote_devices::NAME]
        .into_iter()
        .chain(PEERS.iter().map(|peer| peer.name))
        .collect()
}

/// Builds floor and mote and looks for the peers, as far as they are wanted.
///
/// # Errors
/// When floor or mote does not build.
pub fn gather(options: &Options) -> Result<Subjects, BuildError> {
    let Subjects { mut present, mut absent } = Subjects::default();
    if options.wants(floor::NAME) {
        present.push(Box::new(floor::Floor(binaries::build("bench", "floor")?)));
    }
    if options.wants(mote::NAME) {
        present.push(Box::new(mote::Mote(binaries::build("vmm", "mote")?)));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for peer in PEERS.iter().filter(|peer| options.wants(peer.name)) {
        match peer.find(std::env::var_os(peer.variable).as_deref(), &path) {
            Ok(executable) => present.push((peer.subject)(executable)),
            Err(missing) => absent.push(missing),
        }
    }
    Ok(Subjects { present, absent })
}

/// Adds mote with devices that its guest does not use, if it is wanted: `machines` of them may live at once. What they need is made in `directory`, and in a
/// network namespace of this thread's.
///
/// # Errors
/// When mote does not build.
pub fn add_idle_devices(
    subjects: &mut Subjects,
    options: &Options,
    machines: usize,
    directory: &Path,
) -> Result<(), BuildError> {
    let name = mote_devices::NAME;
    if options.wants(name) {
        let executable = binaries::build("vmm", "mote")?;
        match mote_devices::MoteDevices::prepare(executable, machines, directory) {
            Ok(subject) => subjects.present.push(Box::new(subject)),
            Err(error) => subjects.absent.push(Absent { name, reason: error.to_string() }),
        }
    }
    Ok(())
}

impl Peer {
    /// Looks where the variable says, else in the directories of `path`.
    fn find(&self, named: Option<&OsStr>, path: &OsStr) -> Result<PathBuf, Absent> {
        let absent = |reason| Absent { name: self.name, reason };
        let (variable, program) = (self.variable, self.program);
        match named {
            Some(file) if is_executable(Path::new(file)) => Ok(file.into()),
            Some(file) => Err(absent(format!("{variable}={} is no executable file", file.display()))),
            None => std::env::split_paths(path)
                .map(|directory| directory.join(program))
                .find(|file| is_executable(file))
                .ok_or_else(|| absent(format!("{program} is not on PATH, and {variable} is not set"))),
        }
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
