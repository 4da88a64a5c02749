//! `vsock-echo`: many connections between a guest and its host at once, each checked to the byte.
//!
//! The server sends back what it receives. When the client has sent all and closed that half of the connection, the
//! server answers with one more thing, the hash of all it has received, and closes the other half. So a client that
//! gets that hash has seen a connection that was half closed carry data. Exits 0 only if every connection went so.
//!
//! The hash is over the bytes as a stream, however they were cut into packets.
//!
//! One program for both sides, linked statically. The guest has vsock addresses; its host has the Unix sockets of the
//! VMM, where a client first says `CONNECT port` and waits for `OK`, and the server listens at `PATH_PORT`.

use std::env::args;
use std::fs::remove_file;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

const USAGE: &str = "usage: vsock-echo serve vsock:PORT|unix:PATH
       vsock-echo send vsock:CID:PORT|unix:PATH:PORT CONNECTIONS BYTES";

/// A thread's stack: there are two for each connection.
const STACK: usize = 128 * 1024;
const BUFFER: usize = 16 * 1024;

fn main() -> ExitCode {
    let words: Vec<String> = args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["serve", address] => serve(address),
        ["send", address, connections, bytes] => match (connections.parse(), bytes.parse()) {
            (Ok(connections), Ok(bytes)) => send(address, connections, bytes),
            _ => Err(invalid(USAGE)),
        },
        _ => Err(invalid(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vsock-echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().stack_size(STACK).spawn(work)
}

/// Serves until it is killed; it says so once it can be connected to.
fn serve(address: &str) -> io::Result<()> {
    let listener = match address.split_once(':') {
        Some(("vsock", port)) => vsock::listen(number(port)?)?,
        Some(("unix", path)) => {
            // What an earlier server has left; that there was none is no mistake.
            let _ = remove_file(path);
            UnixListener::bind(path)?
        }
        _ => return Err(invalid(USAGE)),
    };
    println!("vsock-echo: serving");
    loop {
        let stream = vsock::accept(&listener)?;
        spawn(move || {
            if let Err(error) = echo(&stream) {
                eprintln!("vsock-echo: serving a connection: {error}");
            }
        })?;
    }
}

fn echo(mut stream: &UnixStream) -> io::Result<()> {
    let mut hasher = DefaultHasher::new();
    let mut buffer = [0; BUFFER];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.write(&buffer[..count]);
        stream.write_all(&buffer[..count])?;
    }
    stream.write_all(&hasher.finish().to_le_bytes())?;
    stream.shutdown(Shutdown::Write)
}

/// All connections are open before the first byte is sent.
fn send(address: &str, connections: u64, bytes: usize) -> io::Result<()> {
    let streams: Vec<UnixStream> = (0..connections).map(|_| connect(address)).collect::<io::Result<_>>()?;
    let clients: Vec<_> = (1..)
        .zip(streams)
        .map(|(seed, stream)| spawn(move || client(stream, seed, bytes)))
        .collect::<io::Result<_>>()?;
    let mut failure = Ok(());
    let mut good = 0;
    for client in clients {
        match client.join() {
            Ok(Ok(())) => good += 1,
            Ok(Err(error)) => failure = Err(error),
            Err(_) => failure = Err(invalid("a client's thread panicked")),
        }
    }
    println!("vsock-echo: {good} of {connections} connections echoed {bytes} bytes");
    failure
}

fn connect(address: &str) -> io::Result<UnixStream> {
    let words: Vec<&str> = address.split(':').collect();
    match words[..] {
        ["vsock", cid, port] => vsock::connect(number(cid)?, number(port)?),
        ["unix", path, port] => {
            let mut stream = UnixStream::connect(path)?;
            writeln!(stream, "CONNECT {port}")?;
            // Byte by byte: what follows the line is the server's.
            let mut line = Vec::new();
            let mut byte = [0];
            while !line.ends_with(b"\n") {
                stream.read_exact(&mut byte)?;
                line.extend(byte);
            }
            if line.starts_with(b"OK ") { Ok(stream) } else { Err(invalid("no OK after CONNECT")) }
        }
        _ => Err(invalid(USAGE)),
    }
}

fn number(text: &str) -> io::Result<u32> {
    text.parse().map_err(|_| invalid(USAGE))
}

/// Sends in a second thread and receives in this one, so that neither side's buffers can block both.
fn client(stream: UnixStream, seed: u64, bytes: usize) -> io::Result<()> {
    let stream = Arc::new(stream);
    let sender = spawn({
        let stream = Arc::clone(&stream);
        move || send_noise(&stream, seed, bytes)
    })?;
    let (echoed, end) = receive(&stream, bytes)?;
    let sent = sender.join().map_err(|_| invalid("the sender's thread panicked"))??;
    if echoed != sent {
        return Err(invalid("other bytes came back than were sent"));
    }
    if end != sent.to_le_bytes() {
        return Err(invalid("no matching hash from the server after this side was closed"));
    }
    Ok(())
}

/// Receives to the end: the hash of the first `bytes` bytes, and what came after them.
fn receive(mut stream: &UnixStream, bytes: usize) -> io::Result<(u64, Vec<u8>)> {
    let mut hasher = DefaultHasher::new();
    let mut buffer = [0; BUFFER];
    let mut left = bytes;
    while left > 0 {
        let wanted = left.min(BUFFER);
        stream.read_exact(&mut buffer[..wanted])?;
        hasher.write(&buffer[..wanted]);
        left -= wanted;
    }
    let mut end = Vec::new();
    stream.take(BUFFER as u64).read_to_end(&mut end)?;
    Ok((hasher.finish(), end))
}

/// Sends a pseudo-random sequence (xorshift64), closes this half, and returns the sequence's hash.
fn send_noise(mut stream: &UnixStream, seed: u64, bytes: usize) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    let mut buffer = [0; BUFFER];
    let mut state = seed;
    let mut left = bytes;
    while left > 0 {
        for word in buffer.chunks_exact_mut(size_of_val(&state)) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let noise = &buffer[..left.min(BUFFER)];
        hasher.write(noise);
        stream.write_all(noise)?;
        left -= noise.len();
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(hasher.finish())
}

/// Vsock sockets, which the standard library does not have. Connected, they are like any other stream: reading, writing
/// and shutting down are system calls that know no address family, so `UnixStream` does.
mod vsock {
    use super::{AsRawFd, FromRawFd, OwnedFd, RawFd, UnixListener, UnixStream, io};

    const AF_VSOCK: u16 = 40;
    const SOCK_STREAM: i32 = 1;
    const VMADDR_CID_ANY: u32 = u32::MAX;
    const BACKLOG: i32 = 1024;

    /// Linux's `struct sockaddr_vm`.
    #[repr(C)]
    struct Address {
        family: u16,
        reserved: u16,
        port: u32,
        cid: u32,
        flags: u8,
        zero: [u8; 3],
    }

    impl Address {
        const SIZE: u32 = size_of::<Self>() as u32;

        fn new(cid: u32, port: u32) -> Self {
            Self { family: AF_VSOCK, reserved: 0, port, cid, flags: 0, zero: [0; 3] }
        }
    }

    unsafe extern "C" {
        safe fn socket(domain: i32, kind: i32, protocol: i32) -> RawFd;
        fn bind(socket: RawFd, address: *const Address, size: u32) -> i32;
        #[link_name = "connect"]
        fn connect_socket(socket: RawFd, address: *const Address, size: u32) -> i32;
        #[link_name = "listen"]
        safe fn listen_socket(socket: RawFd, backlog: i32) -> i32;
        #[link_name = "accept"]
        fn accept_socket(socket: RawFd, address: *mut Address, size: *mut u32) -> RawFd;
    }

    fn checked(result: i32) -> io::Result<i32> {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }

    fn owned(descriptor: i32) -> io::Result<OwnedFd> {
        let descriptor = checked(descriptor)?;
        // SAFETY: the kernel has just made the descriptor, for us alone.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    pub fn connect(cid: u32, port: u32) -> io::Result<UnixStream> {
        let socket = owned(socket(AF_VSOCK.into(), SOCK_STREAM, 0))?;
        let address = Address::new(cid, port);
        // SAFETY: the kernel reads one Address, which lives that long.
        checked(unsafe { connect_socket(socket.as_raw_fd(), &raw const address, Address::SIZE) })?;
        Ok(socket.into())
    }

    pub fn listen(port: u32) -> io::Result<UnixListener> {
        let socket = owned(socket(AF_VSOCK.into(), SOCK_STREAM, 0))?;
        let address = Address::new(VMADDR_CID_ANY, port);
        // SAFETY: the kernel reads one Address, which lives that long.
        checked(unsafe { bind(socket.as_raw_fd(), &raw const address, Address::SIZE) })?;
        checked(listen_socket(socket.as_raw_fd(), BACKLOG))?;
        Ok(socket.into())
    }

    /// Not `UnixListener::accept`, which wants the peer's address to be a path.
    pub fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
        // SAFETY: with null pointers the kernel writes no address.
        let accepted =
            unsafe { accept_socket(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) };
        Ok(owned(accepted)?.into())
    }
}
