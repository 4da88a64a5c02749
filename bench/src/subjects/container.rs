//! Containers by the OCI runtime specification: one bundle, and the runtimes that run it, crun, runc and gVisor's runsc.
//!
//! The container has namespaces of its own, no capabilities, a read-only root that holds nothing but the program, and no
//! limits: cgroups are left out, since not every host lets us make them. Nor has it a seccomp filter, which engines
//! such as podman and Docker add.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, io};

use serde_json::json;

use super::{Boundary, Job, Subject};

pub(super) const CRUN: &str = "crun";
pub(super) const RUNC: &str = "runc";
pub(super) const GVISOR: &str = "gvisor";

/// An OCI runtime.
pub(super) struct Container {
    name: &'static str,
    executable: PathBuf,
    /// Options of its own.
    options: &'static [&'static str],
    boundary: Boundary,
    started: AtomicUsize,
}

impl Container {
    pub(super) fn crun(executable: PathBuf) -> Self {
        let options = &["--cgroup-manager=disabled"];
        Self { name: CRUN, executable, options, boundary: Boundary::NAMESPACES, started: AtomicUsize::new(0) }
    }

    /// Rootless, it goes without cgroups where they cannot be made.
    pub(super) fn runc(executable: PathBuf) -> Self {
        let options = &["--rootless=true"];
        Self { name: RUNC, executable, options, boundary: Boundary::NAMESPACES, started: AtomicUsize::new(0) }
    }

    /// With ptrace, the platform that works everywhere.
    pub(super) fn gvisor(executable: PathBuf) -> Self {
        let options = &["--platform=ptrace", "--network=none", "--ignore-cgroups"];
        let boundary = Boundary { shares: "page cache; kernel behind its own", ..Boundary::NAMESPACES };
        Self { name: GVISOR, executable, options, boundary, started: AtomicUsize::new(0) }
    }
}

impl Subject for Container {
    fn name(&self) -> &'static str {
        self.name
    }

    fn executable(&self) -> &Path {
        &self.executable
    }

    /// No two containers have the same name.
    fn arguments(&self, job: &Job) -> io::Result<Vec<OsString>> {
        fs::write(job.file("config.json"), configuration(job).to_string())?;
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let mut arguments: Vec<OsString> = vec!["--root".into(), job.file(self.name).into()];
        arguments.extend(self.options.iter().map(OsString::from));
        let bundle = job.root().parent().map(PathBuf::from).unwrap_or_default();
        arguments.extend(["run".into(), "--bundle".into(), bundle.into()]);
        arguments.push(format!("mote-bench-{}-{number}", std::process::id()).into());
        Ok(arguments)
    }

    fn reading_job(&self) -> Option<&'static str> {
        Some("mode=read")
    }

    fn boundary(&self) -> Boundary {
        self.boundary
    }

    /// The first process in it leads a session of its own.
    fn leaves_its_group(&self) -> bool {
        true
    }
}

fn configuration(job: &Job) -> serde_json::Value {
    let program: Vec<&str> = std::iter::once("/job").chain(job.command_line().split_whitespace()).collect();
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": program,
            "cwd": "/",
            "capabilities": {"bounding": [], "effective": [], "permitted": []},
            "noNewPrivileges": true,
        },
        "root": {"path": "root", "readonly": true},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": namespaces},
    })
}
