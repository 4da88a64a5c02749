//! The host's end of the cable: a TAP device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use thiserror::Error;

use super::spec::{feature, header};
use crate::virtio::io::tap;

const TUN: &str = "/dev/net/tun";

/// Frames as they are, each with a virtio header in front (linux/if_tun.h).
const FLAGS: u16 = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u16;

/// Where frames go to and come from: a descriptor that never blocks, of which each read and each write is one
/// frame with the header of [`spec::header`](super::spec::header) before it.
pub trait Wire: AsFd + Send {
    /// Says which of the driver's features ([`feature`], GUEST) frames to it may make use of.
    ///
    /// # Errors
    /// The host's.
    fn set_features(&self, features: u64) -> io::Result<()>;
}

/// Which TAP device a network device is connected to.
#[derive(Debug)]
pub enum TapSource {
    /// The interface of this name, which exists.
    Name(String),
    /// One that is open already: `/dev/net/tun` after TUNSETIFF with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR.
    Descriptor(OwnedFd),
}

/// Why a network device cannot be had.
#[derive(Debug, Error)]
pub enum NetError {
    /// The host has no TUN driver.
    #[error("{TUN} is not there: load the driver with `modprobe tun`; in a container, pass the device in")]
    NoDriver,
    /// `/dev/net/tun` is closed to this user.
    #[error(
        "this user may not open {TUN}: `chmod 666 {TUN}` is harmless, as interfaces have owners of their own"
    )]
    DriverDenied,
    /// `/dev/net/tun` did not open.
    #[error("cannot open {TUN}")]
    Driver(#[source] io::Error),
    /// There is no interface of this name.
    #[error(
        "there is no network interface {0:?} here: make it with `ip tuntap add dev NAME mode tap user USER` and `ip link set NAME up`"
    )]
    NoInterface(String),
    /// The interface is another user's.
    #[error(
        "this user may not use the TAP device {0}: make it this user's with `ip tuntap add dev {0} mode tap user USER`, or run with CAP_NET_ADMIN"
    )]
    Denied(String),
    /// Somebody has it open.
    #[error("the TAP device {0} is in use by another process: each machine needs one of its own")]
    Busy(String),
    /// The interface is of another kind.
    #[error(
        "{0} is not a TAP device that can be used: make one with `ip tuntap add dev NAME mode tap`, without multi_queue"
    )]
    Kind(String),
    /// The kernel refused it for another reason.
    #[error("cannot use the TAP device {0}")]
    Attach(String, #[source] io::Error),
    /// The descriptor is no TAP.
    #[error("the descriptor is not a TAP device: open {TUN} and call TUNSETIFF before it is passed on")]
    Descriptor(#[source] io::Error),
    /// The descriptor is a TAP with other frames.
    #[error(
        "the TAP descriptor has the flags {0:#x}: it must be opened with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR ({FLAGS:#x})"
    )]
    Flags(u16),
    /// The TAP could not be set up.
    #[error("cannot {0} of the TAP device")]
    SetUp(&'static str, #[source] io::Error),
    /// The MTU is smaller than an IPv4 packet may be.
    #[error("the MTU of a network device is at least {min}, not {0}", min = super::spec::MIN_MTU)]
    Mtu(u16),
    /// No random MAC address could be made.
    #[error("the host has no random bytes for a MAC address: give one")]
    Random(#[source] io::Error),
}

/// A TAP device, ready for use.
#[derive(Debug)]
pub struct Tap(OwnedFd);

impl Tap {
    /// The TAP device that `source` names.
    ///
    /// # Errors
    /// When there is none, it is somebody else's, or it has other frames.
    pub fn open(source: TapSource) -> Result<Self, NetError> {
        let fd = match source {
            TapSource::Name(name) => attach(name)?,
            TapSource::Descriptor(fd) => {
                inspect(fd.as_fd())?;
                fd
            }
        };
        tap::set_header_length(fd.as_fd(), header::LENGTH as i32)
            .map_err(|error| NetError::SetUp("set the header's length", error))?;
        Ok(Self(fd))
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wire for Tap {
    fn set_features(&self, features: u64) -> io::Result<()> {
        tap::set_offloads(self.as_fd(), offloads(features))
    }
}

/// The TUN_F bits for what the driver takes. The kernel knows large frames only with open checksums, and ECN
/// only with large frames; so does the specification (section 5.1.3.1), but a driver may not heed it.
pub(super) fn offloads(features: u64) -> u32 {
    if features & feature::GUEST_CSUM == 0 {
        return 0;
    }
    let bit = |feature, offload| if features & feature != 0 { offload } else { 0 };
    let segments = bit(feature::GUEST_TSO4, libc::TUN_F_TSO4) | bit(feature::GUEST_TSO6, libc::TUN_F_TSO6);
    let congestion = if segments == 0 { 0 } else { bit(feature::GUEST_ECN, libc::TUN_F_TSO_ECN) };
    libc::TUN_F_CSUM | segments | congestion | bit(feature::GUEST_UFO, libc::TUN_F_UFO)
}

fn attach(name: String) -> Result<OwnedFd, NetError> {
    // TUNSETIFF would make an interface that is not there, down and without an address: of no use, and a
    // typing error is seen late.
    if !exists(&name) {
        return Err(NetError::NoInterface(name));
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open(TUN, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => NetError::NoDriver,
        Errno::ACCESS | Errno::PERM => NetError::DriverDenied,
        error => NetError::Driver(error.into()),
    })?;
    match tap::attach(fd.as_fd(), &name, FLAGS) {
        Ok(()) => Ok(fd),
        Err(error) => Err(match Errno::from_io_error(&error) {
            Some(Errno::PERM) => NetError::Denied(name),
            Some(Errno::BUSY) => NetError::Busy(name),
            Some(Errno::INVAL) => NetError::Kind(name),
            _ => NetError::Attach(name, error),
        }),
    }
}

fn exists(name: &str) -> bool {
    // Any socket will do to ask for interfaces.
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    socket.is_ok_and(|socket| rustix::net::netdevice::name_to_index(&socket, name).is_ok())
}

fn inspect(fd: BorrowedFd<'_>) -> Result<(), NetError> {
    let flags = tap::flags(fd).map_err(NetError::Descriptor)?;
    if flags & (FLAGS | libc::IFF_TUN as u16) != FLAGS {
        return Err(NetError::Flags(flags));
    }
    // The flag belongs to the open file: whoever passed the descriptor on has it non-blocking, too.
    rustix::fs::fcntl_getfl(fd)
        .and_then(|flags| rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK))
        .map_err(|error| NetError::SetUp("change the blocking", error.into()))
}
