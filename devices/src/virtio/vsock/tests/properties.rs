//! What holds whatever the guest and the host programs send.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use proptest::collection::vec;
use proptest::prelude::*;
use virtio_queue::{QueueOwnedT, QueueT};
use virtio_vsock::packet::{PKT_HEADER_SIZE, VsockPacket};
use vm_memory::GuestAddress;

use super::super::connection::{BUFFER, Connection, Next, Reaction};
use super::super::greeting::{Greeted, Greeting, parse};
use super::super::packet::{Header, Key};
use super::super::spec::{RX, TX, op, shutdown};
use super::super::table::Table;
use super::machine::{Machine, ROOM};
use crate::testkit::{self, Buffer, DriverQueue};

prop_compose! {
    fn any_header()(
        cids: (u64, u64), ports: (u32, u32), len: u32, kind: u16, op: u16, flags: u32, credit: (u32, u32)
    ) -> Header {
        Header {
            src_cid: cids.0, dst_cid: cids.1, src_port: ports.0, dst_port: ports.1, len, kind, op, flags,
            buf_alloc: credit.0, fwd_cnt: credit.1,
        }
    }
}

prop_compose! {
    /// A header that is right but for a field here and there.
    fn likely_header()(
        src_cid in prop_oneof![20 => Just(3), 1 => any::<u64>()],
        dst_cid in prop_oneof![20 => Just(2), 1 => any::<u64>()],
        src_port in 0u32..4,
        dst_port in prop_oneof![3 => 80u32..82, 2 => (1u32 << 30)..(1 << 30) + 4, 1 => any::<u32>()],
        len in prop_oneof![3 => 0u32..5000, 1 => any::<u32>()],
        kind in prop_oneof![20 => Just(1), 1 => any::<u16>()],
        op in prop_oneof![2 => Just(op::REQUEST), 2 => Just(op::RESPONSE), 8 => Just(op::RW), 1 => 0u16..9],
        flags in prop_oneof![0u32..4, any::<u32>()],
        buf_alloc in prop_oneof![Just(ROOM), 0u32..100, any::<u32>()],
        fwd_cnt in prop_oneof![3 => Just(0), 1 => any::<u32>()],
    ) -> Header {
        Header { src_cid, dst_cid, src_port, dst_port, len, kind, op, flags, buf_alloc, fwd_cnt }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The guest sends this header, with so much payload.
    Packet(Header, usize),
    /// The guest gives so many buffers.
    Feed(usize),
    /// A host program connects and says this.
    Connect(String),
    /// The host program with this number writes, reads, shuts a direction or ends.
    Write(usize, usize),
    Read(usize),
    Shut(usize, bool),
    Drop(usize),
    /// So many seconds pass.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let line =
        prop_oneof![Just("CONNECT 1\n".to_owned()), Just("CONNECT 2\nmore".to_owned()), "[A-Z 0-9\n]{0,40}"];
    prop_oneof![
        12 => (likely_header(), 0usize..5000).prop_map(|(header, length)| Step::Packet(header, length)),
        3 => (1usize..10).prop_map(Step::Feed),
        2 => line.prop_map(Step::Connect),
        3 => (0usize..8, 1usize..20_000).prop_map(|(who, length)| Step::Write(who, length)),
        3 => (0usize..8).prop_map(Step::Read),
        1 => (0usize..8, any::<bool>()).prop_map(|(who, write)| Step::Shut(who, write)),
        1 => (0usize..8).prop_map(Step::Drop),
        1 => (0u64..12).prop_map(Step::Pass),
    ]
}

struct Host {
    listeners: Vec<std::os::unix::net::UnixListener>,
    streams: Vec<UnixStream>,
}

impl Host {
    fn stream(&self, who: usize) -> Option<&UnixStream> {
        self.streams.get(who % self.streams.len().max(1))
    }

    fn act(&mut self, machine: &mut Machine, step: Step) {
        match step {
            Step::Packet(header, length) => {
                // Half of the packets tell the truth about their length.
                let header = if length % 2 == 0 { Header { len: length as u32, ..header } } else { header };
                machine.send(header, &vec![0xa5; length]);
            }
            Step::Feed(count) => machine.feed(count),
            Step::Connect(line) => {
                let stream = machine.connect();
                let _ = (&stream).write_all(line.as_bytes());
                self.streams.push(stream);
            }
            Step::Write(who, length) => {
                let _ = self.stream(who).map(|mut stream| stream.write(&vec![0x5a; length]));
            }
            Step::Read(who) => {
                let _ = self.stream(who).map(|mut stream| stream.read(&mut [0; 10_000]));
            }
            Step::Shut(who, write) => {
                let how = if write { std::net::Shutdown::Write } else { std::net::Shutdown::Read };
                let _ = self.stream(who).map(|stream| stream.shutdown(how));
            }
            Step::Drop(who) if who < self.streams.len() => drop(self.streams.swap_remove(who)),
            Step::Drop(_) => {}
            Step::Pass(seconds) => machine.pass(std::time::Duration::from_secs(seconds)),
        }
        for listener in &self.listeners {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).unwrap();
                self.streams.push(stream);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sent_the_device_keeps_its_bounds_and_comes_to_rest(steps in vec(step(), 1..60)) {
        let mut machine = Machine::starved();
        let mut host = Host { listeners: vec![machine.listen(80), machine.listen(81)], streams: Vec::new() };
        for listener in &host.listeners {
            listener.set_nonblocking(true).unwrap();
        }
        for step in steps {
            host.act(&mut machine, step);
            machine.turn();
            let exchange = &machine.device().active.as_ref().unwrap().exchange;
            prop_assert!(exchange.held().iter().all(|&held| held <= BUFFER));
            // Taken, but not the buffers' contents: the guest need not look.
            while machine.guest.queues[RX].take_used().is_some() {
                machine.forget_buffer();
            }
            while machine.guest.queues[TX].take_used().is_some() {}
        }
        for _ in 0..5 {
            machine.turn();
        }
        prop_assert_eq!(machine.guest.reactor.ready(), Vec::<u32>::new(), "nothing is announced for ever");
        prop_assert!(!machine.guest.needs_reset());
        machine.guest.reset();
        prop_assert_eq!(machine.guest.reactor.watched(), vec![]);
    }
}

proptest! {
    #[test]
    fn headers_are_what_the_virtio_vsock_crate_reads_in_them(header in any_header()) {
        let header = Header { len: header.len % 100, ..header };
        prop_assert_eq!(Header::SIZE, PKT_HEADER_SIZE);
        prop_assert_eq!(Header::from_bytes(&header.to_bytes()), header);
        let memory = testkit::memory();
        let mut driver = DriverQueue::new(memory.clone(), DriverQueue::ARENA, 16);
        driver.add(&[Buffer::Readable(&header.to_bytes()), Buffer::Readable(&[0; 100])]);
        let mut queue = virtio_queue::Queue::new(16).unwrap();
        queue.try_set_desc_table_address(GuestAddress(driver.descriptors())).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(driver.available())).unwrap();
        queue.try_set_used_ring_address(GuestAddress(driver.used())).unwrap();
        queue.set_ready(true);
        let mut chain = queue.iter(&memory).unwrap().next().unwrap();
        let packet = VsockPacket::from_tx_virtq_chain(&memory, &mut chain, 100).unwrap();
        let read = Header {
            src_cid: packet.src_cid(), dst_cid: packet.dst_cid(),
            src_port: packet.src_port(), dst_port: packet.dst_port(), len: packet.len(), kind: packet.type_(), op: packet.op(), flags: packet.flags(),
            buf_alloc: packet.buf_alloc(), fwd_cnt: packet.fwd_cnt(),
        };
        prop_assert_eq!(read, header);
    }

    /// "buf_alloc" and "fwd_cnt" of either side bound what the other may have under way (section 5.10.6.3).
    #[test]
    fn a_connection_never_takes_or_sends_more_than_there_is_credit(
        packets in vec((likely_header(), any::<bool>(), 0u32..10_000), 1..200)
    ) {
        let mut connection = Connection::granted(&Header { buf_alloc: 1000, ..Header::default() });
        let mut under_way = 0u32;
        let mut room = 1000u32;
        for (header, readable, amount) in packets {
            let reaction = connection.receive(&header);
            if header.op != op::RST {
                room = header.buf_alloc.saturating_sub(under_way.wrapping_sub(header.fwd_cnt));
            }
            prop_assert!(connection.held() <= BUFFER);
            if reaction == Reaction::Payload {
                connection.forward(amount as usize);
            }
            match connection.next(readable) {
                None => {}
                Some(Next::Control(op, flags)) => {
                    connection.send(op, flags, 0);
                }
                Some(Next::Payload(credit)) => {
                    prop_assert!(readable && 0 < credit && credit <= room);
                    let length = credit.min(amount + 1);
                    connection.send(op::RW, 0, length);
                    under_way = under_way.wrapping_add(length);
                    room -= length;
                }
            }
            // What is owed ends: otherwise the guest would get packets for ever.
            for _ in 0..8 {
                if let Some(Next::Control(op, flags)) = connection.next(false) {
                    connection.send(op, flags, 0);
                }
            }
            prop_assert_eq!(connection.next(false), None);
            if reaction == Reaction::Finished {
                prop_assert!(!connection.guest_sends() && !connection.guest_receives());
            }
            connection.shut_host(header.flags & shutdown::SEND);
        }
    }

    #[test]
    fn a_greeting_is_one_line_and_nothing_else(line in "[ -~]{0,40}", port in any::<u32>(), end in "\r?") {
        let _ = parse(line.as_bytes());
        let expected = (port != u32::MAX).then_some(port);
        prop_assert_eq!(parse(format!("CONNECT {port}{end}").as_bytes()), expected);
        prop_assert_eq!(parse(format!("CONNECT {port} x").as_bytes()), None);
        prop_assert_eq!(parse(format!("CONNECT {port}x").as_bytes()), None);
        prop_assert_eq!(parse(format!("CONNECT +{port}").as_bytes()), None);
    }

    #[test]
    fn a_greeting_is_read_as_it_comes_and_nothing_after_it(
        bytes in vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'1')], 0..100), cuts in vec(1usize..10, 1..100)
    ) {
        let (mut client, device) = UnixStream::pair().unwrap();
        device.set_nonblocking(true).unwrap();
        let mut sent = b"CONNECT 1".to_vec();
        sent.extend(&bytes);
        let mut greeting = Greeting::default();
        let (mut rest, mut cuts) = (sent.as_slice(), cuts.into_iter().cycle());
        let mut greeted = Greeted::NotYet;
        while greeted == Greeted::NotYet && !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            client.write_all(now).unwrap();
            rest = later;
            greeted = greeting.read(device.as_fd());
        }
        client.write_all(rest).unwrap();
        let line = sent.iter().take(32).position(|&byte| byte == b'\n');
        let expected = match line {
            Some(end) => parse(&sent[..end]).map_or(Greeted::Garbage, Greeted::Port),
            None if sent.len() >= 32 => Greeted::Garbage,
            None => Greeted::NotYet,
        };
        prop_assert_eq!(greeted, expected);
        if let Greeted::Port(_) = greeted {
            drop(client);
            let mut after = Vec::new();
            (&device).read_to_end(&mut after).unwrap();
            prop_assert_eq!(after.as_slice(), &sent[line.unwrap() + 1..]);
        }
    }

    #[test]
    fn a_table_gives_back_what_was_put_in_and_nothing_that_is_gone(steps in vec((0u8..5, 0usize..8), 1..200)) {
        let mut table = Table::new();
        let mut live: Vec<(u32, usize)> = Vec::new();
        let mut gone: Vec<u32> = Vec::new();
        let (mut urgent_line, mut ordinary) = (Vec::new(), Vec::new());
        for (number, (step, who)) in steps.into_iter().enumerate() {
            match (step, live.get(who).copied()) {
                (0, _) => {
                    let token = table.insert(number).unwrap();
                    table.bind(token, Key { guest_port: number as u32, host_port: 0 });
                    live.push((token, number));
                }
                (1, Some((token, value))) => {
                    prop_assert_eq!(table.remove(token), Some(value));
                    live.swap_remove(who);
                    urgent_line.retain(|&other| other != token);
                    ordinary.retain(|&other| other != token);
                    gone.push(token);
                }
                (2 | 3, Some((token, _))) => {
                    let urgent = step == 3;
                    let moves = urgent && ordinary.contains(&token);
                    ordinary.retain(|&other| !moves || other != token);
                    if !urgent_line.contains(&token) && !ordinary.contains(&token) {
                        (if urgent { &mut urgent_line } else { &mut ordinary }).push(token);
                    }
                    table.queue(token, urgent);
                }
                (4, _) => {
                    let line = if urgent_line.is_empty() { &mut ordinary } else { &mut urgent_line };
                    let first = (!line.is_empty()).then(|| line.remove(0));
                    prop_assert_eq!(table.next_turn(), first);
                }
                _ => {}
            }
            prop_assert_eq!(table.anybody_waits(), !urgent_line.is_empty() || !ordinary.is_empty());
            prop_assert_eq!(table.only_one_waiting().is_some(), urgent_line.len() + ordinary.len() == 1);
            for &(token, value) in &live {
                prop_assert_eq!(table.get_mut(token).copied(), Some(value));
                let key = Key { guest_port: value as u32, host_port: 0 };
                prop_assert_eq!((table.find(key), table.key(token)), (Some(token), Some(key)));
            }
            for &token in &gone {
                prop_assert_eq!(table.get_mut(token), None);
            }
            prop_assert_eq!(table.iter().count(), live.len());
        }
    }
}
