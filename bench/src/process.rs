//! Machines as processes: started, listened to, and never left behind.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;
use thiserror::Error;

/// What the guest writes first.
const READY: &[u8] = b"READY\n";

/// No job's output is longer.
const OUTPUT_LIMIT: usize = 1 << 16;

/// Why a machine did not become ready.
#[derive(Debug, Error)]
pub enum Failure {
    /// What it reads could not be written.
    #[error("its files could not be written")]
    Prepare(#[source] io::Error),
    /// The program was not started.
    #[error("{program} was not started")]
    Spawn {
        /// Which one.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// Nothing, or not enough, came in time.
    #[error("nothing came, or not enough, within {0:?}")]
    Late(Duration),
    /// Something else came.
    #[error("it did not say what it should, but {0:?}")]
    Output(String),
    /// It ended before.
    #[error("ended before it was ready: {0}")]
    Ended(String),
    /// Its output could not be read.
    #[error("its output could not be read")]
    Read(#[from] io::Error),
}

/// When a machine showed signs of life, as times since just before it was spawned.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The first byte from the guest.
    pub first_byte: Duration,
    /// The last byte of READY.
    pub ready: Duration,
}

/// The keeper of a process group that all machines are started in, and of a directory for their files.
///
/// A shell that waits for its standard input to end, which it does when this process ends in whatever way, and removes
/// the directory and kills the group then. The kernel's own means, PR_SET_PDEATHSIG, would have to be asked for in the child between fork
/// and exec, and so make every spawn a fork: slower, and slower the larger this process is.
#[derive(Debug)]
pub struct Warden {
    shell: Child,
    stdin: Option<ChildStdin>,
    group: i32,
    directory: TempDir,
}

impl Warden {
    /// Starts the shell.
    ///
    /// # Errors
    /// When there is none, or no directory can be made.
    pub fn start() -> io::Result<Self> {
        Self::start_in(&std::env::temp_dir())
    }

    /// The same with the directory in `parent`.
    ///
    /// # Errors
    /// As for [`Warden::start`].
    pub fn start_in(parent: &Path) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("mote-bench-").tempdir_in(parent)?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read line; rm -rf \"$0\"; kill -s KILL 0"]).arg(directory.path());
        command.stdin(Stdio::piped()).process_group(0);
        let mut shell = command.spawn()?;
        let group = i32::try_from(shell.id()).map_err(io::Error::other)?;
        Ok(Self { stdin: shell.stdin.take(), shell, group, directory })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts a machine; what it says on stderr goes to the file `complaints`.
    ///
    /// `Command` spawns by vfork or its like as long as nothing is to be done between fork and exec, and a process group is not
    /// such a thing.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn spawn(&self, command: &mut Command, complaints: &Path) -> Result<Machine, Failure> {
        self.spawn_with(Stdio::null(), command, complaints)
    }

    /// The same for a machine that is to be [asked](Machine::ask).
    ///
    /// # Errors
    /// As for [`Warden::spawn`].
    pub fn spawn_to_ask(&self, command: &mut Command, complaints: &Path) -> Result<Machine, Failure> {
        self.spawn_with(Stdio::piped(), command, complaints)
    }

    fn spawn_with(&self, stdin: Stdio, command: &mut Command, complaints: &Path) -> Result<Machine, Failure> {
        let failed = |source, program: &Command| Failure::Spawn {
            program: program.get_program().to_string_lossy().into_owned(),
            source,
        };
        let stderr = File::create(complaints).map_err(|source| failed(source, command))?;
        command.stdin(stdin).stdout(Stdio::piped()).stderr(stderr).process_group(self.group);
        let spawned = Instant::now();
        let mut child = command.spawn().map_err(|source| failed(source, command))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        Ok(Machine { child, stdin, stdout, complaints: complaints.to_owned(), spawned })
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.stdin = None;
        // It kills itself, too: there is no status to look at.
        let _killed = self.shell.wait();
    }
}

/// A VMM's process; it is killed when this is dropped.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    complaints: PathBuf,
    spawned: Instant,
}

impl Machine {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Begins its end; dropping it waits for that.
    pub fn kill(&mut self) {
        // It may be gone already.
        let _gone = self.child.kill();
    }

    /// How long ago it was spawned.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.spawned.elapsed()
    }

    /// Listens until the guest has said READY, no longer than `limit` after the spawn.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_until_ready(&mut self, limit: Duration) -> Result<Times, Failure> {
        let mut said = Vec::with_capacity(READY.len());
        let mut first_byte = None;
        while said.len() < READY.len() {
            let mut buffer = [0; READY.len()];
            let count = self.read(&mut buffer[said.len()..], limit)?;
            let now = self.spawned.elapsed();
            if count == 0 {
                return Err(Failure::Ended(self.last_words()));
            }
            first_byte.get_or_insert(now);
            said.extend_from_slice(&buffer[said.len()..][..count]);
            if !READY.starts_with(&said) {
                return Err(Failure::Output(String::from_utf8_lossy(&said).into_owned()));
            }
        }
        let ready = self.spawned.elapsed();
        Ok(Times { first_byte: first_byte.unwrap_or(ready), ready })
    }

    /// Listens until the machine ends, no longer than `limit` after the spawn, and returns all that the guest has said.
    ///
    /// # Errors
    /// When it does not end, or without a word.
    pub fn wait_until_end(&mut self, limit: Duration) -> Result<String, Failure> {
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = self.read(&mut buffer, limit)?;
            if count == 0 {
                break;
            }
            said.extend_from_slice(&buffer[..count]);
            if said.len() > OUTPUT_LIMIT {
                return Err(Failure::Output(format!("more than {OUTPUT_LIMIT} bytes")));
            }
        }
        let said = String::from_utf8_lossy(&said).into_owned();
        if said.is_empty() {
            return Err(Failure::Ended(self.last_words()));
        }
        Ok(said)
    }

    /// Listens until the machine has said `word`, no longer than `limit` after the spawn. Returns all that it has said since it was
    /// last listened to, and when the word came, as time since the spawn.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_for(&mut self, word: &str, limit: Duration) -> Result<(String, Duration), Failure> {
        let mut said = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let count = self.read(&mut buffer, limit)?;
            let now = self.spawned.elapsed();
            said.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&said);
            if text.contains(word) {
                return Ok((text.into_owned(), now));
            }
            if count == 0 {
                let last = text.trim_end().lines().last().unwrap_or_default().to_owned();
                return Err(if last.is_empty() {
                    Failure::Ended(self.last_words())
                } else {
                    Failure::Output(last)
                });
            }
            if said.len() > OUTPUT_LIMIT {
                return Err(Failure::Output(format!("more than {OUTPUT_LIMIT} bytes")));
            }
        }
    }

    /// Sends `line` and returns the line that comes back and what it took, no longer than `limit`; neither line has its
    /// end. The machine must have been [spawned for this](Warden::spawn_to_ask).
    ///
    /// # Errors
    /// When none comes.
    pub fn ask(&mut self, line: &str, limit: Duration) -> Result<(String, Duration), Failure> {
        let asked = Instant::now();
        let limit = self.spawned.elapsed() + limit;
        let Some(stdin) = &mut self.stdin else {
            return Err(Failure::Output("nothing: it has no input".into()));
        };
        stdin.write_all(format!("{line}\n").as_bytes())?;
        let mut said = Vec::new();
        loop {
            let mut buffer = [0; 256];
            let count = self.read(&mut buffer, limit)?;
            if count == 0 {
                return Err(Failure::Ended(self.last_words()));
            }
            said.extend_from_slice(&buffer[..count]);
            if said.ends_with(b"\n") {
                let time = asked.elapsed();
                return Ok((String::from_utf8_lossy(&said).trim_end().to_owned(), time));
            }
            if said.len() > OUTPUT_LIMIT {
                return Err(Failure::Output(format!("more than {OUTPUT_LIMIT} bytes")));
            }
        }
    }

    /// Reads once, as soon as there is something or the end; at most until `limit` after the spawn.
    fn read(&mut self, buffer: &mut [u8], limit: Duration) -> Result<usize, Failure> {
        let Some(stdout) = &mut self.stdout else { return Ok(0) };
        loop {
            let left = limit.checked_sub(self.spawned.elapsed()).ok_or(Failure::Late(limit))?;
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(stdout, PollFlags::IN)], Some(&left)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(stdout.read(buffer)?),
                Err(error) => return Err(Failure::Read(error.into())),
            }
        }
    }

    /// How the process ended, and its last line on stderr.
    fn last_words(&mut self) -> String {
        // Its stdout is closed, so it has ended, or ends here.
        let _gone = self.child.kill();
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let complaints = fs::read(&self.complaints).unwrap_or_default();
        let complaints = String::from_utf8_lossy(&complaints);
        complaints
            .trim_end()
            .lines()
            .last()
            .map_or(status.clone(), |line| format!("{status}, saying: {line}"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only where the process is gone already. Waiting keeps its end out of the next one's time.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(warden: &Warden, script: &str) -> Machine {
        let complaints = warden.directory().join("stderr");
        warden.spawn(Command::new("/bin/sh").args(["-c", script]), &complaints).unwrap()
    }

    /// Whether the process is there and no zombie.
    fn lives(id: u32) -> bool {
        fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn ready_is_timed() {
        let warden = Warden::start().unwrap();
        let mut machine = shell(&warden, "printf RE; sleep 0.1; echo ADY; sleep 100");
        let times = machine.wait_until_ready(LIMIT).unwrap();
        assert!(times.ready >= times.first_byte + Duration::from_millis(90), "{times:?}");
    }

    #[test]
    fn each_failure_is_told_apart() {
        let warden = Warden::start().unwrap();
        let failure = |script| shell(&warden, script).wait_until_ready(LIMIT).unwrap_err().to_string();
        assert_eq!(failure("echo hello; sleep 100"), r#"it did not say what it should, but "hello\n""#);
        let ended = failure("echo first >&2; echo no KVM >&2; exit 3");
        assert_eq!(ended, "ended before it was ready: exit status: 3, saying: no KVM");
        let late = shell(&warden, "sleep 100").wait_until_ready(Duration::from_millis(50));
        assert_eq!(late.unwrap_err().to_string(), "nothing came, or not enough, within 50ms");
        let missing = warden.spawn(&mut Command::new("/nonexistent"), Path::new("/dev/null"));
        assert_eq!(missing.unwrap_err().to_string(), "/nonexistent was not started");
    }

    #[test]
    fn the_output_of_a_job_is_kept() {
        let warden = Warden::start().unwrap();
        let said = shell(&warden, "echo READY; sleep 0.1; echo ops=1").wait_until_end(LIMIT).unwrap();
        assert_eq!(said, "READY\nops=1\n");
        let silent = shell(&warden, "echo no disk >&2; exit 1").wait_until_end(LIMIT).unwrap_err();
        assert_eq!(silent.to_string(), "ended before it was ready: exit status: 1, saying: no disk");
        let endless = shell(&warden, "yes").wait_until_end(LIMIT).unwrap_err();
        assert_eq!(endless.to_string(), "it did not say what it should, but \"more than 65536 bytes\"");
    }

    #[test]
    fn a_word_is_waited_for() {
        let warden = Warden::start().unwrap();
        let wait = |script| shell(&warden, script).wait_for("bytes=64", LIMIT);
        let (said, time) = wait("echo proto=1; sleep 0.1; echo bytes=64 exits=2; sleep 100").unwrap();
        assert!(said.contains("exits=2") && time >= Duration::from_millis(90), "{said} {time:?}");
        let other = wait("echo bytes=63").unwrap_err().to_string();
        assert_eq!(other, r#"it did not say what it should, but "bytes=63""#);
        assert!(matches!(wait("exit 3"), Err(Failure::Ended(_))));
        assert!(matches!(wait("yes"), Err(Failure::Output(_))));
    }

    #[test]
    fn a_machine_is_asked_and_answers() {
        let warden = Warden::start().unwrap();
        let complaints = warden.directory().join("stderr");
        let script = "echo READY; read line; echo ECHO $line; read line";
        let mut command = Command::new("/bin/sh");
        let mut machine = warden.spawn_to_ask(command.args(["-c", script]), &complaints).unwrap();
        machine.wait_until_ready(LIMIT).unwrap();
        assert_eq!(machine.ask("a line", LIMIT).unwrap().0, "ECHO a line");
        assert!(matches!(machine.ask("another", LIMIT), Err(Failure::Ended(_))));
        let deaf = shell(&warden, "echo READY; sleep 100").ask("a line", LIMIT);
        assert!(matches!(deaf, Err(Failure::Output(_))));
    }

    #[test]
    fn a_machine_dies_with_its_handle() {
        let warden = Warden::start().unwrap();
        let machine = shell(&warden, "sleep 100");
        let id = machine.id();
        assert!(lives(id));
        drop(machine);
        assert!(!lives(id));
    }

    #[test]
    fn a_forgotten_machine_dies_with_the_warden() {
        let warden = Warden::start().unwrap();
        let directory = warden.directory().to_owned();
        assert!(directory.exists());
        let mut machine = shell(&warden, "echo READY; sleep 100");
        machine.wait_until_ready(LIMIT).unwrap();
        let id = machine.id();
        std::mem::forget(machine);
        drop(warden);
        let deadline = Instant::now() + LIMIT;
        while lives(id) {
            assert!(Instant::now() < deadline, "process {id} lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!directory.exists());
    }
}
