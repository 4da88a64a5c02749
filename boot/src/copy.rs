//! Bytes from a file into guest memory.

use vm_memory::{GuestAddress, GuestMemory, GuestMemoryError, Permissions, ReadVolatile};

/// Fills `size` bytes of guest memory from `source`, straight into its pages.
///
/// `Bytes::read_exact_volatile_from` reads once and takes a short read for the end; read(2) gives at most 2 GiB at
/// once, and pipes give what they have.
///
/// # Errors
/// Where the range is not RAM, or the source has fewer bytes or cannot be read.
pub fn read_exact<M, I>(
    mem: &M,
    address: GuestAddress,
    size: u64,
    source: &mut I,
) -> Result<(), GuestMemoryError>
where
    M: GuestMemory,
    I: ReadVolatile,
{
    for slice in mem.get_slices(address, size as usize, Permissions::Write)? {
        source.read_exact_volatile(&mut slice?)?;
    }
    Ok(())
}
