//! A plain process: what isolation is compared with.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Boundary, Job, Subject};

pub(super) const NAME: &str = "process";

/// The program, by its executable.
pub(super) struct Process(pub(super) PathBuf);

impl Subject for Process {
    fn name(&self) -> &'static str {
        NAME
    }

    fn executable(&self) -> &Path {
        &self.0
    }

    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>> {
        let words = job.command_line().split_whitespace().map(OsString::from);
        Ok(words.chain(job.data_word().map(OsString::from)).collect())
    }

    fn reading_job(&self) -> Option<&'static str> {
        Some("mode=read")
    }

    /// It has none but the package's.
    fn version(&self) -> String {
        String::new()
    }

    fn boundary(&self) -> Boundary {
        Boundary { shares: "everything", cannot: "-" }
    }
}
