//! How often KVM has left a guest for its VMM: the returns of KVM_RUN, which `strace` sees. Exits that KVM deals with itself are
//! cheaper, and not among them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// strace, by its executable.
pub(crate) struct Counter(PathBuf);

impl Counter {
    /// This host's: where MOTE_PEER_STRACE says, else on PATH.
    pub(crate) fn find() -> Option<Self> {
        if let Some(executable) = std::env::var_os("MOTE_PEER_STRACE") {
            return Some(Self(executable.into()));
        }
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|directory| directory.join("strace"))
            .find(|it| it.is_file())
            .map(Self)
    }

    /// A command that runs `command` and writes what it did to `trace`.
    pub(crate) fn watch(&self, command: &Command, trace: &Path) -> Command {
        let mut watched = Command::new(&self.0);
        watched.args(["-f", "-qq", "-e", "trace=ioctl", "-e", "signal=none", "-o"]).arg(trace).arg("--");
        watched.arg(command.get_program()).args(command.get_args());
        watched
    }
}

/// The exits in a trace.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn count(trace: &Path) -> io::Result<usize> {
    // Not by lines: whoever was killed has left half of one.
    let text = std::fs::read(trace)?;
    // A call that another thread's interrupts is told of in two lines, but its request is in the first only.
    Ok(String::from_utf8_lossy(&text).matches("KVM_RUN").count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_return_counts_once() {
        let trace = tempfile::NamedTempFile::new().unwrap();
        let text = "7 ioctl(3, KVM_CREATE_VM, 0) = 4\n8 ioctl(9, KVM_RUN, 0 <unfinished ...>\n7 ioctl(5, TCGETS) = 0\n\
                    8 <... ioctl resumed>) = 0\n8 ioctl(9, KVM_RUN, 0) = -1 EINTR (Interrupted system call)\n";
        std::fs::write(trace.path(), text).unwrap();
        assert_eq!(count(trace.path()).unwrap(), 2);
        assert!(count(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn what_is_watched_keeps_its_words() {
        let mut command = Command::new("/bin/mote");
        command.args(["run", "--cmdline", "mode=ready"]);
        let watched = Counter("strace".into()).watch(&command, Path::new("/t"));
        let words: Vec<_> = watched.get_args().map(|word| word.to_string_lossy()).collect();
        assert_eq!(words[7..], ["/t", "--", "/bin/mote", "run", "--cmdline", "mode=ready"]);
    }
}
