//! The load of ci/io-cost, in the guest, and the peer that it talks to, on the host.
//!
//! In the guest, `io-load DISK ADDRESS GROUPS TIMES` does the tasks of `disk`, `vsock` and `net`, as far as GROUPS names
//! them (`disk,net`), and prints `task NAME OPERATIONS NANOSECONDS` for each, so many times. Instructions that do nothing
//! mark the begin and the end of what is measured, for those who count instructions. On the host,
//! `io-load serve ADDRESS SOCKET` swallows and sends streams on TCP, and echoes on a Unix socket, and
//! `io-load run NAME COMMAND...` makes a task of a whole command, and `io-load batch COMMAND...` becomes one whose threads wait for
//! the processor when they are woken. `io-load keep` tells those who count to keep what they
//! have, and `io-load forget` to forget what they have counted since.

use std::arch::asm;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

const PAGE: usize = 4096;
const DEPTH: usize = 32;
const READS: usize = 2048;
const SEGMENT: usize = 64 << 10;
const SEGMENTS: usize = 128;
/// As many before any that counts: until then TCP's windows grow, and with them its segments, by steps that differ from
/// boot to boot.
const SEGMENTS_BEFORE: usize = 512;
const ECHOES: usize = 400;
const MESSAGE: usize = 64;
/// The peer's receive buffer. Were it left to Linux, it would grow only where data come faster than the peer reads, which
/// hangs on who of the two has the processor first; and while it is small, so are the sender's segments.
const RECEIVE_BUFFER: i32 = 4 << 20;

/// Where the peer swallows, and where it sends.
const SINK: u16 = 5001;
const SOURCE: u16 = 5002;
/// Where it echoes: a port of the vsock, or the end of the socket's name.
const ECHO: u32 = 5003;

// The marks of ci/nested/instructions.rs.
const BEGIN: i32 = 0x6d6f_7401;
const END: i32 = BEGIN + 1;
const KEEP: i32 = BEGIN + 2;
const FORGET: i32 = BEGIN + 3;

const O_DIRECT: i32 = 0o40000;
const AF_VSOCK: i32 = 40;
const SCHED_BATCH: i64 = 3;
const SOL_SOCKET: i32 = 1;
const SO_RCVBUFFORCE: i32 = 33;
const SOCK_STREAM: i32 = 1;
const HOST_CID: u32 = 2;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["serve", address, socket] => serve(address, socket),
        ["run", name, program, ref arguments @ ..] => run(name, program, arguments),
        ["batch", program, ref arguments @ ..] => Err(batch(program, arguments).into()),
        ["keep"] => {
            mark::<KEEP>();
            Ok(())
        }
        ["forget"] => {
            mark::<FORGET>();
            Ok(())
        }
        [disk, address, groups, times] => {
            let times = times.parse()?;
            groups.split(',').try_for_each(|group| match group {
                "disk" => disk_tasks(disk, times),
                "vsock" => vsock_tasks(times),
                "net" => net_tasks(address, times),
                _ => Err(format!("there are no tasks of {group}").into()),
            })
        }
        _ => Err("usage: io-load DISK ADDRESS GROUPS TIMES | serve ADDRESS SOCKET | run NAME COMMAND... \
              | batch COMMAND... | keep | forget"
            .into()),
    }
}

fn disk_tasks(disk: &str, times: usize) -> Result<(), Failure> {
    let disk = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(disk)?;
    let mut reader = Reader::new(disk, 1)?;
    measure("blk_read_4k_depth1", [READS / 4; 2], times, |count| reader.read(count))?;
    let mut reader = Reader::new(reader.file, DEPTH)?;
    measure("blk_read_4k_depth32", [READS; 2], times, |count| reader.read(count))
}

fn vsock_tasks(times: usize) -> Result<(), Failure> {
    let mut echo = vsock(HOST_CID, ECHO)?;
    measure("vsock_rr", [ECHOES; 2], times, |count| {
        let mut message = [7; MESSAGE];
        (0..count).try_for_each(|_| {
            echo.write_all(&message)?;
            echo.read_exact(&mut message)
        })
    })
}

fn net_tasks(address: &str, times: usize) -> Result<(), Failure> {
    let mut buffer = vec![7; SEGMENT];
    let mut sink = TcpStream::connect((address, SINK))?;
    // The end of each run is smaller than a segment: it is not to wait for the peer's delayed acknowledgement.
    sink.set_nodelay(true)?;
    measure("net_send_64k", [SEGMENTS_BEFORE, SEGMENTS], times, |count| {
        (0..count).try_for_each(|_| sink.write_all(&buffer))?;
        // The peer answers when it has everything.
        sink.write_all(&[1])?;
        sink.read_exact(&mut [0])
    })?;
    let mut source = TcpStream::connect((address, SOURCE))?;
    measure("net_receive_64k", [SEGMENTS_BEFORE, SEGMENTS], times, |count| {
        source.write_all(&u32::try_from(count).unwrap_or(0).to_le_bytes())?;
        (0..count).try_for_each(|_| source.read_exact(&mut buffer))
    })
}

/// Runs a program once, warmed up by whoever asks; its output and status are this program's.
fn run(name: &str, program: &str, arguments: &[&str]) -> Result<(), Failure> {
    let begun = Instant::now();
    mark::<BEGIN>();
    let status = Command::new(program).args(arguments).status();
    mark::<END>();
    let elapsed = begun.elapsed().as_nanos();
    if !status?.success() {
        return Err(format!("{program} has failed").into());
    }
    println!("task {name} 1 {elapsed}");
    Ok(())
}

/// Becomes the program, with SCHED_BATCH; returns only if that fails.
fn batch(program: &str, arguments: &[&str]) -> io::Error {
    let priority = 0i32;
    // SAFETY: the kernel reads the priority, for the thread that calls.
    let set = check(unsafe { syscall(SYS_SCHED_SETSCHEDULER, 0i64, SCHED_BATCH, &raw const priority) });
    match set {
        Ok(_) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}

/// An instruction that does nothing but be seen.
fn mark<const DISPLACEMENT: i32>() {
    // SAFETY: does nothing.
    unsafe { asm!("nop dword ptr [rax + {}]", const DISPLACEMENT, options(nomem, nostack, preserves_flags)) };
}

/// Does `before` operations to warm up, and then, so many `times`, `count` of them between the marks.
fn measure(
    name: &str,
    [before, count]: [usize; 2],
    times: usize,
    mut task: impl FnMut(usize) -> io::Result<()>,
) -> Result<(), Failure> {
    task(before)?;
    for _ in 0..times {
        let begun = Instant::now();
        mark::<BEGIN>();
        task(count)?;
        mark::<END>();
        println!("task {name} {count} {}", begun.elapsed().as_nanos());
    }
    Ok(())
}

// C's view of the kernel's interface (io_submit(2), linux/aio_abi.h, vsock(7)).

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoEvent {
    data: u64,
    iocb: u64,
    result: i64,
    result2: i64,
}

#[repr(C)]
struct SockaddrVm {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    zero: [u8; 4],
}

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn connect(fd: i32, address: *const SockaddrVm, length: u32) -> i32;
    fn setsockopt(fd: i32, level: i32, option: i32, value: *const i32, length: u32) -> i32;
}

const SYS_SCHED_SETSCHEDULER: i64 = 144;
const SYS_IO_SETUP: i64 = 206;
const SYS_IO_GETEVENTS: i64 = 208;
const SYS_IO_SUBMIT: i64 = 209;

/// Reads pages at scattered places, so many at once.
struct Reader {
    file: File,
    context: u64,
    pages: usize,
    depth: usize,
    requests: Vec<Iocb>,
    // The kernel fills it: requests hold its address.
    _buffer: Vec<u8>,
    state: u32,
}

impl Reader {
    fn new(file: File, depth: usize) -> Result<Self, Failure> {
        let mut context = 0u64;
        // SAFETY: the kernel writes the context there.
        check(unsafe { syscall(SYS_IO_SETUP, depth, &mut context) })?;
        let size = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
        let buffer = vec![0; (depth + 1) * PAGE];
        let begin = (buffer.as_ptr() as u64).next_multiple_of(PAGE as u64);
        let requests = (0..depth as u64).map(|index| Iocb {
            data: index,
            fd: file.as_raw_fd() as u32,
            buffer: begin + index * PAGE as u64,
            length: PAGE as u64,
            ..Iocb::default()
        });
        let requests = requests.collect();
        Ok(Self { file, context, pages: size as usize / PAGE, depth, requests, _buffer: buffer, state: 1 })
    }

    fn read(&mut self, count: usize) -> io::Result<()> {
        let mut free: Vec<usize> = (0..self.depth).collect();
        let (mut begun, mut done) = (0, 0);
        let mut events = vec![IoEvent::default(); self.depth];
        while done < count {
            let mut batch = Vec::with_capacity(self.depth);
            while begun < count
                && let Some(index) = free.pop()
            {
                begun += 1;
                self.requests[index].offset = (self.next_page() * PAGE) as i64;
                batch.push(&raw mut self.requests[index]);
            }
            if !batch.is_empty() {
                // SAFETY: the requests, and the buffer they point to, live until they are done.
                let taken =
                    check(unsafe { syscall(SYS_IO_SUBMIT, self.context, batch.len(), batch.as_ptr()) })?;
                if taken as usize != batch.len() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
            // SAFETY: there is room for so many.
            let ended = check(unsafe {
                syscall(SYS_IO_GETEVENTS, self.context, 1usize, self.depth, events.as_mut_ptr(), 0usize)
            })?;
            for event in &events[..ended as usize] {
                if event.result != PAGE as i64 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                free.push(event.data as usize);
                done += 1;
            }
        }
        Ok(())
    }

    /// Numerical Recipes' generator: the same places in each run.
    fn next_page(&mut self) -> usize {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.state >> 8) as usize % self.pages
    }
}

fn vsock(cid: u32, port: u32) -> Result<File, Failure> {
    let address = SockaddrVm { family: AF_VSOCK as u16, reserved: 0, port, cid, zero: [0; 4] };
    // SAFETY: the address is one, of that length; the descriptor is new and ours.
    unsafe {
        let fd = socket(AF_VSOCK, SOCK_STREAM, 0);
        check(fd.into())?;
        check(connect(fd, &address, size_of::<SockaddrVm>() as u32).into())?;
        Ok(File::from_raw_fd(fd))
    }
}

/// Connections that `socket` accepts have it, too.
fn set_receive_buffer(socket: &TcpListener, bytes: i32) -> io::Result<()> {
    let length = size_of_val(&bytes) as u32;
    // SAFETY: the kernel reads so many bytes there.
    let result =
        unsafe { setsockopt(socket.as_raw_fd(), SOL_SOCKET, SO_RCVBUFFORCE, &raw const bytes, length) };
    check(result.into()).map(|_| ())
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn serve(address: &str, socket: &str) -> Result<(), Failure> {
    let echo = UnixListener::bind(format!("{socket}_{ECHO}"))?;
    let sink = TcpListener::bind((address, SINK))?;
    set_receive_buffer(&sink, RECEIVE_BUFFER)?;
    let source = TcpListener::bind((address, SOURCE))?;
    let threads = [
        thread::spawn(move || {
            loop {
                let (mut stream, _) = echo.accept()?;
                let mut message = [0; MESSAGE];
                while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
            }
        }),
        thread::spawn(move || {
            loop {
                let (mut stream, _) = sink.accept()?;
                let mut buffer = vec![0; 4 * SEGMENT];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    // The last byte of a run is the only one of its kind.
                    if buffer[length - 1] == 1 && stream.write_all(&[1]).is_err() {
                        break;
                    }
                }
            }
        }),
        thread::spawn(move || {
            loop {
                let (mut stream, _) = source.accept()?;
                let (mut count, buffer) = ([0; 4], vec![7; SEGMENT]);
                while stream.read_exact(&mut count).is_ok() {
                    if (0..u32::from_le_bytes(count)).try_for_each(|_| stream.write_all(&buffer)).is_err() {
                        break;
                    }
                }
            }
        }),
    ];
    for thread in threads {
        let ended: io::Result<()> = thread.join().map_err(|_| "a thread panicked")?;
        ended?;
    }
    Ok(())
}
