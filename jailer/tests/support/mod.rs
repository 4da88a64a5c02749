//! A jail under test. Every test has a base directory of its own, and what it mounts is in the jail's own namespace.

// Each test file is a crate of its own and uses its part of this one.
#![allow(dead_code, unreachable_pub, reason = "shared by several test crates")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The binary under test.
pub const JAILER: &str = env!("CARGO_BIN_EXE_mote-jailer");
/// A user that no host has anything of.
pub const UID: u32 = 61_001;

/// Whether we are root, without which there is no jail; says so where we are not.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped(test, "it takes root");
    }
    root
}

/// A test that cannot run here says so on a line of its own; `ci/test` counts these lines.
pub fn skipped(test: &str, reason: &str) {
    println!("SKIPPED: {test}: {reason}");
}

/// Returns from a test that needs root where we are not.
#[macro_export]
macro_rules! need_root {
    () => {
        if !support::is_root(std::thread::current().name().unwrap_or("a test")) {
            return;
        }
    };
}

/// Returns from a test that makes cgroups on a host that has not said that it is for that (MOTE_JAIL_CGROUPS=1, as
/// ci/jail-tests does in the testbed).
#[macro_export]
macro_rules! need_cgroups {
    () => {
        need_root!();
        if std::env::var_os("MOTE_JAIL_CGROUPS").is_none() {
            let name = std::thread::current().name().unwrap_or("a test").to_owned();
            support::skipped(&name, "it makes cgroups: ci/jail-tests runs it in the testbed");
            return;
        }
    };
}

/// A place for jails, and a program to jail.
pub struct Place {
    pub directory: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        fs::create_dir(place.base()).expect("a base directory");
        fs::copy(stand_in(), place.program()).expect("the stand-in: cargo test builds it, as an example");
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn base(&self) -> PathBuf {
        self.path("base")
    }

    pub fn program(&self) -> PathBuf {
        self.path("program")
    }

    /// What a jail called `id` has on the host.
    pub fn home(&self, id: &str) -> PathBuf {
        self.base().join("program").join(id)
    }

    /// Writes a file that belongs to the jail's user.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        chown(&path, Some(UID), Some(UID)).expect("we are root");
        path
    }

    /// Makes a directory that belongs to the jail's user.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("a directory");
        chown(&path, Some(UID), Some(UID)).expect("we are root");
        path
    }

    /// The jailer, for this program and base.
    pub fn jailer(&self, id: &str) -> Command {
        let mut command = Command::new(JAILER);
        command.arg("--id").arg(id).arg("--exec-file").arg(self.program());
        command.arg("--chroot-base-dir").arg(self.base());
        command.args(["--uid", &UID.to_string(), "--gid", &UID.to_string()]);
        command
    }

    /// Runs a jail to its end: flags of the jailer, then arguments of the stand-in.
    pub fn run(&self, flags: &[&str], arguments: &[&str]) -> Ended {
        let mut command = self.jailer("a");
        command.args(flags).arg("--").args(arguments);
        Ended::new(&command.output().expect("the jailer starts"))
    }

    pub fn clean(&self, id: &str) -> Ended {
        let mut command = Command::new(JAILER);
        command.arg("--chroot-base-dir").arg(self.base()).arg("--clean").arg(id);
        Ended::new(&command.output().expect("the jailer starts"))
    }

    /// Nothing is left of any jail.
    pub fn assert_empty(&self) {
        let left: Vec<_> =
            fs::read_dir(self.base()).expect("readable").flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "left: {left:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        let ours = self.directory.path().to_str().expect("a plain path");
        assert!(!mounts.contains(ours), "still mounted: {mounts}");
    }
}

/// How the jailer ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// It was refused, with this exit code and these words.
    pub fn assert_refused(&self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(words), "no '{words}' in {self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
    }

    /// It ran, and said this.
    pub fn assert_said(&self, words: &str) {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert!(self.out.contains(words), "no '{words}' in {self:?}");
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
}

/// The example `stand_in`, which stands beside the binary.
fn stand_in() -> PathBuf {
    Path::new(JAILER).with_file_name("examples").join("stand_in")
}

/// No cgroup of the stand-in's jails is left, in any hierarchy.
pub fn assert_no_cgroup() {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let left: Vec<PathBuf> = hierarchies
        .chain([root.to_owned()])
        .map(|path| path.join("program"))
        .filter(|path| path.exists())
        .collect();
    assert!(left.is_empty(), "left: {left:?}");
}
