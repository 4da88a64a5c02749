//! What a subject has to run, on disk for those who read it from there.

use std::path::{Path, PathBuf};
use std::{fs, io};

use tempfile::TempDir;

use super::MEMORY_MIB;

/// What the guest does after READY.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// It powers off.
    Ready,
    /// It waits for ever.
    Idle,
}

impl Mode {
    /// The word that says so on a command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "mode=ready",
            Self::Idle => "mode=idle",
        }
    }
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

/// The guest and its task.
#[derive(Debug)]
pub struct Job {
    directory: TempDir,
    command_line: String,
    devices: Devices,
    memory_mib: u64,
}

impl Job {
    /// Writes the guest to a new directory in `parent`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(mode: Mode, parent: &Path) -> io::Result<Self> {
        Self::with_devices(mode.word().into(), Devices::default(), parent)
    }

    /// The same for any command line, and with devices.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn with_devices(command_line: String, devices: Devices, parent: &Path) -> io::Result<Self> {
        let directory = TempDir::new_in(parent)?;
        let job = Self { directory, command_line, devices, memory_mib: MEMORY_MIB };
        fs::write(job.kernel(), guest_kernel::ELF)?;
        Ok(job)
    }

    /// Gives the machine another size. The floor has but one.
    #[must_use]
    pub fn with_memory(self, memory_mib: u64) -> Self {
        Self { memory_mib, ..self }
    }

    /// Adds the root directory of a container, with `program` in it, the guest's counterpart for processes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_root(&self, program: &Path) -> io::Result<()> {
        for directory in ["proc", "dev"] {
            fs::create_dir_all(self.root().join(directory))?;
        }
        fs::copy(program, self.root().join("job"))?;
        Ok(())
    }

    /// Adds files to be read: `data`, of the same file system, is `/data` in the root of a container, and a machine's disk.
    ///
    /// # Errors
    /// When it cannot be linked.
    pub fn add_data(&mut self, data: &Path) -> io::Result<()> {
        fs::create_dir_all(self.root())?;
        fs::hard_link(data, self.root().join("data"))?;
        self.devices.disk = Some(data.to_owned());
        Ok(())
    }

    /// Where the program finds its files if it has the host's root, as a word of its command line; none if it has no files.
    #[must_use]
    pub fn data_word(&self) -> Option<String> {
        let file = self.root().join("data");
        self.devices.disk.as_ref().map(|_| format!("data={}", file.display()))
    }

    /// The guest's ELF file.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.file("guest.elf")
    }

    /// The root directory of a container, where the program is `/job`.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.file("root")
    }

    /// The guest's command line.
    #[must_use]
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// The guest's memory, in MiB.
    #[must_use]
    pub fn memory_mib(&self) -> u64 {
        self.memory_mib
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
