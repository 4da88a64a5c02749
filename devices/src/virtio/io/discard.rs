//! Guest memory that goes back to the host.

use std::io;

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap};

use super::Segment;

/// The pages that the host backs guest memory with. It takes back whole ones only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HostPage {
    /// 4 KiB; transparent huge pages too, which the host splits by itself.
    Small,
    /// 2 MiB, of hugetlbfs. The host must be Linux 5.18 or later.
    Huge,
}

impl HostPage {
    /// Its size in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Small => 4 << 10,
            Self::Huge => 2 << 20,
        }
    }
}

/// Gives the pages that lie wholly in `segment` back to the host, and returns their bytes. The guest finds zeros
/// there when it looks again, or, in memory that is a private mapping of a file, what the file holds: to the guest
/// both are memory that was never initialized.
///
/// # Errors
/// The kernel's: EINVAL for locked memory, and for huge pages before Linux 5.18. What was done is then unknown.
pub fn discard(memory: &GuestMemoryMmap, segment: Segment, page: HostPage) -> io::Result<usize> {
    let mut total = 0;
    for slice in memory.get_slices(segment.address(), segment.len()) {
        let slice = slice.map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
        let start = slice.ptr_guard_mut().as_ptr();
        let head = start.align_offset(page.size());
        let length = slice.len().saturating_sub(head) / page.size() * page.size();
        if length == 0 {
            continue;
        }
        // SAFETY: the range lies in `memory`, which is mapped for as long as it is borrowed, and stays mapped. Only
        // what it holds changes, and guest memory may do that at any time: no Rust reference to it exists.
        let result = unsafe { libc::madvise(start.wrapping_add(head).cast(), length, libc::MADV_DONTNEED) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        total += length;
    }
    Ok(total)
}
