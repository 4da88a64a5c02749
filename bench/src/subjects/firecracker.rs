//! Firecracker, without its API server: configured by a file, which starts the machine at once.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Job, MEMORY_MIB, Subject};

pub(super) const NAME: &str = "firecracker";

/// Firecracker, by its executable.
pub(super) struct Firecracker(pub(super) PathBuf);

impl Subject for Firecracker {
    fn name(&self) -> &'static str {
        NAME
    }

    fn executable(&self) -> &Path {
        &self.0
    }

    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>> {
        let file = job.file("firecracker.json");
        let configuration = json!({
            "boot-source": {"kernel_image_path": job.kernel(), "boot_args": job.command_line()},
            "drives": [],
            "machine-config": {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB},
        });
        fs::write(&file, configuration.to_string())?;
        // Its log goes to stdout, where the guest's serial port is.
        let mut arguments: Vec<OsString> =
            ["--no-api", "--level", "Off", "--config-file"].map(OsString::from).into();
        arguments.push(file.into());
        Ok(arguments)
    }
}
