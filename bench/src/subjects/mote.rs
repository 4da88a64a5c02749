//! mote, as `mote run` starts by default: the machine that also boots Linux.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{GUEST_CID, Job, MEMORY_MIB, Subject};

pub(super) const NAME: &str = "mote";

/// mote, by its executable.
pub(super) struct Mote(pub(super) PathBuf);

impl Subject for Mote {
    fn name(&self) -> &'static str {
        NAME
    }

    fn executable(&self) -> &Path {
        &self.0
    }

    /// The guest is embedded, and 128 MiB and one vCPU are what a machine has unless told otherwise.
    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>> {
        let mut arguments: Vec<OsString> =
            ["run", "--cmdline", job.command_line()].map(OsString::from).into();
        if job.memory_mib() != MEMORY_MIB {
            arguments.extend(["--memory".into(), format!("{}M", job.memory_mib()).into()]);
        }
        let devices = job.devices();
        if let Some(path) = &devices.disk {
            arguments.extend(["--disk".into(), path.into()]);
        }
        if let Some(tap) = &devices.tap {
            arguments.extend(["--net".into(), format!("tap={tap}").into()]);
        }
        if let Some(socket) = &devices.vsock {
            arguments.extend(["--vsock".into(), format!("cid={GUEST_CID},uds={}", socket.display()).into()]);
        }
        Ok(arguments)
    }

    fn has_devices(&self) -> bool {
        true
    }
}
