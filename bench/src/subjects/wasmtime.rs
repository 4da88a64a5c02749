//! wasmtime: WebAssembly instances in one process, which has compiled their module before: `src/bin/wasm-job`. It is built with
//! the feature `wasmtime` only.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Boundary, Job, Subject};

pub(super) const NAME: &str = "wasmtime";
pub(super) const POOLED: &str = "wasmtime-pooled";

/// A process that holds instances, by its executable.
pub(super) struct Wasmtime {
    pub(super) executable: PathBuf,
    /// Whether instances get their memory from a pool.
    pub(super) pooled: bool,
}

impl Subject for Wasmtime {
    fn name(&self) -> &'static str {
        if self.pooled { POOLED } else { NAME }
    }

    fn executable(&self) -> &Path {
        &self.executable
    }

    fn arguments(&self, _job: &Job) -> io::Result<Vec<OsString>> {
        Ok(if self.pooled { vec!["pooled".into()] } else { Vec::new() })
    }

    /// The program tells none; it is built with the workspace's.
    fn version(&self) -> String {
        String::new()
    }

    fn boundary(&self) -> Boundary {
        let cannot = "run native programs; call the system but by its host's functions; install packages, run containers";
        Boundary { shares: "process, kernel, page cache", cannot }
    }

    fn reading_job(&self) -> Option<&'static str> {
        Some("mode=read")
    }

    fn is_host(&self) -> bool {
        true
    }
}
