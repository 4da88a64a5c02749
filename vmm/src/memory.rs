//! Guest RAM: anonymous memory of this process, mapped for the guest by KVM.
#![expect(
    unsafe_code,
    reason = "memory that the guest writes is outside Rust's rules; it is reached by vm-memory only"
)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr;

use boot::Segment;
use boot::layout::RamRegions;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use vm_memory::mmap::MmapRegionError;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionCollectionError, GuestRegionMmap, MmapRegion};

use crate::config::PageBacking;

/// A 2 MiB page: the alignment at which the host can back guest memory with huge pages.
const HUGE_PAGE: u64 = 2 << 20;

/// The guest's RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The address space was refused.
    #[error(
        "cannot reserve {mib} MiB for the guest: lower --memory, or raise the limit on address space (ulimit -v)"
    )]
    Reserve {
        /// Size of the region in MiB.
        mib: u64,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Too few huge pages are free.
    #[error(
        "the host has not {pages} free pages of 2 MiB: raise /proc/sys/vm/nr_hugepages, or use --hugepages thp"
    )]
    HugePages {
        /// Pages needed.
        pages: u64,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The host ran out of memory while it was filled in advance.
    #[error("cannot fill {mib} MiB of guest RAM in advance: lower --memory or leave out --prefault")]
    Prefault {
        /// Size of the region in MiB.
        mib: u64,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// vm-memory refused the mapping.
    #[error("cannot describe the guest's RAM")]
    Region(#[from] MmapRegionError),
    /// vm-memory refused the regions.
    #[error("cannot describe the guest's RAM")]
    Regions(#[from] GuestRegionCollectionError),
}

/// One contiguous piece of guest RAM, as KVM wants to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Guest-physical address.
    pub guest_address: u64,
    /// Bytes.
    pub size: u64,
    /// Address in this process.
    pub host_address: u64,
}

/// All RAM of one guest; unmapped when dropped.
pub struct GuestRam {
    memory: GuestMemoryMmap,
    // After `memory`, which points into it.
    mappings: Vec<Mapping>,
    /// Whether parts of it may be pages of files.
    sharing: bool,
}

impl GuestRam {
    /// Reserves the RAM; the host provides pages when they are first touched, or now with `prefault`.
    pub fn map(regions: &RamRegions, backing: PageBacking, prefault: bool) -> Result<Self, MemoryError> {
        let mut mappings = Vec::with_capacity(2);
        let mut guest_regions = Vec::with_capacity(2);
        for region in regions.iter() {
            let mapping = Mapping::new(region.start, region.size, backing)?;
            if prefault {
                mapping.populate()?;
            }
            // SAFETY: the mapping is private to this value, of that size, readable and writable, and is unmapped only
            // after the region that points to it is gone (field order of GuestRam).
            let raw = unsafe {
                MmapRegion::build_raw(
                    mapping.address.cast(),
                    mapping.size,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                )
            }?;
            guest_regions.extend(GuestRegionMmap::new(raw, GuestAddress(region.start)));
            mappings.push(mapping);
        }
        Ok(Self {
            memory: GuestMemoryMmap::from_regions(guest_regions)?,
            mappings,
            sharing: backing == PageBacking::Host && !prefault,
        })
    }

    /// The RAM as the guest addresses it. A copy of this handle keeps nothing alive: whoever makes one keeps the
    /// `GuestRam` too.
    pub(crate) fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Replaces a part of RAM by a private mapping of the same bytes of `file`, which other machines share until one
    /// writes. `false` where it cannot be: whoever asked for huge pages, or for all of RAM at once, gets them here too.
    ///
    /// Whoever truncates the file takes the pages away; who writes to it may change them.
    pub(crate) fn map_file(&self, part: &Segment, file: &File) -> bool {
        let (start, size) = (part.guest_address, part.memory_size);
        self.sharing
            && self.mappings.iter().find(|mapping| mapping.contains(start, size)).is_some_and(|mapping| {
                mapping
                    .map_file((start - mapping.guest) as usize, size as usize, file, part.file_offset)
                    .is_ok()
            })
    }

    /// The pieces to register with KVM.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.mappings.iter().map(|mapping| Slot {
            guest_address: mapping.guest,
            size: mapping.size as u64,
            host_address: mapping.address as u64,
        })
    }
}

/// An anonymous mapping whose address and guest address agree modulo 2 MiB.
struct Mapping {
    guest: u64,
    address: *mut c_void,
    size: usize,
}

// SAFETY: the pointer names memory that this value owns; it is only handed out through vm-memory, which is Sync.
unsafe impl Send for Mapping {}
// SAFETY: as for Send; no method writes through a shared reference.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(guest: u64, size: u64, backing: PageBacking) -> Result<Self, MemoryError> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let reserve =
            |source: rustix::io::Errno| MemoryError::Reserve { mib: size >> 20, source: source.into() };
        let length = usize::try_from(size).map_err(|_| reserve(rustix::io::Errno::NOMEM))?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        if backing == PageBacking::HugeTlb {
            // Without NORESERVE: a shortage must show here, not as a SIGBUS of the running guest.
            let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB;
            // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
            let address = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), length, protection, flags) }
                .map_err(|source| MemoryError::HugePages {
                pages: size.div_ceil(HUGE_PAGE),
                source: source.into(),
            })?;
            return Ok(Self { guest, address, size: length });
        }
        // Newer kernels align by themselves; older ones would split every huge page between two of the guest's.
        let padded =
            length.checked_add(HUGE_PAGE as usize).ok_or_else(|| reserve(rustix::io::Errno::NOMEM))?;
        // SAFETY: as above.
        let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), padded, protection, flags) }
            .map_err(reserve)?;
        let head = start.align_offset(HUGE_PAGE as usize);
        // SAFETY: head < HUGE_PAGE <= padded: within the mapping just made.
        let address = unsafe { start.cast::<u8>().add(head) };
        // SAFETY: head + length <= padded: within the mapping just made.
        let end = unsafe { address.add(length) };
        unmap(start, head);
        unmap(end.cast(), padded - head - length);
        let mapping = Self { guest, address: address.cast(), size: length };
        if backing == PageBacking::Transparent {
            // A host without transparent huge pages has small ones: slower, not wrong.
            let _ = mapping.advise(Advice::LinuxHugepage);
        }
        if guest == 0 && backing != PageBacking::Transparent {
            // A few pages of boot data, scattered: not worth 2 MiB where the host makes huge pages of all memory.
            let _ = mapping.advise_first(HUGE_PAGE as usize, Advice::LinuxNoHugepage);
        }
        // The guest's secrets have no place in a core dump of the VMM; best effort.
        let _ = mapping.advise(Advice::LinuxDontDump);
        Ok(mapping)
    }

    fn advise(&self, advice: Advice) -> rustix::io::Result<()> {
        self.advise_first(self.size, advice)
    }

    fn advise_first(&self, size: usize, advice: Advice) -> rustix::io::Result<()> {
        // SAFETY: none of the advices that this file uses changes what the memory holds.
        unsafe { rustix::mm::madvise(self.address, size.min(self.size), advice) }
    }

    fn contains(&self, guest: u64, size: u64) -> bool {
        guest
            .checked_sub(self.guest)
            .and_then(|into| into.checked_add(size))
            .is_some_and(|end| end <= self.size as u64)
    }

    /// The caller has seen that `size` bytes at `into` are in this mapping.
    fn map_file(&self, into: usize, size: usize, file: &File, offset: u64) -> rustix::io::Result<()> {
        debug_assert!(into + size <= self.size);
        // SAFETY: within the mapping.
        let address = unsafe { self.address.cast::<u8>().add(into) };
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: what is replaced is memory that this value owns, of which nobody has a Rust reference: it is reached
        // through vm-memory only. It stays readable, writable and of that size.
        unsafe {
            rustix::mm::mmap(address.cast(), size, ProtFlags::READ | ProtFlags::WRITE, flags, file, offset)
        }?;
        Ok(())
    }

    fn populate(&self) -> Result<(), MemoryError> {
        self.advise(Advice::LinuxPopulateWrite)
            .map_err(|source| MemoryError::Prefault { mib: self.size as u64 >> 20, source: source.into() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.address, self.size);
    }
}

fn unmap(address: *mut c_void, size: usize) {
    if size > 0 {
        // SAFETY: every caller owns exactly this range, and gives it up. A failure leaves a mapping behind, no more.
        let _ = unsafe { rustix::mm::munmap(address, size) };
    }
}
