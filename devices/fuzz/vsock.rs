//! The socket device between a driver that sends packets that are mostly right, and host programs that do as they
//! please.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use arbitrary::{Arbitrary, Unstructured};
use devices::testkit::{Buffer, Guest};
use devices::virtio::TIMER;
use devices::virtio::transport::registers as reg;
use devices::virtio::vsock::{Vsock, VsockOptions};

/// So many steps are one input at most.
const STEPS: usize = 128;
/// So many turns of the event loop are enough for all that they began.
const TURNS: usize = 32;
const CID: u64 = 3;
/// The port that a host program listens on.
const PORT: u32 = 80;

#[derive(Debug, Arbitrary)]
enum Step {
    Packet(Packet),
    /// Buffers for packets, each with so much room.
    Feed {
        count: u8,
        room: u16,
    },
    Connect {
        line: Line,
    },
    Write {
        who: u8,
        length: u16,
    },
    Read {
        who: u8,
        length: u16,
    },
    Shut {
        who: u8,
        write: bool,
    },
    Drop {
        who: u8,
    },
    Accept,
    Turn,
    Expire,
    Event {
        token: u32,
    },
    Reset,
}

#[derive(Debug, Arbitrary)]
struct Packet {
    op: u8,
    port: u8,
    to: Port,
    /// What the header says, where it does not say the truth.
    length: Option<u32>,
    payload: u16,
    flags: u8,
    buf_alloc: u32,
    fwd_cnt: u32,
    /// A byte of the header, and its value.
    wrong: Option<(u8, u8)>,
    /// Where the header is split.
    split: u8,
}

#[derive(Debug, Arbitrary)]
enum Port {
    Listener,
    /// One that the device gives to host programs.
    Ephemeral(u8),
    Any(u32),
}

#[derive(Debug, Arbitrary)]
enum Line {
    Port(u8),
    Other(String),
}

/// Runs one input.
pub(crate) fn check(data: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory for sockets");
    let uds = directory.path().join("v");
    let listener = UnixListener::bind(directory.path().join(format!("v_{PORT}"))).expect("a socket");
    listener.set_nonblocking(true).expect("a socket does that");
    let device = Vsock::new(VsockOptions { cid: CID, uds: uds.clone() }).expect("a device");
    let mut guest = Guest::new(Box::new(device));
    guest.set_up(u64::MAX);
    let mut programs = Vec::new();
    let mut input = Unstructured::new(data);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match Step::arbitrary(&mut input) {
            Ok(Step::Accept) => {
                programs.extend(listener.accept().ok().map(|(stream, _)| nonblocking(stream)));
            }
            Ok(Step::Connect { line }) => {
                programs.extend(UnixStream::connect(&uds).ok().map(|stream| greet(stream, line)));
            }
            Ok(step) => run(&mut guest, &mut programs, step),
            Err(_) => break,
        }
        guest.serve();
    }
    // A hundred connections that came at once take some turns.
    (0..TURNS).for_each(|_| turn(&mut guest));
    assert!(guest.reactor.ready().is_empty(), "nothing is announced for ever");
    guest.reset();
    assert_eq!(guest.read(reg::STATUS), 0, "a reset ends");
    assert!(guest.reactor.watched().is_empty(), "and ends all connections");
    guest.set_up(0);
    assert!(!guest.needs_reset(), "and mends everything");
    guest.reset();
}

fn run(guest: &mut Guest, programs: &mut Vec<UnixStream>, step: Step) {
    let pick = |who: u8| programs.get(usize::from(who).checked_rem(programs.len()).unwrap_or(0));
    // What host programs do may fail; the device must not.
    match step {
        Step::Packet(packet) => send(guest, &packet),
        Step::Feed { count, room } => {
            for _ in 0..count % 32 {
                guest.queues[0].add(&[Buffer::Writable(44), Buffer::Writable(u32::from(room % 5000))]);
            }
            guest.notify(0);
        }
        Step::Write { who, length } => _ = pick(who).map(|mut stream| stream.write(&vec![1; length.into()])),
        Step::Read { who, length } => {
            _ = pick(who).map(|mut stream| stream.read(&mut vec![0; length.into()]));
        }
        Step::Shut { who, write } => {
            _ = pick(who).map(|stream| stream.shutdown(if write { Shutdown::Write } else { Shutdown::Read }));
        }
        Step::Drop { who } if usize::from(who) < programs.len() => drop(programs.swap_remove(who.into())),
        Step::Turn => turn(guest),
        Step::Expire => _ = guest.worker.backend_event(TIMER),
        Step::Event { token } => _ = guest.worker.backend_event(token),
        Step::Reset => {
            guest.reset();
            guest.set_up(u64::MAX);
        }
        _ => {}
    }
}

fn nonblocking(stream: UnixStream) -> UnixStream {
    stream.set_nonblocking(true).expect("a socket does that");
    stream
}

fn greet(stream: UnixStream, line: Line) -> UnixStream {
    let mut stream = nonblocking(stream);
    let line = match line {
        Line::Port(port) => format!("CONNECT {port}\n"),
        Line::Other(line) => line,
    };
    let _ = stream.write_all(line.as_bytes());
    stream
}

fn send(guest: &mut Guest, packet: &Packet) {
    let payload = vec![2; usize::from(packet.payload % 8192)];
    let to = match packet.to {
        Port::Listener => PORT,
        Port::Ephemeral(number) => (1 << 30) + u32::from(number % 8),
        Port::Any(port) => port,
    };
    let mut header = Vec::new();
    header.extend(CID.to_le_bytes());
    header.extend(2u64.to_le_bytes());
    header.extend(u32::from(packet.port % 8).to_le_bytes());
    header.extend(to.to_le_bytes());
    header.extend(packet.length.unwrap_or(payload.len() as u32).to_le_bytes());
    header.extend(1u16.to_le_bytes());
    header.extend(u16::from(packet.op % 10).to_le_bytes());
    header.extend(u32::from(packet.flags % 4).to_le_bytes());
    header.extend(packet.buf_alloc.to_le_bytes());
    header.extend(packet.fwd_cnt.to_le_bytes());
    if let Some((at, value)) = packet.wrong {
        header[usize::from(at) % 44] = value;
    }
    let (first, second) = header.split_at(usize::from(packet.split) % 44);
    guest.send(1, &[Buffer::Readable(first), Buffer::Readable(second), Buffer::Readable(&payload)]);
}

/// One turn of the event loop.
fn turn(guest: &mut Guest) {
    guest.serve();
    for token in guest.reactor.ready() {
        guest.worker.backend_event(token);
    }
    guest.serve();
}
