//! The bare KVM calls: `src/bin/floor.rs`.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Job, Subject};

pub(super) const NAME: &str = "floor";

/// The floor, by its executable.
pub(super) struct Floor(pub(super) PathBuf);

impl Subject for Floor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn executable(&self) -> &Path {
        &self.0
    }

    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>> {
        Ok(vec![job.command_line().into()])
    }

    /// It takes every argument for a command line.
    fn version(&self) -> String {
        String::new()
    }

    /// It receives nothing on its serial port.
    fn listens(&self) -> bool {
        false
    }
}
