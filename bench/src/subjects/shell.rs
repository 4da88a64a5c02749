//! A stand-in for tests: a shell script that says what a subject says, or should not.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::{Boundary, Job, Subject};

/// A script; the words of the job's command line are its arguments.
pub(crate) struct Shell {
    script: String,
    is_host: bool,
}

impl Shell {
    pub(crate) fn new(script: &str) -> Self {
        Self { script: script.to_owned(), is_host: false }
    }

    /// One process for all jobs.
    pub(crate) fn host(script: &str) -> Self {
        Self { is_host: true, ..Self::new(script) }
    }
}

impl Subject for Shell {
    fn name(&self) -> &'static str {
        "shell"
    }

    fn executable(&self) -> &Path {
        Path::new("/bin/sh")
    }

    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>> {
        let mut arguments: Vec<OsString> = ["-c", &self.script, "sh"].map(OsString::from).into();
        arguments.extend(job.command_line().split_whitespace().map(OsString::from));
        Ok(arguments)
    }

    fn boundary(&self) -> Boundary {
        Boundary { shares: "everything", cannot: "-" }
    }

    fn reading_job(&self) -> Option<&'static str> {
        Some("mode=read")
    }

    fn is_host(&self) -> bool {
        self.is_host
    }

    fn version(&self) -> String {
        String::new()
    }
}
