//! A network of this process's own: a namespace, a TAP in it, and somebody at the TAP's other end who answers.

#![expect(unsafe_code, reason = "packet sockets have no safe interface")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::host::repeat;
use super::tasks::Figures;
use crate::tap::{self, HEADER_SIZE, check};

const NAME: &str = "mote-bench";
/// As the guest's frames are, by `program/src/modes/frames.rs`: EtherTypes for local experiments.
const ETHERTYPE_REQUEST: u16 = 0x88b5;
const ETHERTYPE_DATA: u16 = 0x88b6;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
const REQUEST_SIZE: usize = 60;
const FRAME_SIZE: usize = 1514;
/// Ethernet, IPv4 and TCP headers, and 44 payloads of 1460 bytes.
const SEGMENT_SIZE: usize = 54 + 44 * 1460;
/// An answer that takes longer is lost.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
const ATTEMPTS: usize = 10;

/// The namespace and the TAP. Both go with this process.
pub(super) struct Network(());

/// The TAP, attached as a VMM attaches it.
pub(super) struct Tap(File);

impl Network {
    /// Moves this thread, and all that it starts from now on, to a new namespace with a TAP, and answers requests there.
    pub(super) fn start() -> io::Result<Self> {
        tap::enter_namespace()?;
        tap::keep(&tap::attach(NAME)?)?;
        let socket = packet_socket()?;
        bring_up(&socket)?;
        thread::Builder::new().name("echo".into()).spawn(move || answer(File::from(socket)))?;
        Ok(Self(()))
    }

    /// The TAP's name.
    pub(super) fn name(&self) -> &'static str {
        NAME
    }

    /// Attaches to the TAP, to which nobody else may be attached, and waits until it passes frames: that its carrier is
    /// back has to get around in the kernel.
    pub(super) fn attach(&self) -> io::Result<Tap> {
        let mut attached = tap::attach(NAME);
        for _ in 0..ATTEMPTS {
            // A child that was just forked has the descriptor of the last one until it becomes another program.
            if attached.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
                thread::sleep(Duration::from_millis(20));
                attached = tap::attach(NAME);
            }
        }
        let mut tap = Tap(attached?);
        tap.request(u64::MAX)?;
        Ok(tap)
    }
}

impl Tap {
    /// Requests, each when the one before is answered.
    pub(super) fn requests(mut self, time: Duration) -> io::Result<Figures> {
        repeat(time, REQUEST_SIZE as u64, |number| self.request(number))
    }

    /// Frames that fit the MTU, and one request at the end.
    pub(super) fn frames(self, time: Duration) -> io::Result<Figures> {
        self.stream(time, &frame(ETHERTYPE_DATA, FRAME_SIZE, 0))
    }

    /// Frames that whoever takes them has to cut, and one request at the end.
    pub(super) fn segments(self, time: Duration) -> io::Result<Figures> {
        let mut frame = frame(ETHERTYPE_IPV4, SEGMENT_SIZE, 0);
        // NEEDS_CSUM, TCPV4; header length, payload; where the TCP header begins, and the checksum in it.
        frame[..2].copy_from_slice(&[1, 1]);
        for (place, value) in frame[2..10].chunks_exact_mut(2).zip([54_u16, 1460, 34, 16]) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        let headers = &mut frame[HEADER_SIZE..];
        // IPv4 and TCP with what the kernel looks at: versions, lengths, protocol.
        headers[14] = 0x45;
        headers[16..18].copy_from_slice(&(SEGMENT_SIZE as u16 - 14).to_be_bytes());
        headers[22..24].copy_from_slice(&[64, 6]);
        headers[46] = 0x50;
        self.stream(time, &frame)
    }

    fn stream(mut self, time: Duration, frame: &[u8]) -> io::Result<Figures> {
        let bytes = (frame.len() - HEADER_SIZE) as u64;
        let figures = repeat(time, bytes, |_| self.0.write_all(frame))?;
        self.request(figures.operations)?;
        Ok(figures)
    }

    /// Asks until there is an answer: a busy host drops frames, and the guest asks again, too.
    fn request(&mut self, number: u64) -> io::Result<()> {
        let mut lost = None;
        for _ in 0..ATTEMPTS {
            match self.ask(number) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => lost = Some(error),
                result => return result,
            }
        }
        Err(lost.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
    }

    fn ask(&mut self, number: u64) -> io::Result<()> {
        let request = frame(ETHERTYPE_REQUEST, REQUEST_SIZE, number);
        self.0.write_all(&request)?;
        let mut buffer = [0; 2048];
        loop {
            if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&PATIENCE))? == 0 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer on the TAP"));
            }
            let length = self.0.read(&mut buffer)?;
            // The kernel's own frames, for IPv6, come too.
            if buffer[..length].get(HEADER_SIZE + 12..) == request.get(HEADER_SIZE + 12..) {
                return Ok(());
            }
        }
    }
}

/// A frame with the header of virtio before it: addresses, type, two bytes of nothing, number, nothing.
fn frame(ethertype: u16, size: usize, number: u64) -> Vec<u8> {
    let mut frame = vec![0; HEADER_SIZE + size];
    let bytes = &mut frame[HEADER_SIZE..];
    bytes[..12].copy_from_slice(&ADDRESSES);
    bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
    bytes[16..24].copy_from_slice(&number.to_be_bytes());
    frame
}

/// Sends every request back with the addresses exchanged, as long as this process lives.
fn answer(mut socket: File) {
    let mut frame = [0; 2048];
    // A frame that does not fit, or comes while the TAP goes down, is not answered; whoever asked asks again.
    loop {
        let Ok(length @ 14..) = socket.read(&mut frame) else { continue };
        let (destination, rest) = frame[..length].split_at_mut(6);
        destination.swap_with_slice(&mut rest[..6]);
        let _lost = socket.write_all(&frame[..length]);
    }
}

/// A socket for requests on the TAP, whole frames.
fn packet_socket() -> io::Result<OwnedFd> {
    let protocol = ETHERTYPE_REQUEST.to_be();
    // SAFETY: takes numbers only.
    let fd = check(unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::c_int::from(protocol))
    })?;
    // SAFETY: it is new, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut name = [0; libc::IFNAMSIZ];
    name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    // SAFETY: the name ends with a NUL.
    let index = unsafe { libc::if_nametoindex(name.as_ptr().cast()) };
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: protocol,
        sll_ifindex: check(libc::c_int::try_from(index).unwrap_or(-1))?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is a sockaddr_ll of that length, for as long as the call takes.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

/// Brings the TAP up, by any socket of its namespace.
fn bring_up(socket: &OwnedFd) -> io::Result<()> {
    let mut request = tap::request(NAME);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request is an ifreq, for as long as the call takes.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })?;
    Ok(())
}
