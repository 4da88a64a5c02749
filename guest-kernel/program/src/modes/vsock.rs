//! `mode=vsock`: one stream to a port of the host, by its own driver. For `op=echo`, whoever listens there sends back what
//! it gets; for `op=stream` it only reads. With `verify=1` what comes back is compared with what was sent.

use super::tally::{self, Tally};
use crate::cpu;
use crate::machine::Machine;
use crate::options::Options;
use crate::virtio::failure::Failure;
use crate::virtio::vsock::{Connection, PACKET_LIMIT};

const DEFAULT_PORT: u32 = 5001;
const ECHO_SIZE: u64 = 64;
/// A message begins with its number.
const NUMBER_SIZE: u64 = 8;

/// Runs the operation and prints its figures. Not inlined: its stack frame would be every mode's.
#[inline(never)]
pub(super) fn run(machine: Machine, options: &Options<'_>) {
    let streams = match options.op.unwrap_or(b"echo") {
        b"echo" => false,
        b"stream" => true,
        _ => tally::refuse(machine, b"op-is-echo-stream"),
    };
    let size = options.size.unwrap_or(if streams { PACKET_LIMIT } else { ECHO_SIZE });
    if !(NUMBER_SIZE..=PACKET_LIMIT).contains(&size) {
        tally::refuse(machine, b"size-is-8-to-65536");
    }
    let (mut tally, mut arena) = Tally::new(machine, b"vsock", options, size);
    let port = options.port.unwrap_or(DEFAULT_PORT);
    let connection = Connection::open(options.windows(), &mut arena, port, size)
        .unwrap_or_else(|failure| tally::fail(machine, failure));
    machine.ready();
    super::header();
    let result = if streams {
        stream(connection, &mut tally, size)
    } else {
        echo(connection, &mut tally, size, options.verify())
    };
    if let Err(failure) = result {
        tally::fail(machine, failure);
    }
}

/// Messages, one after another, each when the one before has come back.
fn echo(mut connection: Connection, tally: &mut Tally, size: u64, verify: bool) -> Result<(), Failure> {
    let message = connection.data();
    for (at, byte) in (0..size).zip((b'a'..=b'z').cycle()) {
        message.write(at, byte);
    }
    tally.start();
    while tally.goes_on(tally.operations()) {
        tally.begin(0);
        message.write(0, tally.operations());
        send(&mut connection, size)?;
        let mut back = 0;
        let patience = cpu::Patience::new();
        while back < size {
            let mut is_right = true;
            let came = connection.poll(|data| {
                let length = data.length();
                is_right = back + length <= size
                    && (!verify || (0..length).all(|at| data.read::<u8>(at) == message.read(back + at)));
                back += length;
            })?;
            if !is_right {
                return Err(Failure::new(b"corrupt", b"echo"));
            }
            if !came && patience.is_over() {
                return Err(Failure::new(b"timeout", b"echo"));
            }
            cpu::relax();
        }
        tally.end(0);
    }
    tally.stop();
    finish(connection, tally, size)
}

/// Packets, as fast as the host has room for them; the clock stops when it has taken them all.
fn stream(mut connection: Connection, tally: &mut Tally, size: u64) -> Result<(), Failure> {
    tally.start();
    while tally.goes_on(tally.operations()) {
        tally.begin(0);
        send(&mut connection, size)?;
        tally.end(0);
    }
    while connection.unconfirmed() > 0 {
        connection.ask_credit()?;
        receive(&mut connection)?;
    }
    tally.stop();
    finish(connection, tally, size)
}

/// Sends `size` bytes as soon as the host has room for them.
fn send(connection: &mut Connection, size: u64) -> Result<(), Failure> {
    // What has come is looked at first: it may tell of more room.
    while connection.poll(|_| {})? {}
    if connection.room() < size {
        return Err(Failure::new(b"connection", b"size-exceeds-room-of-host"));
    }
    while connection.free() < size {
        receive(connection)?;
    }
    connection.send(size)
}

/// Waits for a packet.
fn receive(connection: &mut Connection) -> Result<(), Failure> {
    let patience = cpu::Patience::new();
    while !connection.poll(|_| {})? {
        if patience.is_over() {
            return Err(Failure::new(b"timeout", b"connection"));
        }
        cpu::relax();
    }
    Ok(())
}

fn finish(connection: Connection, tally: &mut Tally, size: u64) -> Result<(), Failure> {
    let notifications = connection.notifications();
    connection.close()?;
    tally.print(tally.operations().saturating_mul(size), 0, notifications);
    Ok(())
}
