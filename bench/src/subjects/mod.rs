//! What is measured: one file each, which says how to start it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use crate::binaries::{self, BuildError};
use crate::options::Options;

mod bubblewrap;
mod cloud_hypervisor;
mod container;
mod firecracker;
mod floor;
mod job;
mod mote;
mod mote_devices;
mod node;
mod process;
mod qemu;
mod qemu_q35;
#[cfg(test)]
mod shell;
#[cfg(test)]
mod tests;
mod wasmtime;

pub use job::{Devices, GUEST_CID, Job, Mode};
#[cfg(test)]
pub(crate) use shell::Shell;

/// The memory of a machine, in MiB, unless its job says otherwise.
pub const MEMORY_MIB: u64 = 128;

/// Something that runs the embedded guest, or its counterpart for processes, `src/bin/job.rs`.
///
/// However a VMM does so, the guest has the job's memory, one vCPU and a serial port on stdout, there are no other devices than
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

    /// The words of the job that reads 64 MiB of files after READY, and says `bytes=67108864` at the end; `None` if it has no way to
    /// them. A VMM's way is a disk.
    fn reading_job(&self) -> Option<&'static str> {
        self.has_devices().then_some("mode=blk op=seqread mb=64")
    }

    /// Whether it is one process for all jobs, started before them, which is told on stdin to start each (`src/bin/wasm-job`).
    fn is_host(&self) -> bool {
        false
    }

    /// What lies between the job and its host. A VMM's is [`Boundary::MACHINE`].
    fn boundary(&self) -> Boundary {
        Boundary::MACHINE
    }

    /// Whether lines that it is sent reach the job.
    fn listens(&self) -> bool {
        true
    }

    /// Whether it takes so long to start that few runs must do.
    fn is_slow(&self) -> bool {
        false
    }

    /// Whether processes of it leave the process group that they are started in.
    fn leaves_its_group(&self) -> bool {
        false
    }

    /// What the program says of its version; empty if nothing.
    fn version(&self) -> String {
        let output = Command::new(self.executable()).arg("--version").output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
    }
}

/// What isolation means here, in words.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Boundary {
    /// What of the host the job uses together with all others.
    pub shares: &'static str,
    /// What a program in it cannot do that a plain process can.
    pub cannot: &'static str,
}

impl Boundary {
    /// A virtual machine. What it cannot do its guest cannot: Linux in it can install packages and run containers.
    pub const MACHINE: Self =
        Self { shares: "nothing but KVM", cannot: "run a program without a kernel of its own" };
    /// Namespaces, without capabilities and with a read-only root.
    pub const NAMESPACES: Self = Self {
        shares: "kernel, page cache",
        cannot: "install packages, run containers, mount, load modules",
    };
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

impl Subjects {
    fn add_wasmtime(&mut self, name: &'static str) -> Result<(), BuildError> {
        if cfg!(feature = "wasmtime") {
            let executable = binaries::build_with("wasmtime", "wasm-job")?;
            self.present.push(Box::new(wasmtime::Wasmtime { executable, pooled: name == wasmtime::POOLED }));
        } else {
            let reason =
                "it takes long to build: cargo bench --bench isolation --features wasmtime".to_owned();
            self.absent.push(Absent { name, reason });
        }
        Ok(())
    }

    fn look_for(&mut self, peer: &Peer, path: &OsStr) {
        match peer.find(std::env::var_os(peer.variable).as_deref(), path) {
            Ok(executable) => self.present.push((peer.subject)(executable)),
            Err(missing) => self.absent.push(missing),
        }
    }
}

/// A subject that is not there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Absent {
    /// Its name.
    pub name: &'static str,
    /// Where it was looked for.
    pub reason: String,
}

/// A program that others make.
struct Peer {
    name: &'static str,
    variable: &'static str,
    program: &'static str,
    subject: fn(PathBuf) -> Box<dyn Subject>,
}

/// The VMMs that are looked for.
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

/// What else `isolation` looks for.
const ISOLATORS: [Peer; 6] = [
    Peer {
        name: bubblewrap::NAME,
        variable: "MOTE_PEER_BUBBLEWRAP",
        program: "bwrap",
        subject: |path| Box::new(bubblewrap::Bubblewrap(path)),
    },
    Peer {
        name: container::CRUN,
        variable: "MOTE_PEER_CRUN",
        program: "crun",
        subject: |path| Box::new(container::Container::crun(path)),
    },
    Peer {
        name: qemu_q35::NAME,
        variable: "MOTE_PEER_QEMU",
        program: "qemu-system-x86_64",
        subject: |path| Box::new(qemu_q35::Q35(path)),
    },
    Peer {
        name: container::RUNC,
        variable: "MOTE_PEER_RUNC",
        program: "runc",
        subject: |path| Box::new(container::Container::runc(path)),
    },
    Peer {
        name: node::NAME,
        variable: "MOTE_PEER_NODE",
        program: "node",
        subject: |path| Box::new(node::Node(path)),
    },
    Peer {
        name: container::GVISOR,
        variable: "MOTE_PEER_RUNSC",
        program: "runsc",
        subject: |path| Box::new(container::Container::gvisor(path)),
    },
];

/// The subjects of `isolation`, in the order of its table.
const ISOLATION: [&str; 13] = [
    process::NAME,
    bubblewrap::NAME,
    container::CRUN,
    qemu::NAME,
    qemu_q35::NAME,
    mote::NAME,
    firecracker::NAME,
    cloud_hypervisor::NAME,
    container::RUNC,
    wasmtime::NAME,
    wasmtime::POOLED,
    node::NAME,
    container::GVISOR,
];

/// What `isolation` is to compare one day.
const NOT_YET: [(&str, &str); 2] = [
    (
        "mote-linux",
        "it needs a KVM that runs kernel code natively, and a kernel: ci/boot-time times Linux in the testbed, which has both",
    ),
    ("mote-restored", "mote has no snapshots yet"),
];

/// The names of all subjects.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let peers = PEERS.iter().chain(&ISOLATORS).map(|peer| peer.name);
    let own = [floor::NAME, mote::NAME, mote_devices::NAME, process::NAME, wasmtime::NAME, wasmtime::POOLED];
    own.into_iter().chain(peers).collect()
}

/// Builds mote and looks for all other subjects of `isolation`, as far as they are wanted; processes run
/// `program`. `uncontained` is why there is no PID namespace around this process, if there is none.
///
/// # Errors
/// When mote does not build.
pub fn gather_isolation(
    options: &Options,
    program: &Path,
    uncontained: Option<&str>,
) -> Result<Subjects, BuildError> {
    let mut subjects = Subjects::default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    for name in ISOLATION.into_iter().filter(|name| options.wants(name)) {
        match name {
            process::NAME => subjects.present.push(Box::new(process::Process(program.into()))),
            mote::NAME => subjects.present.push(Box::new(mote::Mote(binaries::build("vmm", "mote")?))),
            wasmtime::NAME | wasmtime::POOLED => subjects.add_wasmtime(name)?,
            name => PEERS
                .iter()
                .chain(&ISOLATORS)
                .filter(|peer| peer.name == name)
                .for_each(|peer| subjects.look_for(peer, &path)),
        }
    }
    if options.subjects.is_empty() {
        subjects.absent.extend(NOT_YET.map(|(name, reason)| Absent { name, reason: reason.into() }));
    }
    if let Some(reason) = uncontained {
        let leaves = subjects.present.extract_if(.., |subject| subject.leaves_its_group());
        let reason = format!("it would outlive a bench that is killed: {reason}");
        subjects.absent.extend(leaves.map(|it| Absent { name: it.name(), reason: reason.clone() }));
    }
    Ok(subjects)
}

/// Builds floor and mote and looks for the peers, as far as they are wanted.
///
/// # Errors
/// When floor or mote does not build.
pub fn gather(options: &Options) -> Result<Subjects, BuildError> {
    let mut subjects = Subjects::default();
    if options.wants(floor::NAME) {
        subjects.present.push(Box::new(floor::Floor(binaries::build("bench", "floor")?)));
    }
    if options.wants(mote::NAME) {
        subjects.present.push(Box::new(mote::Mote(binaries::build("vmm", "mote")?)));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for peer in PEERS.iter().filter(|peer| options.wants(peer.name)) {
        subjects.look_for(peer, &path);
    }
    Ok(subjects)
}

/// The mote at this path.
#[must_use]
pub fn mote_at(executable: PathBuf) -> Box<dyn Subject> {
    Box::new(mote::Mote(executable))
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
