//! A host with many mounts, as one with many containers is: a new mount namespace copies them all.
#![expect(unsafe_code, reason = "namespaces have no safe interface")]

use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves this process to a mount namespace of its own, where `directory` gets so many mounts. They go with the process.
pub(crate) fn add(count: usize, directory: &Path) -> io::Result<()> {
    // SAFETY: no descriptor table and no memory is taken from other threads: only the mounts change.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for index in 0..count {
        let place = directory.join(format!("mount-{index}"));
        std::fs::create_dir(&place)?;
        mount("none", &place, "tmpfs", MountFlags::empty(), None)?;
    }
    Ok(())
}
