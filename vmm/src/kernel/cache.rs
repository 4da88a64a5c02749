//! Unpacked kernels, kept per user, so that unpacking is paid once.
//!
//! An entry is named by what identifies the packed file without reading it (device, inode, size, times of change):
//! hashing a kernel costs more than starting a machine. An entry appears whole or not at all (written without a
//! name, then linked), belongs to this user alone, and is parsed like any other kernel file. A user without a place
//! for the cache pays for unpacking every time, and nothing else.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, BufWriter, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, MemfdFlags, Mode, OFlags};

use super::{Source, UnpackedError};

/// Entries that are kept; some 60 MiB each for a distribution's kernel.
const KEPT: usize = 8;

/// The unpacked kernel of the bzImage `packed`, with its plan.
pub(super) fn unpacked(packed: &mut File, path: &Path) -> Result<(Source, boot::Kernel), UnpackedError> {
    let name = entry_name(&packed.metadata()?);
    let entry = directory().map(|directory| directory.join(name));
    if let Some(entry) = &entry
        && let Some(mut file) = open_entry(entry)
    {
        match boot::Kernel::parse(&mut file) {
            Ok(plan) => {
                // Entries are never written to again, and a file outlives its name.
                let tables = plan.constant_tables(&mut file);
                return Ok((Source::Cached(file, tables), plan));
            }
            Err(error) => {
                log::warn!("the cached kernel {} is damaged and made anew: {error}", entry.display());
            }
        }
    }
    log::info!("unpacking {}", path.display());
    let draft = entry.and_then(|entry| Draft::new(entry).ok());
    let mut file = match &draft {
        Some(draft) => draft.file.try_clone()?,
        None => in_memory()?,
    };
    // Whole blocks reach the file, whatever pieces the decoder makes.
    let mut output = BufWriter::with_capacity(HOLE, Sparse { file: &file, size: 0 });
    boot::unpack(packed, &mut output, boot::UNPACK_LIMIT)?;
    output.flush()?;
    drop(output);
    file.rewind()?;
    let plan = boot::Kernel::parse(&mut file)?;
    if let Some(draft) = draft
        && let Err(error) = draft.keep()
    {
        log::info!("the unpacked kernel is not kept: {error}");
    }
    Ok((Source::File(file), plan))
}

fn entry_name(packed: &Metadata) -> String {
    format!(
        "{:x}-{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
        packed.dev(),
        packed.ino(),
        packed.size(),
        packed.mtime(),
        packed.mtime_nsec(),
        packed.ctime(),
        packed.ctime_nsec()
    )
}

/// `$XDG_CACHE_HOME/mote/kernels` or `~/.cache/mote/kernels`, made if need be. `None` where there is no such place,
/// or others than this user could put files there.
fn directory() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    let directory = cache.join("mote").join("kernels");
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).ok()?;
    let metadata = fs::symlink_metadata(&directory).ok()?;
    (metadata.is_dir() && ours_alone(&metadata)).then_some(directory)
}

/// Owned by this user, writable by nobody else.
fn ours_alone(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

fn open_entry(entry: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(entry, flags, Mode::empty()).ok()?);
    let metadata = file.metadata().ok()?;
    (metadata.is_file() && ours_alone(&metadata)).then_some(file)
}

/// An entry that is being made. Dropped before it is kept, it leaves nothing.
struct Draft {
    file: File,
    entry: PathBuf,
    /// Its name meanwhile, on a filesystem that has no files without one (overlayfs, for long).
    temporary: Option<PathBuf>,
}

impl Draft {
    fn new(entry: PathBuf) -> io::Result<Self> {
        let directory = entry.parent().ok_or(io::ErrorKind::NotFound)?;
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(directory, flags | OFlags::TMPFILE, mode) {
            return Ok(Self { file: file.into(), entry, temporary: None });
        }
        let temporary = entry.with_extension(format!("{}.part", std::process::id()));
        let file = rustix::fs::open(&temporary, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
        Ok(Self { file: file.into(), entry, temporary: Some(temporary) })
    }

    /// Gives it its name, and makes room for it.
    fn keep(mut self) -> io::Result<()> {
        // A crash of the host must not leave a name without its content.
        self.file.sync_data()?;
        match self.temporary.take() {
            Some(temporary) => fs::rename(&temporary, &self.entry).inspect_err(|_| discard(&temporary))?,
            None => {
                // A damaged entry of this name goes; one that another mote has just made is as good as ours.
                discard(&self.entry);
                let source = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                match rustix::fs::linkat(CWD, source, CWD, &self.entry, AtFlags::SYMLINK_FOLLOW) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.entry.parent().map_or(Ok(()), evict)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            discard(temporary);
        }
    }
}

fn discard(path: &Path) {
    // It may be gone already, or may never have been.
    let _ = fs::remove_file(path);
}

/// Leaves holes where the kernel is zero, so that [`copy`](super::copy) need not touch those pages.
struct Sparse<'a> {
    file: &'a File,
    size: u64,
}

/// Shorter runs of zeros are written: each hole costs two system calls in each start.
const HOLE: usize = 64 << 10;

impl Write for Sparse<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let to_boundary = HOLE - (self.size % HOLE as u64) as usize;
        let block = &bytes[..bytes.len().min(to_boundary)];
        let whole = block.len() == HOLE;
        if whole && block.iter().all(|&byte| byte == 0) {
            self.file.set_len(self.size + HOLE as u64)?;
        } else {
            self.file.write_all_at(block, self.size)?;
        }
        self.size += block.len() as u64;
        Ok(block.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn in_memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("mote-kernel", MemfdFlags::CLOEXEC)?.into())
}

/// Removes the entries that were made first, down to the number that is kept.
fn evict(directory: &Path) -> io::Result<()> {
    let mut entries: Vec<(std::time::SystemTime, PathBuf)> = fs::read_dir(directory)?
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    entries.sort_unstable();
    for (_, path) in entries.iter().take(entries.len().saturating_sub(KEPT)) {
        fs::remove_file(path)?;
    }
    Ok(())
}
