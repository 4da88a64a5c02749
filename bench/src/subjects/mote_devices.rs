//! mote with one device of each kind, which the guest leaves alone: what it costs to have them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{GUEST_CID, Job, Subject};
use crate::tap;

pub(super) const NAME: &str = "mote-devices";

const DISK_SIZE: u64 = 64 << 20;

/// mote, by its executable, and what stands behind the devices.
pub(super) struct MoteDevices {
    executable: PathBuf,
    disk: PathBuf,
    taps: Vec<String>,
    started: AtomicUsize,
}

impl MoteDevices {
    /// Makes a disk in `directory`, and a TAP for each of `machines` that live at once, in a network namespace of this thread's.
    pub(super) fn prepare(executable: PathBuf, machines: usize, directory: &Path) -> io::Result<Self> {
        tap::enter_namespace()?;
        let taps: Vec<String> = (0..machines.max(1)).map(|number| format!("mote-bench{number}")).collect();
        for name in &taps {
            tap::keep(&tap::attach(name)?)?;
        }
        let disk = directory.join("idle.img");
        File::create(&disk)?.set_len(DISK_SIZE)?;
        Ok(Self { executable, disk, taps, started: AtomicUsize::new(0) })
    }
}

impl Subject for MoteDevices {
    fn name(&self) -> &'static str {
        NAME
    }

    fn executable(&self) -> &Path {
        &self.executable
    }

    /// No two machines have the same TAP or socket.
    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let socket = job.file(&format!("vsock{number}"));
        let mut arguments: Vec<OsString> =
            ["run", "--cmdline", job.command_line()].map(OsString::from).into();
        let devices = [
            "--disk".to_owned(),
            format!("{},readonly", self.disk.display()),
            "--net".to_owned(),
            format!("tap={}", self.taps[number % self.taps.len()]),
            "--vsock".to_owned(),
            format!("cid={GUEST_CID},uds={}", socket.display()),
            "--rng".to_owned(),
            "--balloon".to_owned(),
            "8M".to_owned(),
        ];
        arguments.extend(devices.map(OsString::from));
        Ok(arguments)
    }
}
