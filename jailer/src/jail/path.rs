//! Paths of the command line, turned into descriptors: what was checked is what is used.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat};
use rustix::io::Errno;

use super::error::PathFault;

/// The mode bits that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Lets nobody but the owner of an entry exchange it.
pub(super) const STICKY: u32 = 0o1000;

/// Only names, no resolution: neither reads nor writes what it opens.
pub(super) const NAME_ONLY: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A file or directory as it was checked, to be recognised later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl From<&Stat> for Identity {
    fn from(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// Opens what is at `path` without following any symbolic link on the way.
pub(super) fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, PathFault> {
    let path = absolute(path)?;
    let flags = flags | OFlags::CLOEXEC;
    match openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS) {
        Ok(fd) => refuse_link(fd, &path),
        Err(Errno::LOOP) => Err(PathFault::Link(first_link(&path))),
        Err(error) => Err(error.into()),
    }
}

/// Opens the directory at `path` and checks that nobody but root and ourselves can change any part of that path. In a
/// directory with the sticky bit, as /tmp is, others may add entries, but not exchange those that are there.
pub(super) fn open_trusted_directory(path: &Path) -> Result<OwnedFd, PathFault> {
    let mut walked = PathBuf::from("/");
    let mut directory = openat(CWD, "/", NAME_ONLY | OFlags::DIRECTORY, Mode::empty())?;
    for component in absolute(path)?.components().skip(1) {
        trust(&walked, &fstat(&directory)?, STICKY)?;
        walked.push(component);
        let name: &Path = component.as_ref();
        let next = openat(&directory, name, NAME_ONLY, Mode::empty())?;
        let stat = fstat(&next)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => directory = next,
            FileType::Symlink => return Err(PathFault::Link(walked)),
            other => return Err(PathFault::Kind { found: name_of(other), wanted: "a directory" }),
        }
    }
    trust(&walked, &fstat(&directory)?, STICKY)?;
    Ok(openat(&directory, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens an entry of a directory that was opened by [`open_trusted_directory`].
pub(super) fn open_in(
    directory: impl AsFd,
    name: &OsStr,
    path: &Path,
    flags: OFlags,
) -> Result<OwnedFd, PathFault> {
    match openat(directory, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => refuse_link(fd, path),
        Err(Errno::LOOP) => Err(PathFault::Link(path.to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// Whether only root and this user can change what `stat` is of.
pub(super) fn trust(path: &Path, stat: &Stat, enough: u32) -> Result<(), PathFault> {
    let ours = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
    if ours && (stat.st_mode & WRITABLE_BY_OTHERS == 0 || stat.st_mode & enough != 0) {
        return Ok(());
    }
    Err(PathFault::NotTrusted { path: path.to_owned(), uid: stat.st_uid, mode: stat.st_mode & 0o7777 })
}

/// `path` from the root on. What `..` means depends on links, so it is refused.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, PathFault> {
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(PathFault::Upwards);
    }
    Ok(std::path::absolute(path)?)
}

/// What a file of this type is called.
pub(super) fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Socket => "a socket",
        FileType::Fifo => "a pipe",
        FileType::BlockDevice | FileType::CharacterDevice => "a device",
        FileType::Unknown => "of an unknown kind",
    }
}

/// With O_PATH, a link at the end is opened instead of refused.
fn refuse_link(fd: OwnedFd, path: &Path) -> Result<OwnedFd, PathFault> {
    match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
        FileType::Symlink => Err(PathFault::Link(path.to_owned())),
        _ => Ok(fd),
    }
}

/// For the error message only.
fn first_link(path: &Path) -> PathBuf {
    let is_link = |part: &&Path| {
        let stat = statat(CWD, *part, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    };
    path.ancestors().filter(is_link).last().unwrap_or(path).to_owned()
}
