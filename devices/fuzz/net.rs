//! The network device and an arbitrary driver, with frames of all lengths on the wire.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use devices::virtio::net::{Net, NetOptions, Wire};

use super::driver;

struct Cable(UnixDatagram);

impl AsFd for Cable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wire for Cable {
    fn set_features(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Runs one input. Its first bytes are the header of the frames that arrive.
pub(crate) fn check(data: &[u8]) {
    let (cable, peer) = UnixDatagram::pair().expect("two sockets");
    cable.set_nonblocking(true).expect("a socket like any");
    peer.set_nonblocking(true).expect("a socket like any");
    let mut frame = vec![0; 70_000];
    for (target, byte) in frame.iter_mut().zip(data.iter().take(12)) {
        *target = *byte;
    }
    for length in [26, 1526, 9026, 65_562, 27, 3000, 70_000, 1, 100, 26, 60, 1000] {
        // The socket may hold fewer.
        let _ = peer.send(&frame[..length]);
    }
    let net = Net::on(Box::new(Cable(cable)), NetOptions::default()).expect("sound options");
    driver::check(data, Box::new(net));
}
