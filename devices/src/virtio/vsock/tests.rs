//! The device between a driver and real sockets. Quotations are from virtio 1.2, section 5.10.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use super::packet::{Header, Key};
use super::spec::{op, shutdown};
use super::*;
use crate::testkit::{Buffer, Descriptor, NEXT};
use machine::{CID, Machine, data, packet, write_some};

mod machine;
mod many;
mod properties;

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

#[test]
fn a_connection_that_the_guest_does_not_want_is_closed() {
    let mut machine = Machine::new();
    let stream = machine.connect();
    (&stream).write_all(b"CONNECT 7\n").unwrap();
    let request = machine.expect(op::REQUEST, 0);
    machine.send(packet(Key { guest_port: 7, host_port: request.src_port }, op::RST), &[]);
    machine.read_end(&stream);
    machine.expect_silence();
    assert_eq!(machine.connections(), 0);
}

#[test]
fn a_guest_that_does_not_answer_is_not_waited_for() {
    let mut machine = Machine::new();
    let stream = machine.connect();
    (&stream).write_all(b"CONNECT 7\n").unwrap();
    let request = machine.expect(op::REQUEST, 0);
    machine.pass(Duration::from_millis(9900));
    machine.expect_silence();
    machine.pass(Duration::from_millis(10_100));
    assert_eq!(machine.expect(op::RST, 0).src_port, request.src_port);
    machine.read_end(&stream);
    machine.send(packet(Key { guest_port: 7, host_port: request.src_port }, op::RESPONSE), &[]);
    machine.expect(op::RST, 0);
}

#[test]
fn host_programs_that_send_garbage_or_nothing_are_dropped() {
    let mut machine = Machine::new();
    for garbage in
        ["CONNECT\n", "GET / HTTP/1.1\r\n", "\n", "CONNECT 1 2\n", "CONNECT -1\n", "CONNECT 4294967295\n"]
    {
        let stream = machine.connect();
        (&stream).write_all(garbage.as_bytes()).unwrap();
        machine.read_end(&stream);
    }
    let endless = machine.connect();
    (&endless).write_all(&[b'C'; 1000]).unwrap();
    machine.read_end(&endless);
    let gone = machine.connect();
    (&gone).write_all(b"CONN").unwrap();
    drop(gone);
    machine.until("the end of it", |machine| (machine.connections() == 0).then_some(()));
    let silent = machine.connect();
    (&silent).write_all(b"CONNECT 1").unwrap();
    machine.until("its arrival", |machine| (machine.connections() == 1).then_some(()));
    machine.pass(Duration::from_secs(11));
    machine.read_end(&silent);
    machine.expect_silence();
    assert_eq!(machine.connections(), 0);
}

#[test]
fn where_nobody_listens_the_guest_is_refused() {
    let mut machine = Machine::new();
    machine.send(packet(KEY, op::REQUEST), &[]);
    machine.expect(op::RST, 0);
    drop(machine.listen(52));
    machine.send(packet(KEY, op::REQUEST), &[]);
    machine.expect(op::RST, 0);
}

#[test]
fn a_host_program_with_a_full_backlog_is_tried_again() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    rustix::net::listen(&listener, 0).unwrap();
    let key = |guest_port| Key { guest_port, ..KEY };
    // The kernel lets one more wait than it is told.
    machine.send(packet(key(1000), op::REQUEST), &[]);
    machine.expect(op::RESPONSE, 0);
    machine.send(packet(key(1001), op::REQUEST), &[]);
    machine.expect_silence();
    let _first = listener.accept().unwrap();
    assert_eq!(machine.expect(op::RESPONSE, 0).dst_port, 1001);
    machine.send(packet(key(1002), op::REQUEST), &[]);
    machine.expect_silence();
    machine.pass(Duration::from_secs(3));
    assert_eq!(machine.expect(op::RST, 0).dst_port, 1002);
}

#[test]
fn the_guest_half_closes_and_still_receives() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let stream = machine.open(&listener, KEY);
    machine.send(data(KEY, 4), b"last");
    machine.send(Header { flags: shutdown::SEND, ..packet(KEY, op::SHUTDOWN) }, &[]);
    assert_eq!(machine.read(&stream, 4), b"last");
    machine.read_end(&stream);
    (&stream).write_all(b"the answer").unwrap();
    assert_eq!(machine.receive().1, b"the answer");
    drop(stream);
    machine.expect(op::SHUTDOWN, shutdown::BOTH);
    machine.send(packet(KEY, op::RST), &[]);
    machine.expect_silence();
    assert_eq!(machine.connections(), 0);
}

#[test]
fn a_host_program_half_closes_and_still_receives() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let stream = machine.open(&listener, KEY);
    (&stream).write_all(b"last").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(machine.receive().1, b"last");
    machine.expect(op::SHUTDOWN, shutdown::SEND);
    machine.send(data(KEY, 10), b"the answer");
    assert_eq!(machine.read(&stream, 10), b"the answer");
    machine.expect_silence();
    // "...followed by a VIRTIO_VSOCK_OP_RST response from the peer."
    machine.send(Header { flags: shutdown::BOTH, ..packet(KEY, op::SHUTDOWN) }, &[]);
    machine.expect(op::RST, 0);
    machine.read_end(&stream);
    assert_eq!(machine.connections(), 0);
}

#[test]
fn the_end_of_a_half_closed_host_program_is_noticed() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let stream = machine.open(&listener, KEY);
    stream.shutdown(Shutdown::Write).unwrap();
    machine.expect(op::SHUTDOWN, shutdown::SEND);
    machine.expect_silence();
    drop(stream);
    machine.expect(op::SHUTDOWN, shutdown::BOTH);
    // "If no VIRTIO_VSOCK_OP_RST response is received within an implementation-specific amount of time, a
    // VIRTIO_VSOCK_OP_RST packet is sent to reset the socket."
    machine.pass(Duration::from_secs(9));
    machine.expect(op::RST, 0);
}

#[test]
fn when_neither_sends_any_more_the_connection_is_over() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let stream = machine.open(&listener, KEY);
    stream.shutdown(Shutdown::Write).unwrap();
    machine.expect(op::SHUTDOWN, shutdown::SEND);
    machine.send(Header { flags: shutdown::SEND, ..packet(KEY, op::SHUTDOWN) }, &[]);
    machine.expect(op::SHUTDOWN, shutdown::BOTH);
    machine.send(packet(KEY, op::RST), &[]);
    machine.read_end(&stream);
    assert_eq!(machine.connections(), 0);
}

#[test]
fn directions_that_nobody_receives_on_are_shut() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let stream = machine.open(&listener, KEY);
    machine.send(Header { flags: shutdown::RECEIVE, ..packet(KEY, op::SHUTDOWN) }, &[]);
    let error = (&stream).write(b"nobody listens").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    machine.send(data(KEY, 5), b"still");
    assert_eq!(machine.read(&stream, 5), b"still");

    let other = Key { guest_port: 1001, ..KEY };
    let stream = machine.open(&listener, other);
    stream.shutdown(Shutdown::Read).unwrap();
    machine.send(data(other, 4), b"lost");
    machine.expect(op::SHUTDOWN, shutdown::RECEIVE);
    machine.send(data(other, 4), b"lost");
    (&stream).write_all(b"still").unwrap();
    let (header, payload) = machine.receive();
    assert_eq!(
        (payload.as_slice(), header.fwd_cnt),
        (b"still".as_slice(), 8),
        "what is dropped is accounted for"
    );
}

#[test]
fn what_the_guest_sent_before_it_closed_arrives_at_a_slow_reader() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let stream = machine.open(&listener, KEY);
    let chunk = [7; 4096];
    let mut sent = 0;
    while held(&mut machine) < 50_000 {
        machine.send(data(KEY, chunk.len()), &chunk);
        sent += chunk.len();
        while machine.receive_now().is_some() {}
    }
    machine.send(Header { flags: shutdown::BOTH, ..packet(KEY, op::SHUTDOWN) }, &[]);
    while machine.receive().0.op != op::RST {}
    let reused = machine.open(&listener, KEY);
    machine.send(data(KEY, 3), b"new");
    assert_eq!(machine.read(&reused, 3), b"new");
    assert!(machine.read(&stream, sent).iter().all(|&byte| byte == 7));
    machine.read_end(&stream);
    assert_eq!(machine.connections(), 1);
}

#[test]
fn a_long_stream_fills_many_buffers_in_order() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let stream = machine.open(&listener, KEY);
    let pattern: Vec<u8> = (0..1_000_000u32).map(|at| (at * 7 + at / 253) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < pattern.len() {
        sent += write_some(&stream, &pattern[sent..]);
        machine.turn();
        while let Some((header, payload)) = machine.receive_now() {
            assert_eq!(header.op, op::RW);
            got.extend(payload);
        }
        let read = got.len() as u32;
        machine.send(Header { fwd_cnt: read, ..packet(KEY, op::CREDIT_UPDATE) }, &[]);
    }
    assert!(got == pattern);
    drop(stream);
    machine.expect(op::SHUTDOWN, shutdown::BOTH);
}

#[test]
fn a_buffer_without_room_among_others_is_skipped() {
    let mut machine = Machine::starved();
    let listener = machine.listen(52);
    machine.send(packet(KEY, op::REQUEST), &[]);
    machine.feed(1);
    machine.expect(op::RESPONSE, 0);
    let (stream, _) = listener.accept().unwrap();
    (&stream).write_all(&[3; 20_000]).unwrap();
    machine.turn();
    machine.add_small();
    machine.add(3);
    machine.add_small();
    machine.feed(10);
    let mut got = 0;
    while got < 20_000 {
        got += machine.receive().1.len();
    }
    assert_eq!(machine.guest.worker.counters().faults, 2);
}

/// Bytes that the device holds for a host program.
fn held(machine: &mut Machine) -> u32 {
    let active = machine.device().active.as_mut().unwrap();
    active.exchange.held().into_iter().max().unwrap_or(0)
}

#[test]
fn a_slow_reader_stops_the_guest_and_costs_no_more_than_was_promised() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let stream = machine.open(&listener, KEY);
    let chunk = [1; 4096];
    let (mut sent, mut told) = (0u32, 0u32);
    while connection::BUFFER - (sent - told) >= 4096 {
        machine.send(data(KEY, 4096), &chunk);
        sent += 4096;
        while let Some((header, _)) = machine.receive_now() {
            told = header.fwd_cnt;
        }
    }
    assert!(held(&mut machine) > connection::BUFFER / 2, "the socket's own buffer is full before");
    machine.expect_silence();
    // "VIRTIO_VSOCK_OP_RW data packets MUST only be transmitted when the peer has sufficient free buffer space for
    // the payload."
    machine.send(packet(KEY, op::CREDIT_REQUEST), &[]);
    assert_eq!(machine.expect(op::CREDIT_UPDATE, 0).fwd_cnt, sent - held(&mut machine));

    machine.read(&stream, sent as usize);
    let news = machine.expect(op::CREDIT_UPDATE, 0);
    assert!(news.fwd_cnt > told && news.buf_alloc == connection::BUFFER);

    while held(&mut machine) < connection::BUFFER {
        let rest = (connection::BUFFER - held(&mut machine)).min(4096) as usize;
        machine.send(data(KEY, rest), &chunk[..rest]);
        while machine.receive_now().is_some() {}
    }
    machine.send(data(KEY, 1), b"!");
    machine.expect(op::RST, 0);
    assert_eq!(machine.guest.worker.counters().faults, 1);
}

#[test]
fn no_more_is_sent_than_the_guest_has_room_for() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    machine.send(Header { buf_alloc: 100, ..packet(KEY, op::REQUEST) }, &[]);
    machine.expect(op::RESPONSE, 0);
    let (stream, _) = listener.accept().unwrap();
    (&stream).write_all(&[5; 250]).unwrap();
    assert_eq!(machine.receive().1.len(), 100);
    machine.expect(op::CREDIT_REQUEST, 0);
    machine.expect_silence();
    let read = |fwd_cnt| Header { buf_alloc: 100, fwd_cnt, ..packet(KEY, op::CREDIT_UPDATE) };
    machine.send(read(60), &[]);
    assert_eq!(machine.receive().1.len(), 60);
    machine.expect(op::CREDIT_REQUEST, 0);
    // A buffer smaller than what is under way, and numbers from nowhere, are no room either.
    machine.send(Header { buf_alloc: 10, ..read(100) }, &[]);
    machine.send(read(5000), &[]);
    machine.expect_silence();
    machine.send(read(160), &[]);
    assert_eq!(machine.receive().1.len(), 90);
}

#[test]
fn a_guest_without_buffers_leaves_data_in_the_socket_and_costs_no_time() {
    let mut machine = Machine::starved();
    let listener = machine.listen(52);
    machine.send(packet(KEY, op::REQUEST), &[]);
    machine.feed(1);
    machine.guest.queues[spec::RX].take_used().expect("the response");
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let count @ 1.. = write_some(&stream, &[9; 4096]) {
        sent += count;
    }
    for _ in 0..3 {
        machine.turn();
    }
    assert_eq!(
        machine.guest.reactor.ready(),
        Vec::<u32>::new(),
        "nothing is left to be announced again and again"
    );
    machine.forget_buffer();
    machine.feed(100);
    let mut got = 0;
    while got < sent {
        let (header, payload) = machine.receive();
        assert_eq!(header.op, op::RW);
        got += payload.len();
    }
    (&stream).write_all(b"more").unwrap();
    assert_eq!(machine.receive().1, b"more");
}

#[test]
fn answers_without_end_hold_the_guest_up_but_not_the_host() {
    let mut machine = Machine::starved();
    for port in 0..500 {
        machine.send(packet(Key { guest_port: port, host_port: 1 }, op::RW), &[]);
    }
    let active = machine.device().active.as_mut().unwrap();
    assert!(active.held && active.exchange.congested());
    machine.feed(100);
    for port in 0..500 {
        assert_eq!(machine.expect(op::RST, 0).dst_port, port);
    }
    machine.expect_silence();
}

#[test]
fn packets_of_unknown_connections_and_unknown_kinds_are_reset() {
    let mut machine = Machine::new();
    for op in [0, op::RESPONSE, op::SHUTDOWN, op::RW, op::CREDIT_UPDATE, op::CREDIT_REQUEST, 8, u16::MAX] {
        machine.send(packet(KEY, op), &[]);
        let reset = machine.expect(op::RST, 0);
        assert_eq!((reset.src_port, reset.dst_port), (52, 1000));
    }
    // "A VIRTIO_VSOCK_OP_RST reply MUST be sent if a packet is received with an unknown type value."
    machine.send(Header { kind: 7, ..packet(KEY, op::REQUEST) }, &[]);
    let (reset, _) = machine.receive();
    assert_eq!((reset.op, reset.kind), (op::RST, 7));
    // Of these no answer would come to an end.
    machine.send(packet(KEY, op::RST), &[]);
    machine.send(Header { kind: 7, ..packet(KEY, op::RST) }, &[]);
    machine.send(Header { dst_cid: 3, ..packet(KEY, op::REQUEST) }, &[]);
    machine.send(Header { src_cid: 4, ..packet(KEY, op::REQUEST) }, &[]);
    machine.send(Header { src_cid: CID | 1 << 32, ..packet(KEY, op::REQUEST) }, &[]);
    machine.expect_silence();
}

#[test]
fn what_does_not_belong_into_an_open_connection_resets_it() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let ended = Header { flags: shutdown::SEND, ..packet(KEY, op::SHUTDOWN) };
    let wrong = [
        vec![packet(KEY, op::REQUEST)],
        vec![packet(KEY, op::RESPONSE)],
        vec![packet(KEY, 8)],
        vec![data(KEY, 10)],
        vec![ended, packet(KEY, op::RW)],
    ];
    for (packets, faults) in wrong.into_iter().zip(1..) {
        let stream = machine.open(&listener, KEY);
        for header in packets {
            machine.send(header, &[]);
        }
        machine.expect(op::RST, 0);
        machine.read_end(&stream);
        assert_eq!(machine.guest.worker.counters().faults, faults);
    }
    assert!(!machine.guest.needs_reset());
}

#[test]
fn headers_and_payload_may_be_split_anywhere() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let stream = machine.open(&listener, KEY);
    let mut bytes = data(KEY, 10).to_bytes().to_vec();
    bytes.extend(b"0123456789");
    let queue = &mut machine.guest.queues[spec::TX];
    let address = queue.allocate(bytes.len() as u32);
    queue.write(address, &bytes);
    let pieces: Vec<_> = (0..bytes.len() as u64)
        .map(|at| Descriptor { address: address + at, length: 1, flags: NEXT, next: 0 })
        .chain([Descriptor::default()])
        .collect();
    queue.add_indirect(&pieces);
    machine.guest.notify(spec::TX);
    assert_eq!(machine.read(&stream, 10), b"0123456789");
    assert_eq!(machine.guest.worker.counters().faults, 0);
}

#[test]
fn packets_that_are_too_short_and_buffers_that_are_too_small_come_back() {
    let mut machine = Machine::starved();
    machine.guest.send(spec::TX, &[Buffer::Readable(&[0; 43])]);
    assert!(machine.guest.queues[spec::TX].take_used().is_some());
    machine.guest.send(spec::TX, &[Buffer::Writable(100)]);
    assert_eq!(machine.guest.queues[spec::TX].take_used().map(|(_, written)| written), Some(0));
    machine.send(packet(KEY, op::REQUEST), &[]);
    machine.guest.send(spec::RX, &[Buffer::Writable(44)]);
    machine.guest.send(spec::RX, &[Buffer::Readable(&[0; 100])]);
    for _ in 0..2 {
        assert_eq!(machine.guest.queues[spec::RX].take_used().map(|(_, written)| written), Some(0));
    }
    assert_eq!(machine.guest.worker.counters().faults, 4);
    machine.feed(1);
    machine.expect(op::RST, 0);
}

#[test]
fn a_reset_closes_everything_and_the_next_driver_finds_it_empty() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let streams: Vec<_> =
        (0..20).map(|guest_port| machine.open(&listener, Key { guest_port, host_port: 52 })).collect();
    machine.guest.reset();
    for stream in &streams {
        machine.read_end(stream);
    }
    assert_eq!(machine.guest.reactor.watched(), []);
    assert_eq!(machine.guest.reactor.timer(), None);
    let waiting = machine.connect();
    (&waiting).write_all(b"CONNECT 9\n").unwrap();
    machine.set_up_again();
    assert_eq!(machine.expect(op::REQUEST, 0).dst_port, 9);
}

#[test]
fn a_spoilt_queue_closes_everything() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let stream = machine.open(&listener, KEY);
    machine.guest.queues[spec::TX].make_available(u16::MAX);
    machine.guest.notify(spec::TX);
    assert!(machine.guest.needs_reset());
    machine.read_end(&stream);
    assert_eq!(machine.guest.reactor.watched(), []);
}

#[test]
fn after_a_transport_reset_the_guest_is_told_once() {
    let mut machine = Machine::new();
    let listener = machine.listen(52);
    let stream = machine.open(&listener, KEY);
    machine.device().transport_reset();
    machine.read_end(&stream);
    assert!(machine.guest.queues[spec::EVENT].take_used().is_none(), "there is no buffer yet");
    machine.guest.send(spec::EVENT, &[Buffer::Writable(2)]);
    let addresses = machine.guest.send(spec::EVENT, &[Buffer::Writable(4)]);
    machine.guest.send(spec::EVENT, &[Buffer::Writable(4)]);
    let mut used = || machine.guest.queues[spec::EVENT].take_used().map(|(_, written)| written);
    assert_eq!((used(), used(), used()), (Some(0), Some(4), None));
    assert_eq!(machine.guest.queues[spec::EVENT].read(addresses[0], 4), [0; 4]);
    machine.expect_silence();
    machine.open(&listener, KEY);
}

#[test]
fn the_configuration_holds_the_cid() {
    let mut machine = Machine::new();
    assert_eq!(machine.guest.config(0, 8), CID.to_le_bytes());
    assert_eq!(machine.guest.offered() & 0xff, spec::FEATURE_STREAM);
}

#[test]
fn the_socket_file_goes_with_the_device_unless_it_is_anothers() {
    let directory = tempfile::tempdir().unwrap();
    let uds = directory.path().join("v");
    let device = || Vsock::new(VsockOptions { cid: 3, uds: uds.clone() });
    let first = device().unwrap();
    let error = device().err().unwrap().to_string();
    assert_eq!(
        error,
        format!(
            "the vsock socket {} exists; if no other machine uses it, remove it, or choose another path",
            uds.display()
        )
    );
    assert!(uds.exists(), "it is not the second device's to remove");
    std::fs::remove_file(&uds).unwrap();
    let second = device().unwrap();
    drop(first);
    assert!(uds.exists(), "nor is it the first one's any more");
    drop(second);
    assert!(!uds.exists());
}

#[test]
fn options_that_cannot_be_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |cid, name: &str| {
        Vsock::new(VsockOptions { cid, uds: directory.path().join(name) })
            .err()
            .map(|error| error.to_string())
    };
    for cid in [0, 2, u64::from(u32::MAX), 1 << 32] {
        assert!(refused(cid, "v").unwrap().contains("use one from 3 to 4294967294"));
    }
    assert!(refused(3, &"x".repeat(100)).unwrap().contains("at most 96 bytes"));
    assert!(refused(3, "none/v").unwrap().contains("create it first"));
    assert_eq!(refused(u64::from(u32::MAX) - 1, "v"), None);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "nothing is left behind");
}
