//! QEMU's q35 machine: a whole PC, whose firmware, SeaBIOS, finds and starts the guest.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Boundary, Job, Subject, qemu};

pub(super) const NAME: &str = "qemu-q35";

/// QEMU, by its executable.
pub(super) struct Q35(pub(super) PathBuf);

impl Subject for Q35 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn executable(&self) -> &Path {
        &self.0
    }

    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>> {
        Ok(qemu::arguments("q35,accel=kvm", job))
    }

    fn boundary(&self) -> Boundary {
        Boundary::MACHINE
    }

    /// Where KVM emulates kernel code, its firmware takes seconds.
    fn is_slow(&self) -> bool {
        true
    }
}
