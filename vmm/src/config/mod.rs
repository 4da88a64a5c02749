//! [`VmConfig`]: what a machine is. The one meeting point of flags, the JSON file and, later, the API.
//!
//! Text becomes typed here, once: a value that is in a [`VmConfig`] is one that the builder can work with, and the
//! builder checks only what depends on the host.

mod device;
mod file;
mod options;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use boot::layout::{self, LayoutError, RamRegions};
use boot::{Cmdline, Protocol};
use devices::rate_limiter::RateLimits;

pub use device::{Balloon, Cache, Disk, Nic, Tap, Vsock};
pub use file::{ConfigFile, FileError, LoggerConfig};

/// A machine to build.
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// What to boot.
    pub kernel: Kernel,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: Cmdline,
    /// How the kernel is entered.
    pub protocol: Protocol,
    /// Number of virtual CPUs.
    pub cpus: CpuCount,
    /// Size of the guest's RAM.
    pub memory: MemorySize,
    /// Pages behind the guest's RAM.
    pub backing: PageBacking,
    /// Fill the RAM before the guest starts.
    pub prefault: bool,
    /// Block devices, in the order in which the guest finds them.
    pub disks: Vec<Disk>,
    /// Network devices, in the order in which the guest finds them.
    pub nics: Vec<Nic>,
    /// The socket device.
    pub vsock: Option<Vsock>,
    /// The entropy device and its limits.
    pub rng: Option<RateLimits>,
    /// The memory balloon.
    pub balloon: Option<Balloon>,
    /// For kernels that do not read ACPI: name the virtio devices on the command line, and write an MP table.
    pub virtio_cmdline: bool,
    /// Threads that serve the virtio devices; without one, the event loop does.
    pub io_threads: u8,
}

impl Default for VmConfig {
    fn default() -> Self {
        Self {
            kernel: Kernel::Embedded,
            initrd: None,
            cmdline: Cmdline::default(),
            protocol: Protocol::Auto,
            cpus: CpuCount(1),
            memory: MemorySize::from_mib_const(128),
            backing: PageBacking::Host,
            prefault: false,
            disks: Vec::new(),
            nics: Vec::new(),
            vsock: None,
            rng: None,
            balloon: None,
            virtio_cmdline: false,
            io_threads: 0,
        }
    }
}

/// A value that no machine can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// No CPU, or more than mote gives a machine.
    #[error("a machine has 1 to {MAX_CPUS} vCPUs, not {0}")]
    Cpus(u64),
    /// Not a number with a unit.
    #[error("'{0}' is not a size: write a number of MiB, or a number with K, M, G or T, as in 512M")]
    Size(String),
    /// A size that the layout has no room for.
    #[error(transparent)]
    Memory(#[from] LayoutError),
    /// Not a kind of page.
    #[error("'{0}' is not a kind of page: none, thp or 2m")]
    Backing(String),
    /// A device's option that makes no sense.
    #[error("{flag}: {why}")]
    Option {
        /// The flag, or the section of the file.
        flag: String,
        /// What is wrong.
        why: String,
    },
    /// Huge pages cover whole multiples of their size.
    #[error("with 2 MiB pages the memory must be a multiple of 2 MiB, not {0} bytes")]
    HugePageMultiple(u64),
}

/// Most virtual CPUs of one machine.
pub const MAX_CPUS: u8 = 32;

/// What to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kernel {
    /// The guest program inside mote.
    Embedded,
    /// An ELF or bzImage file.
    File(PathBuf),
}

/// 1 to [`MAX_CPUS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuCount(u8);

impl CpuCount {
    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u64> for CpuCount {
    type Error = ValueError;

    fn try_from(number: u64) -> Result<Self, ValueError> {
        match u8::try_from(number) {
            Ok(count @ 1..=MAX_CPUS) => Ok(Self(count)),
            _ => Err(ValueError::Cpus(number)),
        }
    }
}

impl FromStr for CpuCount {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // A number beyond u64 is as wrong as any other, and the largest one says so.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().unwrap_or(if digits { u64::MAX } else { 0 }).try_into()
    }
}

/// The size of a machine's RAM in bytes: within the layout's limits, whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySize(u64);

impl MemorySize {
    const fn from_mib_const(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// Bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// From a number of MiB.
    pub fn from_mib(mib: u64) -> Result<Self, ValueError> {
        mib.saturating_mul(1 << 20).try_into()
    }

    /// Where this much RAM lies.
    pub fn regions(self) -> Result<RamRegions, LayoutError> {
        layout::ram_regions(self.0)
    }
}

impl TryFrom<u64> for MemorySize {
    type Error = ValueError;

    fn try_from(bytes: u64) -> Result<Self, ValueError> {
        let size = Self(bytes);
        size.regions()?;
        Ok(size)
    }
}

impl FromStr for MemorySize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        parse_size(text)?.try_into()
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

/// `512`, `512M`, `512MiB`: bytes. A number without a unit counts MiB.
fn parse_size(text: &str) -> Result<u64, ValueError> {
    let wrong = || ValueError::Size(text.to_owned());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.to_ascii_uppercase();
    let shift = match unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit) {
        "K" => 10,
        "" if unit.is_empty() => 20,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    Ok(number.saturating_mul(1 << shift))
}

/// Which pages back the guest's RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageBacking {
    /// Small pages, unless the host's policy is to use huge ones everywhere (`none`).
    Host,
    /// Transparent huge pages (`thp`).
    Transparent,
    /// 2 MiB pages from the host's reserved pool (`2m`).
    HugeTlb,
}

impl FromStr for PageBacking {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "none" => Ok(Self::Host),
            "thp" => Ok(Self::Transparent),
            "2m" => Ok(Self::HugeTlb),
            other => Err(ValueError::Backing(other.to_owned())),
        }
    }
}

impl VmConfig {
    /// Checks what two values have to agree on.
    pub fn validate(&self) -> Result<(), ValueError> {
        if self.backing == PageBacking::HugeTlb && !self.memory.bytes().is_multiple_of(2 << 20) {
            return Err(ValueError::HugePageMultiple(self.memory.bytes()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
