//! The host's side of all devices, and the floor: the same operations by this process itself.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::network::{Network, Tap};
use super::tasks::{Figures, Operation};
use crate::subjects::Devices;

const RANDOM_SIZE: u64 = 4096;
const SEQUENTIAL_SIZE: u64 = 128 << 10;
const MESSAGE_SIZE: usize = 64;
const STREAM_SIZE: usize = 64 << 10;
/// The ports that the tasks' command lines name.
const ECHO_PORT: u32 = 5001;
const SINK_PORT: u32 = 5002;

/// Everything that stands behind the devices.
pub(super) struct Host {
    image: PathBuf,
    disk: File,
    disk_size: u64,
    socket: PathBuf,
    network: Result<Network, String>,
}

impl Host {
    /// Writes an image of `disk_size` bytes to `directory`, and starts those who answer. A network that cannot be had is no
    /// error.
    pub(super) fn prepare(directory: &Path, disk_size: u64) -> io::Result<Self> {
        // Before any thread is started: each would stay behind in the old namespace.
        let network = Network::start().map_err(|error| error.to_string());
        let image = directory.join("disk.img");
        let mut disk = File::options().create_new(true).read(true).write(true).open(&image)?;
        for piece in (0..disk_size).step_by(SEQUENTIAL_SIZE as usize) {
            let words = (piece / 8)..(piece + SEQUENTIAL_SIZE) / 8;
            disk.write_all(&words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>())?;
        }
        let socket = directory.join("vsock");
        serve(&port(&socket, ECHO_PORT), echo)?;
        serve(&port(&socket, SINK_PORT), sink)?;
        Ok(Self { image, disk, disk_size, socket, network })
    }

    /// Why there is no network.
    pub(super) fn network_failure(&self) -> Option<&str> {
        self.network.as_ref().err().map(String::as_str)
    }

    /// Whether what the operation needs is there.
    pub(super) fn has(&self, operation: Operation) -> bool {
        !matches!(operation, Operation::Requests | Operation::Frames | Operation::Segments)
            || self.network.is_ok()
    }

    /// The device that a guest does the operation with.
    pub(super) fn devices(&self, operation: Operation) -> Devices {
        match operation {
            Operation::RandomRead
            | Operation::RandomWrite
            | Operation::SequentialRead
            | Operation::SequentialWrite => Devices { disk: Some(self.image.clone()), ..Devices::default() },
            Operation::Requests | Operation::Frames | Operation::Segments => {
                let tap = self.network.as_ref().ok().map(|network| network.name().to_owned());
                Devices { tap, ..Devices::default() }
            }
            Operation::Messages | Operation::Stream => {
                Devices { vsock: Some(self.socket.clone()), ..Devices::default() }
            }
        }
    }

    /// Makes room for the socket that a VMM makes.
    pub(super) fn before_machine(&self) -> io::Result<()> {
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Repeats the operation for `time`.
    pub(super) fn run(&self, operation: Operation, time: Duration, seed: u64) -> io::Result<Figures> {
        match operation {
            Operation::RandomRead => self.disk(time, RANDOM_SIZE, Some(Rng::with_seed(seed)), read),
            Operation::RandomWrite => self.disk(time, RANDOM_SIZE, Some(Rng::with_seed(seed)), write),
            Operation::SequentialRead => self.disk(time, SEQUENTIAL_SIZE, None, read),
            Operation::SequentialWrite => self.disk(time, SEQUENTIAL_SIZE, None, write),
            Operation::Requests => self.tap()?.requests(time),
            Operation::Frames => self.tap()?.frames(time),
            Operation::Segments => self.tap()?.segments(time),
            Operation::Messages => messages(UnixStream::connect(port(&self.socket, ECHO_PORT))?, time),
            Operation::Stream => stream(UnixStream::connect(port(&self.socket, SINK_PORT))?, time),
        }
    }

    fn tap(&self) -> io::Result<Tap> {
        match &self.network {
            Ok(network) => network.attach(),
            Err(reason) => Err(io::Error::other(reason.clone())),
        }
    }

    /// Random places where there is a generator, else one after the other.
    fn disk(
        &self,
        time: Duration,
        size: u64,
        mut random: Option<Rng>,
        access: fn(&File, &mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<Figures> {
        let mut buffer = vec![0x5a; size as usize];
        let places = self.disk_size / size;
        repeat(time, size, |number| {
            let place = random.as_mut().map_or(number % places, |random| random.u64(..places));
            access(&self.disk, &mut buffer, place * size)
        })
    }
}

fn read(disk: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    disk.read_exact_at(buffer, offset)
}

fn write(disk: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    disk.write_all_at(buffer, offset)
}

fn messages(mut socket: UnixStream, time: Duration) -> io::Result<Figures> {
    let mut message = [0x5a; MESSAGE_SIZE];
    repeat(time, MESSAGE_SIZE as u64, |_| {
        socket.write_all(&message)?;
        socket.read_exact(&mut message)
    })
}

fn stream(mut socket: UnixStream, time: Duration) -> io::Result<Figures> {
    let data = vec![0x5a; STREAM_SIZE];
    repeat(time, STREAM_SIZE as u64, |_| socket.write_all(&data))
}

/// Repeats an operation of `bytes` bytes.
pub(super) fn repeat(
    time: Duration,
    bytes: u64,
    mut operation: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<Figures> {
    let start = Instant::now();
    let mut operations = 0;
    loop {
        operation(operations)?;
        operations += 1;
        let elapsed = start.elapsed();
        if elapsed >= time {
            let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
            return Ok(Figures { operations, bytes: operations * bytes, nanoseconds, notifications: None });
        }
    }
}

/// Where a VMM connects to for a port of the host: Firecracker's convention, and mote's.
fn port(socket: &Path, port: u32) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(format!("_{port}"));
    path.into()
}

/// Answers every connection on a thread of its own, as long as this process lives.
fn serve(path: &Path, answer: fn(UnixStream) -> io::Result<()>) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    thread::Builder::new().name("vsock".into()).spawn(move || {
        // One connection at a time: that is all there is. Whoever breaks one off notices by itself.
        for connection in listener.incoming().flatten() {
            let _broken_off = answer(connection);
        }
    })?;
    Ok(())
}

fn echo(mut connection: UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; STREAM_SIZE];
    loop {
        let count = connection.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        connection.write_all(&buffer[..count])?;
    }
}

fn sink(mut connection: UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; 4 * STREAM_SIZE];
    while connection.read(&mut buffer)? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tasks::TASKS;
    use super::*;

    #[test]
    fn the_floor_does_every_task() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::prepare(directory.path(), 1 << 20).unwrap();
        if let Some(reason) = host.network_failure() {
            println!("SKIPPED: the networks' tasks: {reason}");
        }
        for task in TASKS.iter().filter(|task| host.has(task.operation)) {
            let figures = host.run(task.operation, Duration::from_millis(2), 1);
            let figures = figures.unwrap_or_else(|error| panic!("{}: {error}", task.name));
            assert!(figures.operations > 0 && figures.nanoseconds >= 2_000_000, "{}: {figures:?}", task.name);
            let size = if task.name.contains("4k_") { 4096 } else { figures.bytes_per_operation() };
            assert_eq!(figures.bytes, figures.operations * size, "{}", task.name);
        }
    }

    #[test]
    fn the_image_holds_what_the_guest_checks() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::prepare(directory.path(), 1 << 20).unwrap();
        let mut word = [0; 8];
        host.disk.read_exact_at(&mut word, 8 * 12345).unwrap();
        assert_eq!(u64::from_le_bytes(word), 12345);
        assert_eq!(host.devices(Operation::RandomRead).disk, Some(host.image.clone()));
        assert_eq!(host.devices(Operation::Stream).disk, None);
    }
}
