//! Cloud Hypervisor, without its API socket. Its PCI bus and its entropy device are always there.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Job, Subject};

pub(super) const NAME: &str = "cloud-hypervisor";

/// Cloud Hypervisor, by its executable.
pub(super) struct CloudHypervisor(pub(super) PathBuf);

impl Subject for CloudHypervisor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn executable(&self) -> &Path {
        &self.0
    }

    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>> {
        let memory = format!("size={}M", job.memory_mib());
        let mut arguments: Vec<OsString> =
            ["--cpus", "boot=1", "--memory", &memory].map(OsString::from).into();
        // The other console is a virtio device.
        arguments.extend(
            ["--serial", "tty", "--console", "off", "--cmdline", job.command_line()].map(OsString::from),
        );
        arguments.extend(["--kernel".into(), job.kernel().into()]);
        Ok(arguments)
    }

    /// Its serial port listens to a terminal, and to nothing else.
    fn listens(&self) -> bool {
        false
    }
}
