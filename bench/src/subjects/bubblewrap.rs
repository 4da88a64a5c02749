//! bubblewrap: every namespace that it can make, and a read-only root that holds nothing but the program.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Boundary, Job, Subject};

pub(super) const NAME: &str = "bubblewrap";

/// bubblewrap, by its executable.
pub(super) struct Bubblewrap(pub(super) PathBuf);

impl Subject for Bubblewrap {
    fn name(&self) -> &'static str {
        NAME
    }

    fn executable(&self) -> &Path {
        &self.0
    }

    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>> {
        let mut arguments: Vec<OsString> =
            ["--unshare-all", "--die-with-parent", "--ro-bind"].map(OsString::from).into();
        arguments.push(job.root().into());
        arguments.extend(["/", "--proc", "/proc", "--dev", "/dev", "--", "/job"].map(OsString::from));
        arguments.extend(job.command_line().split_whitespace().map(OsString::from));
        Ok(arguments)
    }

    fn reading_job(&self) -> Option<&'static str> {
        Some("mode=read")
    }

    fn boundary(&self) -> Boundary {
        Boundary::NAMESPACES
    }
}
