//! TAP devices in a network namespace of this process's own; all go with the process.

#![expect(unsafe_code, reason = "namespaces and TAPs have no safe interface")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The guest's header for each frame (virtio 1.2, 5.1.6), which these TAPs have too.
pub(crate) const HEADER_SIZE: usize = 12;

/// Moves this thread, and all that it starts from now on, to a new network namespace. Threads that run already stay behind.
pub(crate) fn enter_namespace() -> io::Result<()> {
    // SAFETY: no descriptor table and no memory is taken from other threads: only the network changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| {
        io::Error::other(format!("a network namespace needs CAP_SYS_ADMIN; run as root ({error})"))
    })
}

/// Attaches to the TAP `name` as a VMM does; makes it if it is not there.
pub(crate) fn attach(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the request is an ifreq, for as long as the call takes.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let size = HEADER_SIZE as libc::c_int;
    // SAFETY: the request reads one int.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })?;
    Ok(file)
}

/// Lets the TAP stay when nobody is attached to it.
pub(crate) fn keep(tap: &File) -> io::Result<()> {
    // SAFETY: the request takes a number and changes no memory.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST, 1) })?;
    Ok(())
}

/// A request about the interface `name`.
pub(crate) fn request(name: &str) -> libc::ifreq {
    let mut field = [0; libc::IFNAMSIZ];
    // The last byte stays 0, however long the name is.
    for (place, byte) in field[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    libc::ifreq { ifr_name: field, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } }
}

/// The error behind a result below zero.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
