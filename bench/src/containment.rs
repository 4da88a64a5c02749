//! A PID namespace for the whole bench, so that nothing that it starts outlives it.
//!
//! A process group holds a VMM, but a container leaves it: its first process is the leader of a session of its own. What
//! a PID namespace holds ends with the namespace's first process, which here is a shell that waits for the bench, and
//! which the kernel ends if its parent is killed. So whichever of them is killed, in whatever way, nothing remains.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set for the process that runs inside.
const INSIDE: &str = "MOTE_BENCH_CONTAINED";
/// A namespace of processes with the view of /proc that goes with it; its first process is killed with `unshare`.
const NAMESPACES: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--kill-child"];
/// Where files go: there is such a directory on every host, and nobody else looks for it here.
const FILES: &str = "/dev/shm";
/// The first process must not be the bench, to which no signal would come that it does not handle: Ctrl-C.
const FIRST_PROCESS: [&str; 3] = ["/bin/sh", "-c", "\"$0\" \"$@\"; exit $?"];

/// Starts this process anew in a namespace, in its place. Returns in the new one; or here, with the reason, where
/// namespaces cannot be made. What it returns is a directory for files, which go with the namespace.
///
/// # Errors
/// Why there is no namespace.
pub fn contain() -> Result<PathBuf, String> {
    if env::var_os(INSIDE).is_some() {
        hide_hybrid_cgroups();
        return mount_files();
    }
    let probe = unshare().arg("true").stdin(Stdio::null()).output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => return Err(format!("unshare: {error}")),
    }
    let itself = env::current_exe().map_err(|error| error.to_string())?;
    let error = contained(&itself).args(env::args_os().skip(1)).env(INSIDE, "1").exec();
    Err(format!("unshare: {error}"))
}

/// The command that runs `program` in a namespace.
fn contained(program: &Path) -> Command {
    let mut command = unshare();
    command.args(FIRST_PROCESS).arg(program);
    command
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(NAMESPACES);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--");
    command
}

/// Covers /dev/shm, in this mount namespace only, by a file system that ends with it: nobody is left to remove files
/// where everything is killed.
fn mount_files() -> Result<PathBuf, String> {
    let output =
        Command::new("mount").args(["-t", "tmpfs", "mote-bench", FILES]).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(FILES.into()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("mount: {error}")),
    }
}

/// crun refuses a host that has controllers in both versions of cgroups, even where it is told to use none. In this mount
/// namespace, which is the bench's own, the second version can be taken away.
fn hide_hybrid_cgroups() {
    // Where it is not mounted there is nothing to hide.
    let _absent = Command::new("umount")
        .arg("/sys/fs/cgroup/unified")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};

    use super::*;

    /// What leads a session of its own is in no process group of ours; its end shows by the pipe that it holds.
    #[test]
    fn nothing_outlives_the_namespace() {
        let probe = unshare().arg("true").output();
        if !probe.is_ok_and(|output| output.status.success()) {
            println!("SKIPPED: no PID namespace can be made here");
            return;
        }
        let mut command = contained(Path::new("/bin/sh"));
        command
            .args(["-c", "setsid sleep 1000 & echo started; wait"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(stdout.read_to_string(&mut line).unwrap(), 0);
    }

    #[test]
    fn a_status_is_passed_on() {
        let mut command = contained(Path::new("/bin/sh"));
        let Ok(output) = command.args(["-c", "exit 7"]).output() else {
            println!("SKIPPED: unshare is not installed");
            return;
        };
        let refused = !output.stderr.is_empty();
        assert!(refused || output.status.code() == Some(7), "{output:?}");
    }
}
