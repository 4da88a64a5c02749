//! The room: a small file system in memory that holds mount points and device nodes, and nothing else.
//!
//! It is made and filled in the jail's own mount namespace, so nothing of it is ever seen on the host, and all of it is
//! gone with the last process inside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use rustix::fs::AtFlags;
use rustix::fs::{
    Access, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, accessat, chownat, fstat, mkdirat, mknodat, openat,
    stat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
    unmount,
};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use super::config::{Bind, JailConfig};
use super::error::{JailError, PathFault, cannot};
use super::executable::Executable;
use super::path::{self, Identity};
use super::sys::restrict_mount;

/// Directories, mount points and nodes; no data.
const SIZE: &str = "64k";
const INODES: &str = "1024";
/// Its only directory.
const ROOT: &str = "root";
/// What a VMM may need, where the host has it.
pub(super) const DEVICES: [&str; 4] = ["kvm", "net/tun", "urandom", "userfaultfd"];

/// What of the host a `--bind` names, as it was checked.
pub(super) struct Source {
    bind: Bind,
    identity: Identity,
    kind: FileType,
    device: u64,
}

impl Source {
    /// Looks at what the bind names, without following symbolic links.
    pub(super) fn check(bind: &Bind) -> Result<Self, JailError> {
        let examine = || -> Result<Stat, PathFault> { Ok(fstat(path::open(&bind.source, OFlags::PATH)?)?) };
        let stat = examine().map_err(|fault| refused(bind, fault))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        Ok(Self { bind: bind.clone(), identity: Identity::from(&stat), kind, device: stat.st_rdev })
    }

    fn is_device(&self) -> bool {
        matches!(self.kind, FileType::BlockDevice | FileType::CharacterDevice)
    }

    /// Checks that the jail's user, which we are now, has the right to it; said here, it is clearer than a VMM's EACCES.
    pub(super) fn check_access(&self) -> Result<(), JailError> {
        let Bind { source, inside, read_only } = &self.bind;
        let mut wanted = if *read_only { Access::READ_OK } else { Access::READ_OK | Access::WRITE_OK };
        if self.kind == FileType::Directory {
            wanted |= Access::EXEC_OK;
        }
        accessat(CWD, Path::new("/").join(inside), wanted, AtFlags::empty()).map_err(|error| {
            let (what, cure) = match read_only {
                true => ("read", "change its owner or mode"),
                false => ("write", "change its owner or mode, or bind it with ',ro'"),
            };
            JailError::Refused(format!(
                "--bind {}: the jail's user cannot {what} it ({error}): {cure}",
                source.display()
            ))
        })
    }
}

/// A room whose door is still open.
pub(super) struct Room {
    /// The file system, of which no more than one directory is used.
    mount: OwnedFd,
    /// That directory: the jail's root. The kernel lets no process make a user namespace, and so become root of one, whose
    /// root directory is not that of its mount namespace (user_namespaces(7), EPERM).
    root: OwnedFd,
    uid: u32,
    gid: u32,
    /// Without root there are no device nodes: the host's own are bound.
    rootless: bool,
}

impl Room {
    /// Mounts an empty room on the current directory. We are in a mount namespace of our own already, which has to stop
    /// sharing its mounts with the one that it was copied from.
    pub(super) fn build(config: &JailConfig) -> Result<Self, JailError> {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(cannot("take the mounts out of the host's reach"))?;
        let mount = make_tmpfs().map_err(cannot("make the room, a tmpfs"))?;
        move_mount(&mount, "", CWD, ".", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(cannot("mount the room"))?;
        let root = make_directory(&mount, ROOT).map_err(cannot("make the room's floor"))?;
        Ok(Self { mount, root, uid: config.uid, gid: config.gid, rootless: config.rootless })
    }

    /// Device nodes, owned by the jail's user.
    pub(super) fn add_devices(&self) -> Result<(), JailError> {
        for name in DEVICES {
            let host = Path::new("/dev").join(name);
            let Ok(stat) = stat(&host) else { continue };
            if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice {
                continue;
            }
            let inside = Path::new("dev").join(name);
            let made = match self.rootless {
                false => self.make_node(&inside, FileType::CharacterDevice, 0o600, stat.st_rdev),
                true => self.attach(&host, None, &inside, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, false),
            };
            made.map_err(|fault| JailError::Path { flag: "the device", path: host, fault })?;
        }
        Ok(())
    }

    /// The program itself: the host's file, which all jails share.
    pub(super) fn add_program(&self, program: &Executable) -> Result<(), JailError> {
        let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
        self.attach(&program.path, Some(program.identity), Path::new(&program.name), attributes, false)
            .map_err(|fault| JailError::Path { flag: "--exec-file", path: program.path.clone(), fault })
    }

    /// What else of the host is to be there. A device gets a node of its own, whose owner is the jail's user.
    pub(super) fn add(&self, source: &Source) -> Result<(), JailError> {
        let Bind { source: host, inside, read_only } = &source.bind;
        let mut attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
        if *read_only {
            attributes |= MOUNT_ATTR_RDONLY;
        }
        let added = match (source.is_device(), self.rootless) {
            (true, false) => {
                self.make_node(inside, source.kind, if *read_only { 0o400 } else { 0o600 }, source.device)
            }
            (true, true) => self.attach(host, Some(source.identity), inside, attributes, false),
            (false, _) => {
                let directory = source.kind == FileType::Directory;
                self.attach(host, Some(source.identity), inside, attributes | MOUNT_ATTR_NODEV, directory)
            }
        };
        added.map_err(|fault| refused(&source.bind, fault))
    }

    /// Makes the room the root of everything, lets the host's mounts go, and forbids every change.
    pub(super) fn close(self) -> Result<(), JailError> {
        let enter = || -> io::Result<()> {
            fchdir(&self.mount)?;
            // pivot_root(2): the old root is mounted upon the new one, where it can be unmounted without a directory for it.
            pivot_root(".", ".")?;
            unmount(".", UnmountFlags::DETACH)?;
            chroot(ROOT)?;
            chdir("/")?;
            restrict_mount(&self.mount, MOUNT_ATTR_RDONLY, 0)
        };
        enter().map_err(cannot("make the room the root"))
    }

    fn make_node(&self, inside: &Path, kind: FileType, mode: u32, device: u64) -> Result<(), PathFault> {
        let (parent, name) = self.make_parents(inside)?;
        mknodat(&parent, &name, kind, Mode::from_raw_mode(mode), device)?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        Ok(chownat(&parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Mounts the host's `host` at `inside`, if it still is what was checked.
    fn attach(
        &self,
        host: &Path,
        checked: Option<Identity>,
        inside: &Path,
        attributes: u64,
        directory: bool,
    ) -> Result<(), PathFault> {
        let fd = path::open(host, OFlags::PATH)?;
        if checked.is_some_and(|identity| fstat(&fd).is_ok_and(|stat| Identity::from(&stat) != identity)) {
            return Err(PathFault::Exchanged);
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(&fd, "", flags)?;
        restrict_mount(&tree, attributes, libc::AT_RECURSIVE)?;
        let (parent, name) = self.make_parents(inside)?;
        match directory {
            true => mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?,
            false => mknodat(&parent, &name, FileType::RegularFile, Mode::empty(), 0)?,
        }
        move_mount(&tree, "", &parent, &name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(())
    }

    /// Makes the directories on the way to `inside`; gives the last one, and the name in it.
    fn make_parents(&self, inside: &Path) -> io::Result<(OwnedFd, PathBuf)> {
        let mut directory = self.root.try_clone()?;
        let mut names: Vec<&Path> = inside.components().map(|part| part.as_os_str().as_ref()).collect();
        let last = names.pop().unwrap_or(inside).to_owned();
        for name in names {
            directory = make_directory(&directory, name)?;
        }
        Ok((directory, last))
    }
}

/// Opens a directory, which is made if it is not there.
fn make_directory(parent: &OwnedFd, name: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(openat(parent, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

fn make_tmpfs() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("size", SIZE), ("nr_inodes", INODES), ("mode", "0755")] {
        fsconfig_set_string(context.as_fd(), key, value)?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn refused(bind: &Bind, fault: PathFault) -> JailError {
    JailError::Path { flag: "--bind", path: bind.source.clone(), fault }
}
