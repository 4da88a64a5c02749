//! The network namespace that a jail joins. Its path is the only one whose links are followed: /var/run is one on most
//! hosts, and so is all that is in /proc/PID/ns.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, fstatfs, openat, readlinkat};
use rustix::io::Errno;

use super::error::{JailError, PathFault};
use super::path::{NAME_ONLY, STICKY, absolute, trust};

/// What statfs(2) calls the file system of namespaces, and that of processes (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;
const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// As many links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Opens the network namespace at `path`. Nobody but root and ourselves may be able to lead the way to another one.
pub(super) fn open(path: &Path) -> Result<OwnedFd, JailError> {
    let open = || -> Result<OwnedFd, PathFault> {
        let fd = Walk::new(path)?.end()?;
        if fstatfs(&fd)?.f_type == NSFS_MAGIC { Ok(fd) } else { Err(PathFault::NoNetns) }
    };
    open().map_err(|fault| JailError::Path { flag: "--netns", path: path.to_owned(), fault })
}

/// On the way along a path, which we walk name by name: no single call of the kernel's follows links of some owners only.
struct Walk {
    directory: OwnedFd,
    walked: PathBuf,
    /// What is left of the path, the next name last.
    left: Vec<OsString>,
    links: usize,
}

impl Walk {
    fn new(path: &Path) -> Result<Self, PathFault> {
        let mut walk = Self { directory: root()?, walked: "/".into(), left: Vec::new(), links: 0 };
        walk.lead_to(&absolute(path)?)?;
        Ok(walk)
    }

    /// Opens what is at the end.
    fn end(mut self) -> Result<OwnedFd, PathFault> {
        while let Some(name) = self.left.pop() {
            trust(&self.walked, &fstat(&self.directory)?, STICKY)?;
            let next = openat(&self.directory, &name, NAME_ONLY, Mode::empty())?;
            let mut stat = fstat(&next)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.enter(next, &name),
                FileType::Symlink => {
                    // Who has a link may exchange it, even where the directory is everybody's, as /tmp is. Its mode means nothing.
                    stat.st_mode = 0;
                    trust(&self.walked.join(&name), &stat, STICKY)?;
                    if let Some(end) = self.follow(&next, &name)? {
                        return Ok(end);
                    }
                }
                _ if self.left.is_empty() => {
                    return Ok(openat(&self.directory, &name, OPEN | OFlags::NOFOLLOW, Mode::empty())?);
                }
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        Ok(self.directory)
    }

    fn enter(&mut self, directory: OwnedFd, name: &OsString) {
        self.directory = directory;
        if name == ".." {
            self.walked.pop();
        } else {
            self.walked.push(name);
        }
    }

    /// Goes on with what a link says.
    fn lead_to(&mut self, path: &Path) -> Result<(), PathFault> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        for component in path.components().rev() {
            match component {
                Component::RootDir => (self.directory, self.walked) = (root()?, "/".into()),
                other => self.left.push(other.as_os_str().to_owned()),
            }
        }
        Ok(())
    }

    /// Goes on behind a link; gives what is there where no path leads to it.
    fn follow(&mut self, link: &OwnedFd, name: &OsString) -> Result<Option<OwnedFd>, PathFault> {
        let target = PathBuf::from(OsString::from_vec(readlinkat(link, "", Vec::new())?.into_bytes()));
        if fstatfs(link)?.f_type == PROC_SUPER_MAGIC {
            if self.left.is_empty() {
                return Ok(Some(openat(&self.directory, name, OPEN, Mode::empty())?));
            }
            // Another process's root or directory, which only looks like a path of ours.
            if target.is_absolute() {
                return Err(PathFault::Link(self.walked.join(name)));
            }
        }
        self.lead_to(&target)?;
        Ok(None)
    }
}

fn root() -> Result<OwnedFd, Errno> {
    openat(CWD, "/", NAME_ONLY | OFlags::DIRECTORY, Mode::empty())
}
