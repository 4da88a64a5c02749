//! QEMU's microvm machine, as lean as QEMU's documentation of it (docs/system/i386/microvm) makes it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Job, Subject};

pub(super) const NAME: &str = "qemu-microvm";

/// Every option of the machine that leaves something out, but for the serial port, through which we listen.
const MACHINE: &str = "microvm,accel=kvm,x-option-roms=off,pit=off,pic=off,rtc=off,acpi=off,isa-serial=on,auto-kernel-cmdline=off";

/// QEMU, by its executable.
pub(super) struct Qemu(pub(super) PathBuf);

impl Subject for Qemu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn executable(&self) -> &Path {
        &self.0
    }

    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>> {
        // Without ACPI the guest ends by a reset.
        let Some(disk) = &job.devices().disk else { return Ok(arguments(MACHINE, job)) };
        // It tells the guest where the disk is by the command line.
        let machine = MACHINE.replace("auto-kernel-cmdline=off", "auto-kernel-cmdline=on");
        let mut arguments = arguments(&machine, job);
        let mut drive = OsString::from("id=disk,if=none,format=raw,readonly=on,file=");
        drive.push(disk);
        arguments.extend(["-drive".into(), drive]);
        // Its virtio devices are of the draft before version 1 otherwise.
        let modern = "virtio-mmio.force-legacy=false";
        arguments.extend(["-global", modern, "-device", "virtio-blk-device,drive=disk"].map(OsString::from));
        Ok(arguments)
    }

    fn reading_job(&self) -> Option<&'static str> {
        Some("mode=blk op=seqread mb=64")
    }
}

/// QEMU's command line for `machine` (`-M`), with a serial port on stdio and nothing else.
pub(super) fn arguments(machine: &str, job: &Job) -> Vec<OsString> {
    let memory = format!("{}M", job.memory_mib());
    let mut arguments: Vec<OsString> =
        ["-M", machine, "-cpu", "host", "-smp", "1", "-m", &memory].map(OsString::from).into();
    arguments.extend(
        ["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]
            .map(OsString::from),
    );
    let kernel = job.kernel().into();
    arguments.extend(["-append".into(), job.command_line().into(), "-kernel".into(), kernel]);
    arguments
}
