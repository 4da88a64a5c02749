//! Node: JavaScript in a V8 isolate, one a process, as a server that runs one function starts it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Boundary, Job, Subject};

pub(super) const NAME: &str = "node";

/// The guest's counterpart in JavaScript.
const PROGRAM: &str = include_str!("node/job.js");

/// Node, by its executable.
pub(super) struct Node(pub(super) PathBuf);

impl Subject for Node {
    fn name(&self) -> &'static str {
        NAME
    }

    fn executable(&self) -> &Path {
        &self.0
    }

    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>> {
        let file = job.file("job.js");
        fs::write(&file, PROGRAM)?;
        let mut arguments: Vec<OsString> = vec![file.into()];
        arguments.extend(job.command_line().split_whitespace().map(OsString::from));
        arguments.extend(job.data_word().map(OsString::from));
        Ok(arguments)
    }

    fn reading_job(&self) -> Option<&'static str> {
        Some("mode=read")
    }

    fn boundary(&self) -> Boundary {
        Boundary { shares: "everything but its heap", cannot: "-" }
    }
}
