//! The file or block device behind a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FlockOperation, OFlags, StatxFlags, flock, fstatfs, ioctl_blksszget, statx};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use thiserror::Error;

use super::request::Bounds;
use super::spec::SECTOR;

/// What is wrong with a disk's configuration or with its file.
#[derive(Debug, Error)]
pub enum BlockError {
    /// It cannot be opened, or not be asked for its size.
    #[error("cannot open disk {path:?}; check that it is there, and that this user may {access} it")]
    Open {
        /// The file.
        path: PathBuf,
        /// What is wanted of it.
        access: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is neither a file nor a block device.
    #[error("disk {path:?} is neither a file nor a block device")]
    Kind {
        /// What it is called.
        path: PathBuf,
    },
    /// It has not even one block.
    #[error(
        "disk {path:?} is smaller than one block of {block} bytes; give it a size, for example with truncate(1)"
    )]
    Small {
        /// The file.
        path: PathBuf,
        /// Bytes of a block.
        block: u32,
    },
    /// Another machine has it.
    #[error(
        "disk {path:?} is in use by another process, which has locked it; end that, or use a copy, or open it read-only in both"
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Its filesystem cannot do direct I/O, or only with restrictions that no guest keeps to.
    #[error("disk {path:?} cannot be used with direct I/O: its filesystem {reason}; do without direct I/O")]
    Direct {
        /// The file.
        path: PathBuf,
        /// What it does not allow.
        reason: &'static str,
    },
    /// The name for the guest is too long, or not printable.
    #[error("the disk name {id:?} is not usable; give at most 20 printable ASCII characters")]
    Id {
        /// What was given.
        id: String,
    },
    /// That many queues are not possible.
    #[error("a disk with {queues} queues is not possible; give a number from 1 to {most}")]
    Queues {
        /// What was asked for.
        queues: u16,
        /// The most.
        most: usize,
    },
    /// The host has no io_uring for this process.
    #[error("this host gives no io_uring (see /proc/sys/kernel/io_uring_disabled); use the sync engine")]
    Ring(#[source] io::Error),
}

/// How a disk is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) read_only: bool,
    pub(super) direct: bool,
}

/// An open one.
#[derive(Debug)]
pub(super) struct Disk {
    file: Arc<File>,
    access: Access,
    sectors: u64,
    block: u32,
    tail: u64,
    name: String,
    waits_apart: bool,
    in_memory: bool,
}

impl Disk {
    /// Opens `path`, and locks it against a second writer.
    pub(super) fn open(path: &Path, access: Access) -> Result<Self, BlockError> {
        let wanted = if access.read_only { "read" } else { "read and write" };
        let failed = |source| BlockError::Open { path: path.to_owned(), access: wanted, source };
        // Before it is opened: opening a FIFO would wait for its other end.
        let kind = path.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(BlockError::Kind { path: path.to_owned() });
        }
        let mut options = OpenOptions::new();
        options.read(true).write(!access.read_only);
        if access.direct {
            options.custom_flags(OFlags::DIRECT.bits() as i32);
        }
        let mut file = options.open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) if access.direct => {
                BlockError::Direct { path: path.to_owned(), reason: "has none" }
            }
            _ => failed(error),
        })?;
        lock(&file, access).map_err(|_| BlockError::Locked { path: path.to_owned() })?;

        let metadata = file.metadata().map_err(failed)?;
        let mut block = SECTOR as u32;
        if metadata.file_type().is_block_device() {
            block = block.max(ioctl_blksszget(&file).map_err(|errno| failed(errno.into()))?);
        }
        if access.direct {
            block = block.max(direct_block(&file, path)?);
        }
        // Also tells the size of a block device.
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let tail = size % u64::from(block);
        let sectors = (size - tail) / SECTOR;
        if sectors == 0 {
            return Err(BlockError::Small { path: path.to_owned(), block });
        }
        let name = format!("{:x}-{:x}", metadata.dev(), metadata.ino());
        let (waits_apart, in_memory) = (waits_apart(&file), in_memory(&file));
        Ok(Self { file: Arc::new(file), access, sectors, block, tail, name, waits_apart, in_memory })
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Lets a test have a host with all kinds of trouble.
    #[cfg(test)]
    pub(super) fn set_file(&mut self, file: File) {
        self.file = Arc::new(file);
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds { sectors: self.sectors, read_only: self.access.read_only }
    }

    /// Bytes of a block: what requests are best, and with direct I/O must be, aligned to.
    pub(super) fn block(&self) -> u32 {
        self.block
    }

    /// Bytes at its end that fill no block. The guest does not see them.
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Whether the host can begin to read without waiting.
    pub(super) fn waits_apart(&self) -> bool {
        self.waits_apart
    }

    /// Whether no operation on the file waits for a device: it is on a tmpfs.
    pub(super) fn in_memory(&self) -> bool {
        self.in_memory
    }

    /// Tells it from other files of this host.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Opens `path` in its place. It may be the same file, which has perhaps grown.
    pub(super) fn replace(&mut self, path: &Path) -> Result<(), BlockError> {
        // The lock is this open file's: it would keep out the next one of the same file.
        let _ = flock(&*self.file, FlockOperation::Unlock);
        match Self::open(path, self.access) {
            Ok(disk) => {
                *self = disk;
                Ok(())
            }
            Err(error) => {
                // Nobody took it meanwhile, or it is theirs now: in both cases the guest goes on.
                let _ = lock(&self.file, self.access);
                Err(error)
            }
        }
    }
}

/// One writer, or any number of readers. Advisory: it protects an image from a second machine, not from its owner.
fn lock(file: &File, access: Access) -> Result<(), Errno> {
    let operation = if access.read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match flock(file, operation) {
        Err(Errno::WOULDBLOCK) => Err(Errno::WOULDBLOCK),
        // Not every filesystem has locks.
        _ => Ok(()),
    }
}

/// Whether the host can tell that a read would have to wait. Where it cannot, as on a tmpfs, an io_uring has every operation done
/// by another thread, which takes several times as long as doing it.
fn waits_apart(file: &File) -> bool {
    let mut byte = [0];
    let read = preadv2(file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT);
    // Any other answer, also to an unaligned read, shows that the flag is known here.
    read != Err(Errno::OPNOTSUPP)
}

fn in_memory(file: &File) -> bool {
    // TMPFS_MAGIC (linux/magic.h).
    fstatfs(file).is_ok_and(|filesystem| filesystem.f_type == libc::TMPFS_MAGIC)
}

/// What direct I/O has to be aligned to in the file, in bytes. Memory may be aligned to sectors only, as guests do.
fn direct_block(file: &File, path: &Path) -> Result<u32, BlockError> {
    let refused = |reason| BlockError::Direct { path: path.to_owned(), reason };
    let Ok(answer) = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return Ok(SECTOR as u32);
    };
    // Linux before 6.1 does not tell: then requests that are not aligned fail one by one.
    if answer.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Ok(SECTOR as u32);
    }
    match (answer.stx_dio_mem_align, answer.stx_dio_offset_align) {
        (0, _) | (_, 0) => Err(refused("has none")),
        (memory, _) if u64::from(memory) > SECTOR => {
            Err(refused("wants memory to be aligned to more than 512 bytes"))
        }
        (_, block) => Ok(block),
    }
}
