//! Firecracker, without its API server: configured by a file, which starts the machine at once.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{GUEST_CID, Job, Subject};

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
        let devices = job.devices();
        let drive = |path| json!({"drive_id": "disk", "path_on_host": path, "is_root_device": false, "is_read_only": false});
        let mut configuration = json!({
            "boot-source": {"kernel_image_path": job.kernel(), "boot_args": job.command_line()},
            "drives": devices.disk.iter().map(drive).collect::<Vec<_>>(),
            "machine-config": {"vcpu_count": 1, "mem_size_mib": job.memory_mib()},
        });
        if let Some(tap) = &devices.tap {
            configuration["network-interfaces"] = json!([{"iface_id": "net", "host_dev_name": tap}]);
        }
        if let Some(socket) = &devices.vsock {
            configuration["vsock"] = json!({"guest_cid": GUEST_CID, "uds_path": socket});
        }
        fs::write(&file, configuration.to_string())?;
        // Its log goes to stdout, where the guest's serial port is.
        let mut arguments: Vec<OsString> =
            ["--no-api", "--level", "Off", "--config-file"].map(OsString::from).into();
        arguments.push(file.into());
        Ok(arguments)
    }

    fn has_devices(&self) -> bool {
        true
    }
}
