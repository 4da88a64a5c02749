//! One cgroup.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, XattrFlags, fgetxattr, fsetxattr, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::hierarchy::Hierarchy;
use crate::jail::config::{CgroupSetting, CgroupVersion, Id};
use crate::jail::error::{JailError, cannot};

/// Marks the groups that were made on the way down, to be removed with the last jail below them, whoever that belongs to.
/// Others stay: an operator may have set limits there.
const MADE_BY_US: &str = "trusted.mote-jailer";
/// A parent that another jail, at its end, removes before we have ours in it is made again; this often at most.
const TRIES: usize = 100;
/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// A group of a jail's own.
pub(super) struct Group {
    path: PathBuf,
    directory: OwnedFd,
}

impl Group {
    /// Makes `<parent>/<id>` in a hierarchy and writes the settings. Where that fails, nothing is left.
    pub(super) fn create(
        hierarchy: &Hierarchy,
        parent: &Path,
        id: &Id,
        settings: &[CgroupSetting],
        version: CgroupVersion,
    ) -> Result<Self, JailError> {
        let path = hierarchy.path.join(parent).join(id.as_str());
        for _ in 0..TRIES {
            let made = match descend(hierarchy, parent, settings, version) {
                Err(Descent::Vanished) => continue,
                Err(Descent::Failed(error)) => return Err(error),
                Ok(parent) => make_leaf(&parent, id, version),
            };
            match made {
                Ok(directory) => {
                    let group = Self { path, directory };
                    if let Err(error) = settings.iter().try_for_each(|setting| group.set(setting)) {
                        let _ = remove(&[&group.path]);
                        return Err(error);
                    }
                    return Ok(group);
                }
                Err(Errno::NOENT) => {}
                Err(Errno::EXIST) => {
                    return Err(JailError::Refused(format!(
                        "the cgroup {} exists already, and is no part of this jail",
                        path.display()
                    )));
                }
                Err(error) => return Err(cannot(format!("make the cgroup {}", path.display()))(error)),
            }
        }
        Err(JailError::Refused(format!("the cgroup {}: others keep removing it", path.display())))
    }

    /// Its directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves this process here.
    pub(super) fn enter(&self) -> io::Result<()> {
        // 0 stands for whoever writes it.
        write_to(&self.directory, "cgroup.procs", "0")
    }

    fn set(&self, setting: &CgroupSetting) -> Result<(), JailError> {
        let CgroupSetting { file, value } = setting;
        write_to(&self.directory, file, value).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                JailError::Refused(format!("--cgroup: {} has no file {file}", self.path.display()))
            }
            _ => cannot(format!("write '{value}' to {file} of {}", self.path.display()))(error),
        })
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Kills what runs in these groups, and removes them and those of their parents that jailers have made and that are empty.
pub(super) fn remove(paths: &[impl AsRef<Path>]) -> Result<(), JailError> {
    for path in paths.iter().map(AsRef::as_ref) {
        let what = || format!("remove the cgroup {}", path.display());
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = remove_directory(path) {
            if error != Errno::BUSY || Instant::now() > deadline {
                return Err(cannot(what())(error));
            }
            kill_all(path).map_err(cannot(what()))?;
            sleep(Duration::from_millis(1));
        }
        let empty = |parent: &&Path| is_ours(parent) && remove_directory(parent).is_ok();
        let _ = path.ancestors().skip(1).take_while(empty).count();
    }
    Ok(())
}

/// Removes those of these groups that are empty.
pub(super) fn remove_empty(paths: &[PathBuf]) {
    for path in paths {
        // In use: by other jails.
        let _ = remove_directory(path);
    }
}

fn remove_directory(path: &Path) -> Result<(), Errno> {
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// At once where the kernel can (Linux 5.14, version 2), else one by one.
fn kill_all(path: &Path) -> io::Result<()> {
    let directory = open(CWD, path)?;
    match write_to(&directory, "cgroup.kill", "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let pids = read_from(&directory, "cgroup.procs")?;
    for pid in pids.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        match kill_process(pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_ours(path: &Path) -> bool {
    open(CWD, path).is_ok_and(|directory| fgetxattr(&directory, MADE_BY_US, &mut [0u8; 1]).is_ok())
}

/// Why there is no parent to make a group in.
enum Descent {
    /// It was removed meanwhile.
    Vanished,
    Failed(JailError),
}

/// Opens the parent, makes what is missing of it, and enables the controllers for its children.
fn descend(
    hierarchy: &Hierarchy,
    parent: &Path,
    settings: &[CgroupSetting],
    version: CgroupVersion,
) -> Result<OwnedFd, Descent> {
    let mut path = hierarchy.path.clone();
    let failed = |path: &Path, error: io::Error| match Errno::from_io_error(&error) {
        // A directory that is being removed answers with ENODEV.
        Some(Errno::NOENT | Errno::NODEV) => Descent::Vanished,
        _ => Descent::Failed(cannot(format!("use the cgroup {} as a parent", path.display()))(error)),
    };
    let mut directory = open(CWD, &path).map_err(|error| failed(&path, error.into()))?;
    prepare(&directory, &path, settings, version)?;
    for name in parent.components() {
        path.push(name);
        let name: &Path = name.as_ref();
        let made = mkdirat(&directory, name, Mode::from_raw_mode(0o755));
        if let Err(error) = made
            && error != Errno::EXIST
        {
            return Err(Descent::Failed(cannot(format!("make the cgroup {}", path.display()))(error)));
        }
        let next = open(&directory, name).map_err(|error| failed(&path, error.into()))?;
        if made.is_ok() {
            // Without the mark it is not removed: a user without the right to set it loses no more than that.
            let _ = fsetxattr(&next, MADE_BY_US, b"1", XattrFlags::empty());
        }
        if version == CgroupVersion::V1 {
            inherit_cpuset(&directory, &next).map_err(|error| failed(&path, error))?;
        }
        prepare(&next, &path, settings, version)?;
        directory = next;
    }
    Ok(directory)
}

fn make_leaf(parent: &OwnedFd, id: &Id, version: CgroupVersion) -> Result<OwnedFd, Errno> {
    mkdirat(parent, id.as_str(), Mode::from_raw_mode(0o755))?;
    let leaf = open(parent, Path::new(id.as_str()))?;
    if version == CgroupVersion::V1 {
        inherit_cpuset(parent, &leaf).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    }
    Ok(leaf)
}

/// Version 2 (Linux's cgroup-v2.rst, "Enabling and Disabling"): a group has a controller if its parent hands it down.
fn prepare(
    directory: &OwnedFd,
    path: &Path,
    settings: &[CgroupSetting],
    version: CgroupVersion,
) -> Result<(), Descent> {
    if version == CgroupVersion::V1 {
        return Ok(());
    }
    let enabled = read_from(directory, "cgroup.subtree_control").unwrap_or_default();
    for controller in settings.iter().map(CgroupSetting::controller) {
        if enabled.split_ascii_whitespace().any(|name| name == controller) {
            continue;
        }
        let written = write_to(directory, "cgroup.subtree_control", &format!("+{controller}"));
        written.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NODEV) => Descent::Vanished,
            Some(Errno::NOENT) => Descent::Failed(JailError::Refused(format!(
                "the cgroup {} has no controller '{controller}'",
                path.display()
            ))),
            Some(Errno::BUSY) => Descent::Failed(JailError::Refused(format!(
                "the cgroup {} holds processes, so it cannot hand '{controller}' down: give another --parent-cgroup",
                path.display()
            ))),
            _ => Descent::Failed(cannot(format!("enable '{controller}' below the cgroup {}", path.display()))(error)),
        })?;
    }
    Ok(())
}

/// Version 1 (Linux's cpusets.rst): a new group has neither CPUs nor memory nodes, and takes no process until it has.
fn inherit_cpuset(parent: &OwnedFd, child: &OwnedFd) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        match read_from(child, file) {
            Ok(text) if text.trim().is_empty() => write_to(child, file, read_from(parent, file)?.trim())?,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open(directory: impl AsFd, name: &Path) -> Result<OwnedFd, Errno> {
    openat(directory, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn read_from(directory: &OwnedFd, file: &str) -> io::Result<String> {
    let mut text = String::new();
    let fd = openat(directory, file, OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    std::fs::File::from(fd).read_to_string(&mut text)?;
    Ok(text)
}

/// The kernel takes a value as one write, or refuses it.
fn write_to(directory: &OwnedFd, file: &str, value: &str) -> io::Result<()> {
    let fd = openat(directory, file, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    std::fs::File::from(fd).write_all(value.as_bytes())
}
