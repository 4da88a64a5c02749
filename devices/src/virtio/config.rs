//! A device's configuration space (virtio 1.2, section 2.5).

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bytes that the driver reads, shared by the device, which changes them, and the transport, which shows them.
#[derive(Clone, Debug)]
pub struct ConfigSpace(Arc<Mutex<Contents>>);

#[derive(Debug)]
struct Contents {
    bytes: Vec<u8>,
    /// What the driver may write.
    writable: Range<usize>,
    /// Counts the device's changes.
    generation: u32,
}

impl ConfigSpace {
    /// A space that holds `bytes`, of which the driver may write those in `writable`.
    #[must_use]
    pub fn new(bytes: Vec<u8>, writable: Range<usize>) -> Self {
        Self(Arc::new(Mutex::new(Contents { bytes, writable, generation: 0 })))
    }

    /// A space that the driver can only read.
    #[must_use]
    pub fn read_only(bytes: Vec<u8>) -> Self {
        Self::new(bytes, 0..0)
    }

    /// The device's change: replaces the bytes from `offset` on, as far as there are any. The driver is to be told through [`Link::config_changed`](super::Link::config_changed).
    pub fn update(&self, offset: usize, bytes: &[u8]) {
        let mut contents = self.lock();
        if let Some(target) = contents.bytes.get_mut(offset..) {
            for (target, byte) in target.iter_mut().zip(bytes) {
                *target = *byte;
            }
        }
        contents.generation = contents.generation.wrapping_add(1);
    }

    /// Fills `data` from `offset` on. `false` if not all of it is inside.
    #[must_use]
    pub fn read(&self, offset: u64, data: &mut [u8]) -> bool {
        let contents = self.lock();
        let source = range(offset, data.len()).and_then(|range| contents.bytes.get(range));
        source.map(|source| data.copy_from_slice(source)).is_some()
    }

    /// The driver's change. `false`, and nothing is changed, if not all of it may be written.
    #[must_use]
    pub fn write(&self, offset: u64, data: &[u8]) -> bool {
        let mut contents = self.lock();
        let Some(range) = range(offset, data.len()) else {
            return false;
        };
        if range.start < contents.writable.start || range.end > contents.writable.end {
            return false;
        }
        contents.bytes.get_mut(range).map(|target| target.copy_from_slice(data)).is_some()
    }

    /// The little-endian 32-bit value at `offset`; 0 where there is none.
    #[must_use]
    pub fn read_u32(&self, offset: u64) -> u32 {
        let mut value = [0; 4];
        if self.read(offset, &mut value) { u32::from_le_bytes(value) } else { 0 }
    }

    /// A number that is another one after each change by the device.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.lock().generation
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn range(offset: u64, length: usize) -> Option<Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    Some(start..start.checked_add(length)?)
}
