//! Where this host has its cgroups.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat, stat};

use crate::jail::config::CgroupSetting;

/// What statfs(2) calls the file systems.
const CGROUP_V1: u64 = 0x0027_e0eb;
const CGROUP_V2: u64 = 0x6367_7270;
/// Where systemd and everyone else mount them: asked first, since the list of all mounts may be long.
const USUAL: &str = "/sys/fs/cgroup";

/// The root of a mounted hierarchy.
pub(super) struct Hierarchy {
    /// Where it is mounted.
    pub path: PathBuf,
    /// Tells it from others.
    pub device: u64,
}

impl Hierarchy {
    /// That of version 2.
    pub(super) fn unified() -> Option<Self> {
        let usual = [PathBuf::from(USUAL), Path::new(USUAL).join("unified")];
        usual
            .into_iter()
            .find_map(|path| Self::at(path, CGROUP_V2))
            .or_else(|| Self::mounted("cgroup2", None, CGROUP_V2))
    }

    /// The one of version 1 that has a controller.
    pub(super) fn of_controller(controller: &str) -> Option<Self> {
        Self::at(Path::new(USUAL).join(controller), CGROUP_V1)
            .or_else(|| Self::mounted("cgroup", Some(controller), CGROUP_V1))
    }

    /// Whether version 2 has all controllers that are asked for.
    pub(super) fn has_all(&self, settings: &[CgroupSetting]) -> bool {
        let known = fs::read_to_string(self.path.join("cgroup.controllers")).unwrap_or_default();
        settings.iter().all(|setting| known.split_ascii_whitespace().any(|name| name == setting.controller()))
    }

    /// Co-mounted controllers are links to one directory (`cpu` to `cpu,cpuacct`).
    fn at(path: impl AsRef<Path>, magic: u64) -> Option<Self> {
        let path = path.as_ref().canonicalize().ok()?;
        let fd =
            openat(CWD, &path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let found = fstatfs(&fd).ok()?.f_type;
        (u64::try_from(found).ok()? == magic).then_some(())?;
        Some(Self { device: stat(&path).ok()?.st_dev, path })
    }

    /// Looks through /proc/self/mounts (fstab(5)): device, directory, type, options.
    fn mounted(kind: &str, controller: Option<&str>, magic: u64) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, found, options) = (fields.next()?, fields.next()?, fields.next()?);
            let has = controller.is_none_or(|name| options.split(',').any(|option| option == name));
            (found == kind && has).then_some(())?;
            Self::at(unescape(path), magic)
        })
    }
}

/// Blanks and backslashes stand as three octal digits behind a backslash.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.filter(|_| first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_mount_points() {
        assert_eq!(unescape(r"/sys/fs/c\040g\134x"), Path::new(r"/sys/fs/c g\x"));
        assert_eq!(unescape(r"/a\04"), Path::new(r"/a\04"));
    }
}
