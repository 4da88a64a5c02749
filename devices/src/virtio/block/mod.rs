//! Block device (virtio 1.2, section 5.2): a raw file or a block device of the host.
//!
//! A request passes through `request` (is it sound?), `job` (which operations does it take?) and `backend` (who does
//! them?); `work` is the loop that moves it along. The guest can reach no byte outside the disk as it was when it was
//! opened, and nothing it asks for can do more than fail with a status byte; only a request without room for that byte
//! stops the device.
//!
//! Writes are cached by the host, and stable after a flush, or at once where the driver knows no flush (section 5.2.6.2). With
//! [`CacheMode::Unsafe`] flushes are answered and not carried out: fast, and a power cut of the host costs the disk.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::spec::MAX_QUEUES;
use super::{
    Activation, ConfigSpace, DeviceError, DeviceKind, Identity, Interest, Progress, Queue, TIMER,
    VirtioDevice,
};
use crate::rate_limiter::{RateLimiter, RateLimits};

mod backend;
mod disk;
mod job;
mod request;
pub mod spec;
mod work;

use backend::Backend;
use disk::{Access, Disk};
use job::Stability;
use work::{Active, Host};

pub use disk::BlockError;

#[cfg(test)]
mod tests;

/// The largest size of each queue. A chain is no longer than that: header, status, and the data segments between them.
const QUEUE_SIZE: u16 = 256;

/// What the ring is announced with.
const RING: u32 = 0;

/// What a disk is to be.
#[derive(Clone, Debug)]
pub struct BlockOptions {
    /// The file or block device.
    pub path: PathBuf,
    /// The guest cannot write, and the file is opened so that mote cannot either.
    pub read_only: bool,
    /// Past the host's page cache (O_DIRECT).
    pub direct: bool,
    /// What a flush does.
    pub cache: CacheMode,
    /// How many queues, from 1 to 64: one for each virtual CPU is best.
    pub queues: u16,
    /// How much may be transferred in a time.
    pub limits: RateLimits,
    /// What the guest reads as the disk's serial number: at most 20 printable ASCII characters. Without it, a name that is
    /// made of the file's device and inode numbers.
    pub id: Option<String>,
    /// Who does the I/O.
    pub engine: Engine,
}

impl BlockOptions {
    /// The disk at `path`, and otherwise what is usual.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read_only: false,
            direct: false,
            cache: CacheMode::Writeback,
            queues: 1,
            limits: RateLimits::default(),
            id: None,
            engine: Engine::Auto,
        }
    }
}

/// What a flush does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CacheMode {
    /// It waits until everything is on the disk (fdatasync).
    #[default]
    Writeback,
    /// Nothing.
    Unsafe,
}

/// Who does the I/O.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Engine {
    /// An io_uring where the host has it and the file gains by it, else system calls: those are faster on a tmpfs.
    #[default]
    Auto,
    /// One system call after the other; the event loop waits for each.
    Sync,
    /// An io_uring, or an error.
    IoUring,
}

/// The device.
pub struct Block {
    // Configuration.
    cache: CacheMode,
    queue_count: u16,
    id: [u8; spec::ID],
    /// Whether the name was given, or follows the file.
    named: bool,
    engine: Engine,
    limiter: RateLimiter,
    // Wiring.
    disk: Disk,
    backend: Option<Backend>,
    config: ConfigSpace,
    // Wiring and guest-visible state, while it is active.
    active: Option<Active>,
}

impl Block {
    /// Opens the disk. Takes no more than a few system calls.
    ///
    /// # Errors
    /// [`BlockError`]: what is wrong, and what to do.
    pub fn open(options: &BlockOptions) -> Result<Self, BlockError> {
        let BlockOptions { queues, .. } = *options;
        if queues == 0 || usize::from(queues) > MAX_QUEUES {
            return Err(BlockError::Queues { queues, most: MAX_QUEUES });
        }
        let given = options.id.as_deref();
        let usable = |id: &str| id.len() <= spec::ID && id.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if let Some(id) = given.filter(|id| !usable(id)) {
            return Err(BlockError::Id { id: id.to_owned() });
        }
        let access = Access { read_only: options.read_only, direct: options.direct };
        let disk = Disk::open(&options.path, access)?;
        Ok(Self {
            cache: options.cache,
            queue_count: queues,
            id: padded(given.unwrap_or(disk.name())),
            named: given.is_some(),
            engine: options.engine,
            limiter: RateLimiter::new(options.limits),
            backend: None,
            config: ConfigSpace::read_only(config_bytes(&disk, queues)),
            disk,
            active: None,
        })
    }

    /// Makes what the engine needs, and says which it is. Activation does it if it was not done, but may be too late: after
    /// a seccomp filter is installed no io_uring can be made any more.
    ///
    /// # Errors
    /// [`BlockError::Ring`], with [`Engine::IoUring`] only.
    pub fn prepare(&mut self) -> Result<Engine, BlockError> {
        self.backend().map(|backend| backend.engine()).map_err(BlockError::Ring)
    }

    /// The engine in use; none before it is [prepared](Self::prepare).
    #[must_use]
    pub fn engine(&self) -> Option<Engine> {
        self.backend.as_ref().map(Backend::engine)
    }

    /// Bytes at the file's end that do not fill a block. The guest does not see them; the user should be told.
    #[must_use]
    pub fn ignored_tail(&self) -> u64 {
        self.disk.tail()
    }

    /// Puts the file at `path` in the place of the disk's, in the same mode. It may be the same file after it has grown.
    /// What is in flight ends on the old one. The driver is told the new size.
    ///
    /// # Errors
    /// [`BlockError`]; then the old file stays.
    pub fn replace_backing(&mut self, path: &Path) -> Result<(), BlockError> {
        self.disk.replace(path)?;
        if !self.named {
            self.id = padded(self.disk.name());
        }
        self.config.update(0, &config_bytes(&self.disk, self.queue_count));
        if let Some(active) = &self.active {
            active.config_changed();
        }
        Ok(())
    }

    /// Changes the limits.
    pub fn set_limits(&mut self, limits: RateLimits) {
        self.limiter = RateLimiter::new(limits);
        self.work(Active::serve_waiting);
    }

    fn work(&mut self, turn: impl FnOnce(&mut Active, &mut Host<'_>)) {
        if let (Some(active), Some(backend)) = (&mut self.active, &mut self.backend) {
            let mut host = Host { disk: &self.disk, id: &self.id, backend, limiter: &mut self.limiter };
            turn(active, &mut host);
        }
    }

    fn backend(&mut self) -> io::Result<&mut Backend> {
        let backend = match self.backend.take() {
            Some(backend) => backend,
            None => Backend::new(self.engine, self.disk.waits_apart())?,
        };
        Ok(self.backend.insert(backend))
    }
}

impl VirtioDevice for Block {
    fn identity(&self) -> Identity {
        use spec::feature::{BLK_SIZE, DISCARD, FLUSH, MQ, RO, SEG_MAX, SIZE_MAX, WRITE_ZEROES};
        let writable = if self.disk.bounds().read_only { RO } else { FLUSH | DISCARD | WRITE_ZEROES };
        let queues = if self.queue_count > 1 { MQ } else { 0 };
        Identity {
            kind: DeviceKind::Block,
            features: SIZE_MAX | SEG_MAX | BLK_SIZE | writable | queues,
            queue_sizes: vec![QUEUE_SIZE; self.queue_count.into()],
            config: self.config.clone(),
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let refused = |what: &str| {
            let what = what.to_owned();
            move |source| DeviceError { what, source }
        };
        let flushes = activation.features & spec::feature::FLUSH != 0;
        let stability = match self.cache {
            CacheMode::Unsafe => Stability::Never,
            CacheMode::Writeback if flushes => Stability::OnFlush,
            CacheMode::Writeback => Stability::OnWrite,
        };
        let memory = activation.memory.clone();
        let mut active = Active::new(activation, stability);
        let backend = self.backend().map_err(refused("cannot make an io_uring; use the sync engine"))?;
        if !backend.set_memory(Some(memory)) {
            return Err(refused("the disk still works for the last driver")(
                io::ErrorKind::ResourceBusy.into(),
            ));
        }
        if let Some(ring) = backend.ring() {
            let watched = active.reactor.watch(ring.as_fd(), RING, Interest::Read);
            watched.map_err(refused("cannot wait for the disk's io_uring; use the sync engine"))?;
        }
        self.active = Some(active);
        for queue in 0..self.queue_count {
            self.queue_event(queue.into());
        }
        Ok(())
    }

    fn queue_event(&mut self, queue: usize) {
        if queue < usize::from(self.queue_count) {
            self.work(|active, host| active.serve(queue, host));
        }
    }

    fn backend_event(&mut self, token: u32) {
        if token == RING || token == TIMER {
            self.work(|active, host| {
                active.complete(host);
                active.serve_waiting(host);
            });
        }
    }

    fn reset(&mut self) -> Progress {
        self.work(Active::drain);
        if let Some(backend) = &mut self.backend {
            if !backend.set_memory(None) {
                return Progress::Draining;
            }
            if let (Some(active), Some(ring)) = (&mut self.active, backend.ring()) {
                active.reactor.unwatch(ring.as_fd());
            }
        }
        self.active = None;
        Progress::Done
    }

    fn queues(&self) -> &[Queue] {
        self.active.as_ref().map(|active| active.queues.as_slice()).unwrap_or_default()
    }
}

/// The configuration space (section 5.2.4).
fn config_bytes(disk: &Disk, queues: u16) -> Vec<u8> {
    use request::{MAX_RANGE_SECTORS, MAX_SEGMENT, MAX_SEGMENTS};
    use spec::config;
    let bounds = disk.bounds();
    // Whole pages of the host can be given back; a filesystem's blocks are no larger.
    let alignment = disk.block().max(4096) / spec::SECTOR as u32;
    let ranges = if bounds.read_only { [0; 4] } else { [MAX_RANGE_SECTORS, 1, MAX_RANGE_SECTORS, 1] };
    let words = [
        (config::SIZE_MAX, MAX_SEGMENT),
        (config::SEG_MAX, MAX_SEGMENTS),
        (config::BLK_SIZE, disk.block()),
        (config::MAX_DISCARD_SECTORS, ranges[0]),
        (config::MAX_DISCARD_SEG, ranges[1]),
        (config::DISCARD_SECTOR_ALIGNMENT, if bounds.read_only { 0 } else { alignment }),
        (config::MAX_WRITE_ZEROES_SECTORS, ranges[2]),
        (config::MAX_WRITE_ZEROES_SEG, ranges[3]),
    ];
    let mut bytes = vec![0; config::LENGTH];
    let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
    put(config::CAPACITY, &bounds.sectors.to_le_bytes());
    put(config::NUM_QUEUES, &queues.to_le_bytes());
    put(config::WRITE_ZEROES_MAY_UNMAP, &[u8::from(!bounds.read_only)]);
    for (offset, value) in words {
        put(offset, &value.to_le_bytes());
    }
    bytes
}

fn padded(id: &str) -> [u8; spec::ID] {
    let mut padded = [0; spec::ID];
    for (target, byte) in padded.iter_mut().zip(id.bytes()) {
        *target = byte;
    }
    padded
}
