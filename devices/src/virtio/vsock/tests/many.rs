//! Hundreds of connections at once, with a guest that keeps to its credit and checks what it gets.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use super::super::packet::{Header, Key};
use super::super::spec::{op, shutdown};
use super::super::table::CAPACITY;
use super::machine::{Machine, packet, would_block, write_some};

/// How many bytes each connection carries one way and back.
const LENGTH: usize = 100_000;

/// The guest's receive buffer for each connection.
const GUEST_BUFFER: u32 = 16_384;

/// A guest program that sends back what comes, until there is no more.
#[derive(Default)]
struct Echo {
    waiting: Vec<u8>,
    received: u32,
    sent: u32,
    host_buffer: u32,
    host_forwarded: u32,
    ended: bool,
    closed: bool,
}

impl Echo {
    fn header(&self, key: Key, op: u16) -> Header {
        // What was sent back is no longer in the buffer.
        let forwarded = self.received.wrapping_sub(self.waiting.len() as u32);
        Header { buf_alloc: GUEST_BUFFER, fwd_cnt: forwarded, ..packet(key, op) }
    }

    fn take(&mut self, header: &Header, payload: &[u8]) {
        self.closed = header.op == op::RST;
        if self.closed {
            return;
        }
        self.host_buffer = header.buf_alloc;
        self.host_forwarded = header.fwd_cnt;
        match header.op {
            op::RW => {
                self.received = self.received.wrapping_add(header.len);
                self.waiting.extend(payload);
                assert!(self.waiting.len() <= GUEST_BUFFER as usize, "the device has overrun the guest");
            }
            op::SHUTDOWN => self.ended = true,
            _ => {}
        }
    }

    /// Sends what may be sent.
    fn send(&mut self, key: Key, machine: &mut Machine) {
        if self.closed {
            return;
        }
        let credit = self.host_buffer - self.sent.wrapping_sub(self.host_forwarded);
        let chunk = self.waiting.len().min(credit as usize).min(4096);
        if chunk > 0 {
            let payload: Vec<u8> = self.waiting.drain(..chunk).collect();
            self.sent = self.sent.wrapping_add(chunk as u32);
            machine.send(Header { len: chunk as u32, ..self.header(key, op::RW) }, &payload);
        } else if self.ended && self.waiting.is_empty() {
            self.ended = false;
            machine.send(Header { flags: shutdown::BOTH, ..self.header(key, op::SHUTDOWN) }, &[]);
        }
    }
}

/// A host program that sends a pattern of its own and wants it back.
struct Client {
    stream: UnixStream,
    pattern: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    ended: bool,
}

impl Client {
    fn new(stream: UnixStream, seed: usize) -> Self {
        let pattern = (0..LENGTH).map(|at| (at * 31 + at / 251 + seed * 7) as u8).collect();
        Self { stream, pattern, sent: 0, received: Vec::new(), ended: false }
    }

    fn turn(&mut self) {
        if self.sent < LENGTH {
            self.sent += write_some(&self.stream, &self.pattern[self.sent..]);
            if self.sent == LENGTH {
                self.stream.shutdown(std::net::Shutdown::Write).unwrap();
            }
        }
        let mut bytes = [0; 8192];
        while let (false, Some(got)) = (self.ended, would_block(self.stream.read(&mut bytes))) {
            self.received.extend(&bytes[..got]);
            self.ended = got == 0;
        }
    }
}

/// Lets everything run until each client has its bytes back.
fn run(machine: &mut Machine, echoes: &mut BTreeMap<Key, Echo>, clients: &mut [Client]) {
    machine.until("all echoes", |machine| {
        clients.iter_mut().for_each(Client::turn);
        while let Some((header, payload)) = machine.receive_now() {
            let key = Key { guest_port: header.dst_port, host_port: header.src_port };
            let echo = echoes.entry(key).or_default();
            if header.op == op::REQUEST {
                let response = echo.header(key, op::RESPONSE);
                machine.send(response, &[]);
            }
            echo.take(&header, &payload);
        }
        for (&key, echo) in echoes.iter_mut() {
            echo.send(key, machine);
        }
        clients.iter().all(|client| client.ended).then_some(())
    });
    for client in clients {
        assert!(client.received == client.pattern, "{} bytes came back", client.received.len());
    }
    machine.until("the last packets", |machine| {
        while let Some((header, payload)) = machine.receive_now() {
            let key = Key { guest_port: header.dst_port, host_port: header.src_port };
            echoes.entry(key).or_default().take(&header, &payload);
        }
        (machine.connections() == 0 && echoes.values().all(|echo| echo.closed)).then_some(())
    });
}

#[test]
fn three_hundred_host_programs_at_once_get_their_bytes_back() {
    let mut machine = Machine::new();
    let mut clients = Vec::new();
    for seed in 0..300 {
        let mut stream = machine.connect();
        stream.write_all(b"CONNECT 80\n").unwrap();
        clients.push(Client::new(stream, seed));
    }
    let mut echoes = BTreeMap::new();
    let mut answered = 0;
    machine.until("all answers", |machine| {
        while let Some((header, _)) = machine.receive_now() {
            assert_eq!(header.op, op::REQUEST);
            let key = Key { guest_port: 80, host_port: header.src_port };
            let mut echo = Echo::default();
            echo.take(&header, &[]);
            let response = echo.header(key, op::RESPONSE);
            machine.send(response, &[]);
            assert!(echoes.insert(key, echo).is_none(), "each has a port of its own");
            answered += 1;
        }
        (answered == 300).then_some(())
    });
    for client in &clients {
        let line = machine.read_line(&client.stream);
        assert!(line.starts_with("OK "), "{line}");
    }
    run(&mut machine, &mut echoes, &mut clients);
    assert_eq!(machine.guest.worker.counters().faults, 0);
}

#[test]
fn three_hundred_connections_of_the_guest_at_once_carry_their_bytes() {
    let mut machine = Machine::new();
    let listener = machine.listen(80);
    let mut clients = Vec::new();
    let mut echoes = BTreeMap::new();
    for seed in 0..300 {
        let key = Key { guest_port: 5000 + seed as u32, host_port: 80 };
        let mut echo = Echo::default();
        let request = echo.header(key, op::REQUEST);
        machine.send(request, &[]);
        echo.take(&machine.expect(op::RESPONSE, 0), &[]);
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        clients.push(Client::new(stream, seed));
        echoes.insert(key, echo);
    }
    run(&mut machine, &mut echoes, &mut clients);
    assert_eq!(machine.guest.worker.counters().faults, 0);
}

#[test]
fn data_is_delivered_in_turn() {
    let mut machine = Machine::starved();
    let listener = machine.listen(80);
    let mut streams: Vec<UnixStream> = Vec::new();
    for guest_port in 0..10 {
        streams.push(open_with_one_buffer(&mut machine, &listener, Key { guest_port, host_port: 80 }));
    }
    for stream in &streams {
        assert_eq!(write_some(stream, &[1; 40_960]), 40_960);
    }
    machine.turn();
    machine.send(packet(Key { guest_port: 99, host_port: 80 }, op::REQUEST), &[]);
    machine.feed(51);
    assert_eq!(
        machine.expect(op::RESPONSE, 0).dst_port,
        99,
        "a new connection does not wait for others' data"
    );
    let mut counts = [0; 10];
    for _ in 0..50 {
        counts[machine.receive().0.dst_port as usize] += 1;
    }
    assert_eq!(counts, [5; 10]);
}

fn open_with_one_buffer(machine: &mut Machine, listener: &UnixListener, key: Key) -> UnixStream {
    machine.send(packet(key, op::REQUEST), &[]);
    machine.feed(1);
    assert!(machine.guest.queues[0].take_used().is_some());
    machine.forget_buffer();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

#[test]
fn one_more_than_there_may_be_is_refused() {
    let mut machine = Machine::new();
    let listener = machine.listen(80);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current.is_some_and(|limit| limit < 2 * CAPACITY as u64 + 200) {
        println!("SKIPPED: this test needs {} descriptors, and the limit is {limit:?}", 2 * CAPACITY + 200);
        return;
    }
    let key = |guest_port| Key { guest_port, host_port: 80 };
    let streams: Vec<_> = (0..CAPACITY as u32).map(|port| machine.open(&listener, key(port))).collect();
    machine.send(packet(key(CAPACITY as u32), op::REQUEST), &[]);
    machine.expect(op::RST, 0);
    let stream = machine.connect();
    machine.read_end(&stream);
    drop(streams);
    machine.until("all ends", |machine| {
        while let Some((header, _)) = machine.receive_now() {
            machine.send(packet(key(header.dst_port), op::RST), &[]);
        }
        (machine.connections() == 0).then_some(())
    });
    machine.open(&listener, key(7));
}
