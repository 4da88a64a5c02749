//! The JSON configuration file: Firecracker's format, read into a [`VmConfig`].
//!
//! Every section and field of that format is either taken or refused by its name. Nothing is ignored: a machine
//! that silently lacks what its file asks for is worse than an error.

mod devices;

use std::path::PathBuf;

use boot::{Cmdline, CmdlineError};
use serde::Deserialize;
use serde_json::Value;

use self::devices::{BalloonSection, Drive, EntropySection, NetworkInterface, VsockSection};
use super::{Balloon, CpuCount, Kernel, MemorySize, PageBacking, ValueError, VmConfig};
use crate::logger::Level;

/// The largest file that is read: configurations are a few KiB.
const MAX_SIZE: u64 = 1 << 20;

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read it")]
    Read(#[source] std::io::Error),
    /// It is larger than any configuration.
    #[error("it is larger than 1 MiB: is this a configuration?")]
    TooLarge,
    /// It is not UTF-8, or not JSON, or has a field that the format does not have.
    #[error("it is not a valid configuration (at {field})")]
    Json {
        /// Where: sections and fields joined by dots, `.` for the whole.
        field: String,
        /// What is wrong there.
        #[source]
        source: serde_json::Error,
    },
    /// A section or field of the format that mote does not offer.
    #[error("{field} is not supported: {why}")]
    Refused {
        /// Its name, sections and fields joined by dots.
        field: &'static str,
        /// What is missing.
        why: &'static str,
    },
    /// A value out of its range.
    #[error("{field}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: ValueError,
    },
    /// The kernel command line cannot be used.
    #[error("boot-source.boot_args")]
    Cmdline(#[source] CmdlineError),
}

/// A configuration file, typed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConfigFile {
    boot_source: Option<BootSource>,
    machine_config: Option<MachineConfig>,
    logger: Option<Logger>,
    balloon: Option<BalloonSection>,
    cpu_config: Option<Value>,
    #[serde(default)]
    drives: Vec<Drive>,
    entropy: Option<EntropySection>,
    memory_hotplug: Option<Value>,
    metrics: Option<Value>,
    mmds_config: Option<Value>,
    #[serde(default)]
    network_interfaces: Vec<NetworkInterface>,
    pmem: Option<Value>,
    vsock: Option<VsockSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootSource {
    kernel_image_path: PathBuf,
    initrd_path: Option<PathBuf>,
    boot_args: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineConfig {
    vcpu_count: u64,
    mem_size_mib: u64,
    smt: Option<bool>,
    track_dirty_pages: Option<bool>,
    cpu_template: Option<Value>,
    huge_pages: Option<HugePages>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum HugePages {
    None,
    #[serde(rename = "2M")]
    TwoMib,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Logger {
    log_path: Option<PathBuf>,
    level: Option<Level>,
    show_level: Option<bool>,
    show_log_origin: Option<bool>,
    module: Option<Value>,
}

/// Where log lines go and which.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoggerConfig {
    /// A file to append to; stderr if absent.
    pub path: Option<PathBuf>,
    /// The least important level that is written.
    pub level: Option<Level>,
}

impl ConfigFile {
    /// Reads and types a file.
    pub fn read(path: &std::path::Path) -> Result<Self, FileError> {
        use std::io::Read;
        let mut text = Vec::new();
        let file = std::fs::File::open(path).map_err(FileError::Read)?;
        file.take(MAX_SIZE + 1).read_to_end(&mut text).map_err(FileError::Read)?;
        if text.len() as u64 > MAX_SIZE {
            return Err(FileError::TooLarge);
        }
        Self::parse(&text)
    }

    /// Types a file's content.
    pub fn parse(text: &[u8]) -> Result<Self, FileError> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let whole = |source| FileError::Json { field: ".".to_owned(), source };
        let file: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| FileError::Json {
            field: error.path().to_string(),
            source: error.into_inner(),
        })?;
        json.end().map_err(whole)?;
        match file.refused() {
            Some((field, why)) => Err(FileError::Refused { field, why }),
            None => Ok(file),
        }
    }

    /// The list of all that the format has and mote has not.
    fn refused(&self) -> Option<(&'static str, &'static str)> {
        let machine = self.machine_config.as_ref();
        let logger = self.logger.as_ref();
        let list = [
            (
                "balloon.free_page_hinting",
                self.balloon.as_ref().is_some_and(|balloon| balloon.free_page_hinting),
                "the guest reports free pages instead: free_page_reporting",
            ),
            ("cpu-config", asks(self.cpu_config.as_ref()), "mote passes on the CPU that KVM supports"),
            (
                "drives.socket",
                self.drives.iter().any(|drive| asks(drive.socket.as_ref())),
                "mote serves its disks itself (no vhost-user)",
            ),
            ("memory-hotplug", asks(self.memory_hotplug.as_ref()), "a machine's memory is fixed"),
            ("metrics", asks(self.metrics.as_ref()), "mote writes no metrics file yet"),
            ("mmds-config", asks(self.mmds_config.as_ref()), "mote has no metadata service"),
            ("pmem", asks(self.pmem.as_ref()), "mote has no persistent memory device"),
            (
                "machine-config.smt",
                machine.is_some_and(|m| m.smt == Some(true)),
                "each vCPU is a core of its own",
            ),
            (
                "machine-config.track_dirty_pages",
                machine.is_some_and(|m| m.track_dirty_pages == Some(true)),
                "mote has no snapshots yet",
            ),
            (
                "machine-config.cpu_template",
                machine.is_some_and(|m| asks(m.cpu_template.as_ref().filter(|&name| name != "None"))),
                "mote passes on the CPU that KVM supports",
            ),
            (
                "logger.show_log_origin",
                logger.is_some_and(|l| l.show_log_origin == Some(true)),
                "log lines have no origin",
            ),
            (
                "logger.module",
                logger.is_some_and(|l| asks(l.module.as_ref())),
                "log lines cannot be filtered by module",
            ),
            (
                "logger.show_level",
                logger.is_some_and(|l| l.show_level == Some(false)),
                "log lines always say their level",
            ),
        ];
        list.into_iter().find(|&(_, asked, _)| asked).map(|(field, _, why)| (field, why))
    }

    /// The logger's section.
    pub fn logger(&self) -> LoggerConfig {
        self.logger
            .as_ref()
            .map(|logger| LoggerConfig { path: logger.log_path.clone(), level: logger.level })
            .unwrap_or_default()
    }

    /// The machine.
    pub fn into_config(self) -> Result<VmConfig, FileError> {
        let mut config = VmConfig::default();
        let (disks, root) = devices::disks(self.drives)?;
        config.disks = disks;
        let nics = self.network_interfaces.into_iter().map(NetworkInterface::into_nic);
        config.nics = nics.collect::<Result<_, _>>()?;
        config.vsock = self.vsock.map(VsockSection::into_vsock).transpose()?;
        config.rng = self.entropy.map(|entropy| entropy.limits());
        config.balloon = self.balloon.map(Balloon::from);
        if let Some(source) = self.boot_source {
            config.kernel = Kernel::File(source.kernel_image_path);
            config.initrd = source.initrd_path;
            let arguments = Cmdline::new(&source.boot_args.unwrap_or_default());
            let arguments = match root {
                Some(root) => arguments.and_then(|arguments| arguments.with(&root)),
                None => arguments,
            };
            config.cmdline = arguments.map_err(FileError::Cmdline)?;
        }
        if let Some(machine) = self.machine_config {
            let field = |field| move |source| FileError::Value { field, source };
            config.cpus =
                CpuCount::try_from(machine.vcpu_count).map_err(field("machine-config.vcpu_count"))?;
            config.memory =
                MemorySize::from_mib(machine.mem_size_mib).map_err(field("machine-config.mem_size_mib"))?;
            config.backing = match machine.huge_pages {
                Some(HugePages::TwoMib) => PageBacking::HugeTlb,
                Some(HugePages::None) | None => PageBacking::Host,
            };
        }
        Ok(config)
    }
}

/// Whether a section asks for anything: Firecracker's own examples have `"drives": []` and `"vsock": null`.
fn asks(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}
