//! The device between a driver and real sockets. Quotations are from virtio 1.2, section 5.10.

use std::io::Write;
use std::time::Duration;

use super::packet::Key;
use super::spec::{op, shutdown};
use super::*;
use machine::{CID, Machine, data, packet};

mod machine;

const KEY: Key = Key { guest_port: 1000, host_port: 52 };

#[test]
fn the_guest_connects_and_bytes_flow_both_ways() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let stream = machine.open(&listener, KEY);
    machine.send(data(KEY, 5), b"hello");
    assert_eq!(machine.read(&stream, 5), b"hello");
    (&stream).write_all(b"and back").unwrap();
    let (header, payload) = machine.receive();
    assert_eq!((header.op, header.len, payload.as_slice()), (op::RW, 8, b"and back".as_slice()));
    assert_eq!(header.fwd_cnt, 5, "what the host program has taken");
    machine.expect_silence();
}

#[test]
fn a_host_program_connects_and_bytes_flow_both_ways() {
    let mut machine = Machine::new();
    let stream = machine.connect();
    (&stream).write_all(b"CONNECT 1000\nat once").unwrap();
    let request = machine.expect(op::REQUEST, 0);
    assert_eq!(request.dst_port, 1000);
    machine.expect_silence();
    let key = Key { guest_port: 1000, host_port: request.src_port };
    machine.send(packet(key, op::RESPONSE), &[]);
    assert_eq!(machine.read_line(&stream), format!("OK {}\n", key.host_port));
    assert_eq!(machine.receive().1, b"at once", "what was sent along waits for the answer");
    machine.send(data(key, 3), b"yes");
    assert_eq!(machine.read(&stream, 3), b"yes");
}
