//! `mode=net`: frames on the first virtio interface, by its own driver. Whoever is at the other end sends requests back with
//! the addresses exchanged; data it may ignore.

use super::frames::{self, Kind};
use super::tally::{self, Tally};
use crate::cpu;
use crate::machine::Machine;
use crate::options::Options;
use crate::virtio::failure::Failure;
use crate::virtio::net::{Interface, MAX_DEPTH, Segmentation};

/// The least and the most bytes of a frame, without its checksum (IEEE 802.3).
const FRAME_MIN: u64 = 60;
const FRAME_MAX: u64 = 1514;
/// A large segment has the headers and 44 full payloads; what IPv4 can count is its limit.
const SEGMENT: u16 = 1460;
const LARGE: u64 = frames::TCP_HEADERS_SIZE as u64 + 44 * SEGMENT as u64;
const LARGE_MAX: u64 = frames::IP as u64 + u16::MAX as u64;
const DEFAULT_DEPTH: u64 = 16;
const PAGE: usize = 4096;

/// A request without an answer is sent again after so many TSC cycles, about half a second, and so many times.
const RETRY: u64 = 1 << 30;
const ATTEMPTS: u64 = 10;
/// The slot that requests are sent from.
const SLOT: u16 = 0;

/// The job, from the options.
#[derive(Clone, Copy)]
struct Job {
    streams: bool,
    tso: bool,
    depth: u16,
    size: u64,
}

/// Runs the job and prints its figures. Not inlined: its stack frame would be every mode's.
#[inline(never)]
pub(super) fn run(machine: Machine, options: &Options<'_>) {
    let job = Job::new(options).unwrap_or_else(|detail| tally::refuse(machine, detail));
    let (mut tally, mut arena) = Tally::new(machine, b"net", options, job.size);
    let interface = Interface::open(options.windows(), &mut arena, job.depth, job.size)
        .unwrap_or_else(|failure| tally::fail(machine, failure));
    machine.ready();
    super::header();
    if let Err(failure) = job.run(interface, &mut tally) {
        tally::fail(machine, failure);
    }
}

impl Job {
    fn new(options: &Options<'_>) -> Result<Job, &'static [u8]> {
        let streams = match options.op.unwrap_or(b"rr") {
            b"rr" => false,
            b"stream" => true,
            _ => return Err(b"op-is-rr-stream"),
        };
        let tso = streams && options.tso();
        let (default, limit) = match (streams, tso) {
            (false, _) => (FRAME_MIN, FRAME_MAX),
            (true, false) => (FRAME_MAX, FRAME_MAX),
            (true, true) => (LARGE, LARGE_MAX),
        };
        let size = options.size.unwrap_or(default);
        if !(FRAME_MIN..=limit).contains(&size) {
            return Err(b"size-is-60-to-1514-or-to-65549-with-tso");
        }
        let depth = if streams { options.depth.unwrap_or(DEFAULT_DEPTH) } else { 1 };
        let depth = u16::try_from(depth).unwrap_or_default();
        if !(1..=MAX_DEPTH).contains(&depth) {
            return Err(b"depth-is-1-to-64");
        }
        Ok(Job { streams, tso, depth, size })
    }

    fn run(self, mut interface: Interface, tally: &mut Tally) -> Result<(), Failure> {
        if self.tso && !interface.segments() {
            return Err(Failure::new(b"features", b"no-tso"));
        }
        // The first request makes sure that somebody is there, and that the way to them is open.
        interface.prepare(SLOT, FRAME_MIN, None);
        let source = interface.mac();
        exchange(&mut interface, source, u64::MAX)?;
        let before = interface.notifications();
        let lost = if self.streams {
            self.stream(&mut interface, tally, source)?
        } else {
            self.requests(&mut interface, tally, source)?
        };
        let notifications = interface.notifications() - before;
        interface.close()?;
        tally.print(tally.operations().saturating_mul(self.size), lost, notifications);
        Ok(())
    }

    /// Requests, one after another, each when the one before is answered. Returns how many had to be sent again.
    fn requests(self, interface: &mut Interface, tally: &mut Tally, source: [u8; 6]) -> Result<u64, Failure> {
        interface.prepare(SLOT, self.size, None);
        let mut lost = 0;
        tally.start();
        while tally.goes_on(tally.operations()) {
            let number = tally.operations();
            tally.begin(SLOT);
            lost += exchange(interface, source, number)?;
            tally.end(SLOT);
        }
        tally.stop();
        Ok(lost)
    }

    /// Data, `depth` frames at once; then a request, whose answer tells that all of it has come out at the other end.
    fn stream(self, interface: &mut Interface, tally: &mut Tally, source: [u8; 6]) -> Result<u64, Failure> {
        for slot in 0..self.depth {
            let frame = interface.frame(slot);
            // A page that was never written to would be one and the same page of zeros on the host.
            for at in (0..self.size).step_by(PAGE) {
                frame.write(at, 1u8);
            }
            if self.tso {
                frame.write_bytes(0, &frames::tcp_headers(source, self.size));
            } else {
                frame.write_bytes(0, &frames::header(source, Kind::Data, slot.into()));
            }
            interface.prepare(slot, self.size, self.tso.then_some(SEGMENTATION));
        }
        let (mut started, mut ended) = (0, 0);
        tally.start();
        for slot in 0..self.depth {
            started += u64::from(begin(interface, slot, tally, started));
        }
        interface.publish();
        while ended < started {
            let mut done = Some(interface.wait_sent()?);
            while let Some(slot) = done {
                tally.end(slot);
                ended += 1;
                started += u64::from(begin(interface, slot, tally, started));
                done = interface.poll_sent()?;
            }
            interface.publish();
        }
        interface.prepare(SLOT, FRAME_MIN, None);
        let lost = exchange(interface, source, started)?;
        tally.stop();
        Ok(lost)
    }
}

/// Sends the frame in `slot`, if there is to be another.
fn begin(interface: &mut Interface, slot: u16, tally: &mut Tally, started: u64) -> bool {
    let goes_on = tally.goes_on(started);
    if goes_on {
        tally.begin(slot);
        interface.send(slot);
    }
    goes_on
}

const SEGMENTATION: Segmentation = Segmentation {
    headers: frames::TCP_HEADERS_SIZE as u16,
    size: SEGMENT,
    checksum_start: frames::TCP as u16,
    checksum_offset: frames::TCP_CHECKSUM as u16,
};

/// Sends request `number` until it is answered. Returns how many times too often.
fn exchange(interface: &mut Interface, source: [u8; 6], number: u64) -> Result<u64, Failure> {
    let request = frames::header(source, Kind::Request, number);
    for attempt in 0..ATTEMPTS {
        interface.frame(SLOT).write_bytes(0, &request);
        interface.send(SLOT);
        interface.publish();
        let start = cpu::timestamp();
        let mut answered = false;
        while !answered && cpu::timestamp().wrapping_sub(start) < RETRY {
            let reply = interface.poll_received(|frame| {
                frame.length() >= request.len() as u64
                    && frames::is_reply(&frame.read_bytes(0), source, number)
            })?;
            answered = reply == Some(true);
            cpu::relax();
        }
        interface.wait_sent()?;
        if answered {
            return Ok(attempt);
        }
    }
    Err(Failure::new(b"timeout", b"no-reply"))
}
