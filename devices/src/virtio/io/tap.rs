//! The ioctls of a TAP device (linux/if_tun.h).

use std::ffi::{c_int, c_uint};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The kernel's struct ifreq, as TUNSETIFF and TUNGETIFF use it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    padding: [u8; 22],
}

// TUNSETIFF copies as many bytes as struct ifreq has, whatever the number in the request says.
const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

impl InterfaceRequest {
    fn new(name: &str, flags: u16) -> io::Result<Self> {
        let mut request = Self { name: [0; libc::IFNAMSIZ], flags, padding: [0; 22] };
        // One byte stays for the 0 at the end.
        let room = request.name.get_mut(..name.len()).filter(|room| room.len() < libc::IFNAMSIZ);
        room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
        Ok(request)
    }
}

/// TUNSETIFF: makes `fd`, an open `/dev/net/tun`, the other end of the interface `name`.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::InvalidInput`] for a name that is longer than any interface's.
pub fn attach(fd: BorrowedFd<'_>, name: &str, flags: u16) -> io::Result<()> {
    let request = InterfaceRequest::new(name, flags)?;
    // SAFETY: the kernel reads and writes a struct ifreq, which `request` is as large as.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw const request) })
}

/// TUNGETIFF: the flags with which `fd` was attached to its interface.
///
/// # Errors
/// The kernel's: `fd` is no TAP.
pub fn flags(fd: BorrowedFd<'_>) -> io::Result<u16> {
    let mut request = InterfaceRequest::new("", 0)?;
    // SAFETY: the kernel writes a struct ifreq, which `request` is as large as.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    Ok(request.flags)
}

/// TUNSETVNETHDRSZ: the length of the header in front of each frame.
///
/// # Errors
/// The kernel's.
pub fn set_header_length(fd: BorrowedFd<'_>, length: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads an int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length) })
}

/// TUNSETOFFLOAD: what the kernel may leave to the reader of the frames, as TUN_F bits.
///
/// # Errors
/// The kernel's.
pub fn set_offloads(fd: BorrowedFd<'_>, offloads: c_uint) -> io::Result<()> {
    // The argument is the number itself.
    let offloads = libc::c_ulong::from(offloads);
    // SAFETY: the kernel touches no memory.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
