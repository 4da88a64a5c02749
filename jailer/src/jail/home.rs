//! A jail's directory on the host: `<base>/<name of the program>/<id>`.
//!
//! - The directory itself is the lock: whoever keeps a jail holds it with flock, so it is free as soon as the keeper is
//!   gone, however that ended.
//! - `root` is where the room is mounted, in the jail's mount namespace only: on the host it holds the PID file.
//! - `cgroups` lists the jail's cgroups, written before they are made.
//!
//! It is never merged into: a jail whose directory exists already is refused.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::cgroup::Record;
use super::config::Id;
use super::error::{JailError, PathFault, cannot};
use super::path;

const FLAG: &str = "--chroot-base-dir";
const ROOT: &str = "root";
const CGROUPS: &str = "cgroups";
/// What a line of that begins with.
const GROUP: &str = "group ";
const PARENT: &str = "parent ";
/// A directory that another jail, at its end, removes before we have ours in it is made again; this often at most.
const TRIES: usize = 100;

/// A jail's directory, locked.
pub(super) struct Home {
    path: PathBuf,
    id: Id,
    program: OsString,
    base: OwnedFd,
    parent: OwnedFd,
    directory: OwnedFd,
}

impl Home {
    /// Makes and locks the directory of jail `id`.
    pub(super) fn create(base: &Path, program: &OsStr, id: &Id) -> Result<Self, JailError> {
        let path = path_of(base, program, id);
        let what = || format!("make the jail's directory {}", path.display());
        let base_fd = open_base(base)?;
        for _ in 0..TRIES {
            match mkdirat(&base_fd, program, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(cannot(what())(error)),
            }
            let parent = match open_directory(&base_fd, program, &path) {
                Err(fault) if is(&fault, Errno::NOENT) => continue,
                other => other.map_err(refused(&path))?,
            };
            match mkdirat(&parent, id.as_str(), Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::NOENT) => continue,
                Err(Errno::EXIST) => return Err(occupied(&parent, id, &path)),
                Err(error) => return Err(cannot(what())(error)),
            }
            let directory = match open_directory(&parent, OsStr::new(id.as_str()), &path) {
                Err(fault) if is(&fault, Errno::NOENT) => continue,
                other => other.map_err(refused(&path))?,
            };
            // Whoever finds it unlocked looks only for a moment, or removes it.
            flock(&directory, FlockOperation::LockExclusive).map_err(cannot(what()))?;
            if fstat(&directory).map_err(cannot(what()))?.st_nlink == 0 {
                continue;
            }
            let home = Self {
                path: path.clone(),
                id: id.clone(),
                program: program.to_owned(),
                base: base_fd,
                parent,
                directory,
            };
            if let Err(error) = mkdirat(&home.directory, ROOT, Mode::from_raw_mode(0o755)) {
                let _ = home.remove();
                return Err(cannot(what())(error));
            }
            return Ok(home);
        }
        Err(JailError::Refused(format!("{}: others keep removing it", path.display())))
    }

    /// Locks what jails of this name have left, whatever their programs were.
    pub(super) fn find(base: &Path, id: &Id) -> Result<Vec<Self>, JailError> {
        let what = || format!("read {}", base.display());
        let base_fd = open_base(base)?;
        let mut found = Vec::new();
        for program in programs(&base_fd, base)? {
            let program = program.as_os_str();
            let path = path_of(base, program, id);
            let Ok(parent) = open_directory(&base_fd, program, &path) else { continue };
            let directory = match open_directory(&parent, OsStr::new(id.as_str()), &path) {
                Err(fault) if is(&fault, Errno::NOENT) => continue,
                other => other.map_err(refused(&path))?,
            };
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(running(id, &path)),
                Err(error) => return Err(cannot(format!("lock {}", path.display()))(error)),
            }
            let base = base_fd.try_clone().map_err(cannot(what()))?;
            found.push(Self { path, id: id.clone(), program: program.to_owned(), base, parent, directory });
        }
        Ok(found)
    }

    /// Where it is, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the room is mounted.
    pub(super) fn root(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.directory, ROOT, flags, Mode::empty())?)
    }

    /// Writes down which cgroups the jail has, one a line: `group PATH`, or `parent PATH`.
    pub(super) fn record_cgroups(&self, record: &Record) -> io::Result<()> {
        let line =
            |kind: &str, path: &PathBuf| [kind.as_bytes(), path.as_os_str().as_bytes(), b"\n"].concat();
        let groups = record.groups.iter().map(|path| line(GROUP, path));
        let parents = record.parents.iter().map(|path| line(PARENT, path));
        self.write(&self.directory, CGROUPS, &groups.chain(parents).collect::<Vec<_>>().concat())
    }

    /// Which cgroups the jail has.
    pub(super) fn cgroups(&self) -> io::Result<Record> {
        let mut record = Record::default();
        let file = match openat(&self.directory, CGROUPS, OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(record),
            Err(error) => return Err(error.into()),
        };
        let mut text = Vec::new();
        std::fs::File::from(file).read_to_end(&mut text)?;
        // A line without its end was being written when its writer was killed: its cgroup was not made.
        for line in text.split_inclusive(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\n")) {
            let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
            if let Some(group) = line.strip_prefix(GROUP.as_bytes()) {
                record.groups.push(path(group));
            } else if let Some(parent) = line.strip_prefix(PARENT.as_bytes()) {
                record.parents.push(path(parent));
            }
        }
        Ok(record)
    }

    /// Writes the PID of the program, in our PID namespace, to `root/<program>.pid`, as Firecracker's jailer does.
    pub(super) fn record_pid(&self, pid: rustix::process::Pid) -> io::Result<()> {
        self.write(self.root()?, self.pid_file(), pid.as_raw_nonzero().to_string().as_bytes())
    }

    /// Removes the directory, and that of the program's jails if it was the last.
    pub(super) fn remove(&self) -> Result<(), JailError> {
        let what = |name: &str| {
            cannot(format!("remove {}: it holds what no jail puts there", self.path.join(name).display()))
        };
        if let Ok(root) = self.root() {
            gone(unlinkat(root, self.pid_file(), AtFlags::empty())).map_err(what("root"))?;
            gone(unlinkat(&self.directory, ROOT, AtFlags::REMOVEDIR)).map_err(what("root"))?;
        }
        gone(unlinkat(&self.directory, CGROUPS, AtFlags::empty())).map_err(what(CGROUPS))?;
        gone(unlinkat(&self.parent, self.id.as_str(), AtFlags::REMOVEDIR)).map_err(what(""))?;
        // Not empty: other jails of the same program.
        let _ = unlinkat(&self.base, &self.program, AtFlags::REMOVEDIR);
        Ok(())
    }

    fn pid_file(&self) -> OsString {
        let mut name = self.program.clone();
        name.push(".pid");
        name
    }

    fn write(&self, directory: impl AsFd, name: impl rustix::path::Arg, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        std::fs::File::from(openat(directory, name, flags, Mode::from_raw_mode(0o644))?).write_all(bytes)
    }
}

/// Removes those directories of programs that hold no jail. A keeper that is about to use one makes it again.
pub(super) fn remove_empty(base: &Path) -> Result<(), JailError> {
    let base_fd = open_base(base)?;
    for program in programs(&base_fd, base)? {
        // Not empty: it holds jails.
        let _ = unlinkat(&base_fd, &program, AtFlags::REMOVEDIR);
    }
    Ok(())
}

/// The entries of a base directory.
fn programs(base_fd: &OwnedFd, base: &Path) -> Result<Vec<OsString>, JailError> {
    let read = || -> rustix::io::Result<Vec<OsString>> {
        let names = Dir::read_from(base_fd)?
            .map(|entry| Ok(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned()));
        let names = names.collect::<rustix::io::Result<Vec<_>>>()?;
        Ok(names.into_iter().filter(|name| name != "." && name != "..").collect())
    };
    read().map_err(cannot(format!("read {}", base.display())))
}

fn path_of(base: &Path, program: &OsStr, id: &Id) -> PathBuf {
    base.join(program).join(id.as_str())
}

fn open_base(base: &Path) -> Result<OwnedFd, JailError> {
    path::open_trusted_directory(base).map_err(refused(base))
}

/// A directory in one that is trusted, and that nobody else can change either.
fn open_directory(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<OwnedFd, PathFault> {
    let directory = path::open_in(parent, name, path, OFlags::DIRECTORY)?;
    path::trust(path, &fstat(&directory)?, 0)?;
    Ok(directory)
}

/// Why there can be no second jail of this name.
fn occupied(parent: &OwnedFd, id: &Id, path: &Path) -> JailError {
    let left = JailError::Refused(format!(
        "{} was left by a jail that nobody keeps any more: mote-jailer --clean {} removes it",
        path.display(),
        id.as_str()
    ));
    match open_directory(parent, OsStr::new(id.as_str()), path) {
        Err(fault) => refused(path)(fault),
        Ok(directory) => match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => running(id, path),
            _ => left,
        },
    }
}

fn running(id: &Id, path: &Path) -> JailError {
    JailError::Refused(format!("jail '{}' is running: {} is locked", id.as_str(), path.display()))
}

fn refused(path: &Path) -> impl Fn(PathFault) -> JailError {
    move |fault| JailError::Path { flag: FLAG, path: path.to_owned(), fault }
}

fn is(fault: &PathFault, errno: Errno) -> bool {
    matches!(fault, PathFault::Kernel(error) if error.raw_os_error() == Some(errno.raw_os_error()))
}

/// What is not there needs no removing.
fn gone(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
