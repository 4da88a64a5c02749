//! Real TAP devices: in a network namespace of the test's own, or as far as one comes without.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::process::Command;

use super::*;

/// Set in the test that runs inside the namespace.
const INSIDE: &str = "MOTE_TEST_NAMESPACE";

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 42];
const PORT: u16 = 7000;

fn error(source: TapSource) -> String {
    Tap::open(source).expect_err("no TAP device").to_string()
}

#[test]
fn what_is_no_tap_is_named_with_the_cure() {
    let name = "nosuchinterface";
    let text = error(TapSource::Name(name.to_owned()));
    assert!(
        text.starts_with(r#"there is no network interface "nosuchinterface" here: make it with `ip tuntap"#),
        "{text}"
    );
    for name in ["", "a name that is longer than that of any interface", "a\0b", "tap%d", "../tap0", "\n"] {
        assert!(
            matches!(Tap::open(TapSource::Name(name.to_owned())), Err(NetError::NoInterface(_))),
            "{name:?}"
        );
        assert!(!error(TapSource::Name(name.to_owned())).contains('\n'), "one line");
    }
    let null = File::open("/dev/null").expect("a device of another kind");
    let text = error(TapSource::Descriptor(null.into()));
    assert!(text.starts_with("the descriptor is not a TAP device"), "{text}");
}

/// Runs this test once more, in namespaces where it is root and nobody else is; says why if that is not possible.
fn run_inside(test: &str) {
    let own = std::env::current_exe().expect("this program");
    let mut inside = Command::new("unshare");
    inside.args(["--map-root-user", "--net", "--"]).arg(own);
    inside.args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    match inside.output() {
        Err(error) => println!("SKIPPED: {test}: cannot run unshare: {error}"),
        Ok(output) => {
            let stdout = String::from_utf8_lossy(&output.stdout);
            let stderr = String::from_utf8_lossy(&output.stderr);
            if let Some(line) = stdout.lines().find(|line| line.starts_with("SKIPPED")) {
                println!("{line}");
            } else if stderr.starts_with("unshare: ") {
                println!("SKIPPED: {test}: {}", stderr.trim_end());
            } else {
                assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}{stderr}");
            }
        }
    }
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
}

/// A guest on a TAP device, talking to the host's own network stack: ARP, then UDP both ways.
#[test]
fn a_guest_talks_to_the_host_through_a_tap() {
    let test = "virtio::net::tests::interface::a_guest_talks_to_the_host_through_a_tap";
    if std::env::var_os(INSIDE).is_none() {
        return run_inside(test);
    }
    if !ip("tuntap add dev mote0 mode tap") {
        println!("SKIPPED: {test}: no TAP device can be made here");
        return;
    }
    assert!(ip("address add 192.0.2.1/24 dev mote0") && ip("link set mote0 up"));
    refusals();

    let options = NetOptions { mac: Some(MacAddress::new(MAC).unwrap()), ..NetOptions::default() };
    let net = Net::open(TapSource::Name("mote0".to_owned()), options).expect("the TAP device made above");
    assert_eq!(
        error(TapSource::Name("mote0".to_owned())),
        "the TAP device mote0 is in use by another process: each machine needs one of its own"
    );
    let mut guest = Guest::new(Box::new(net));
    guest.set_up(ALL);
    let mut posted = Posted::default();
    for _ in 0..60 {
        posted.post(&mut guest, &[USUAL]);
    }
    guest.notify(RX);

    let reply = await_reply(&mut guest, &mut posted);
    let host_mac: [u8; 6] = reply[18..24].try_into().unwrap();
    assert_eq!(reply[12..18], MAC, "the answer is for the one who asked");

    let socket = UdpSocket::bind((HOST, PORT)).expect("the address given above");
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let packet = datagram(host_mac, b"from the guest");
    let bytewise: Vec<_> = packet.chunks(1).map(Buffer::Readable).collect();
    guest.send(TX, &bytewise);
    let mut bytes = [0; 100];
    let (length, from) = socket.recv_from(&mut bytes).expect("the guest's datagram");
    assert_eq!((&bytes[..length], from), (&b"from the guest"[..], (GUEST, PORT).into()));

    socket.send_to(b"from the host", from).unwrap();
    let frame = await_frame(&mut guest, &mut posted, |frame| frame.ends_with(b"from the host"));
    assert_eq!(
        frame[header::FLAGS],
        header::NEEDS_CSUM,
        "the checksum is left to the driver, which has offered it"
    );
    assert_eq!(frame[header::NUM_BUFFERS..header::LENGTH], [1, 0]);

    large_segments(&mut guest, &mut posted, host_mac);

    // A header that makes no sense: the checksum lies behind the end.
    let mut wrong = datagram(host_mac, b"never");
    wrong[6..8].copy_from_slice(&60_000u16.to_le_bytes());
    guest.send(TX, &[Buffer::Readable(&wrong)]);
    assert_eq!(guest.worker.counters().faults, 1);
    assert!(!guest.needs_reset());

    // The interface goes down: frames are lost, the device is not.
    assert!(ip("link set mote0 down"));
    while guest.queues[TX].take_used().is_some() {}
    guest.send(TX, &[Buffer::Readable(&arp_request())]);
    assert_eq!(guest.worker.counters().faults, 1);
    assert!(guest.queues[TX].take_used().is_some());
}

/// TCP to the guest: the driver took GUEST_TSO4, so what the host sends in one go comes as one frame in many buffers.
fn large_segments(guest: &mut Guest, posted: &mut Posted, host_mac: [u8; 6]) {
    let sender = std::thread::spawn(|| {
        let mut stream = TcpStream::connect((GUEST, PORT)).expect("the handshake below");
        stream.write_all(&[0x5a; 10_000]).expect("room in the socket");
    });
    // From the Ethernet header on: 14 + 20 bytes, then ports, sequence number and so on.
    let tcp = |frame: &[u8]| frame.get(24..26) == Some(&[8, 0]) && frame.get(35) == Some(&6);
    let syn = await_frame(guest, posted, |frame| tcp(frame) && frame[59] == 2);
    let sequence = u32::from_be_bytes(syn[50..54].try_into().unwrap());
    let host_port = [syn[46], syn[47]];
    let mut answer = [&PORT.to_be_bytes()[..], &host_port, &[0; 4], &(sequence + 1).to_be_bytes()].concat();
    // Six words with the one option, a segment size of 1460; SYN and ACK; the largest window.
    answer.extend([0x60, 0x12, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4]);
    guest.send(TX, &[Buffer::Readable(&packet(host_mac, 6, 16, &answer))]);

    // How much of it, is up to the host's congestion control.
    let large = await_frame(guest, posted, |frame| tcp(frame) && frame.len() > USUAL as usize);
    assert_eq!(large[header::GSO_TYPE], header::GSO_TCPV4);
    let buffers = large.len().div_ceil(USUAL as usize) as u16;
    assert_eq!(large[header::NUM_BUFFERS..header::LENGTH], buffers.to_le_bytes());
    assert!(large[66..].iter().all(|&byte| byte == 0x5a));
    sender.join().expect("all was sent");
}

/// What is not as it should be, inside the namespace.
fn refusals() {
    let text = error(TapSource::Name("lo".to_owned()));
    assert!(text.starts_with("lo is not a TAP device that can be used"), "{text}");
    assert!(ip("tuntap add dev mote1 mode tap multi_queue"));
    let text = error(TapSource::Name("mote1".to_owned()));
    assert!(text.starts_with("mote1 is not a TAP device that can be used"), "{text}");

    let open = |flags| {
        let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
        crate::virtio::io::tap::attach(file.as_fd(), "mote2", flags).unwrap();
        OwnedFd::from(file)
    };
    let text = error(TapSource::Descriptor(open((libc::IFF_TAP | libc::IFF_NO_PI) as u16)));
    assert!(text.starts_with("the TAP descriptor has the flags 0x1002"), "{text}");
    let sound = open((libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u16);
    let tap = Tap::open(TapSource::Descriptor(sound)).expect("a TAP as it should be");
    let flags = rustix::fs::fcntl_getfl(&tap).unwrap();
    assert!(flags.contains(rustix::fs::OFlags::NONBLOCK), "a read of no frame must not wait");
    for features in [0, feature::GUEST_CSUM, ALL, ALL & !feature::GUEST_CSUM] {
        tap.set_features(features).expect("every set of features that a driver may choose");
    }
}

/// What the host answers to [`arp_request`]. For a second after somebody has opened a TAP device, the host
/// may send nothing there.
fn await_reply(guest: &mut Guest, posted: &mut Posted) -> Vec<u8> {
    for _ in 0..50 {
        guest.send(TX, &[Buffer::Readable(&arp_request())]);
        let reply = poll_frame(guest, posted, |frame| frame[24..26] == [8, 6] && frame[33] == 2, 100);
        if let Some(reply) = reply {
            return reply;
        }
    }
    panic!("the host does not answer");
}

/// The first frame that arrives within five seconds and is `wanted`; others, which every network has, are left.
fn await_frame(guest: &mut Guest, posted: &mut Posted, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    poll_frame(guest, posted, wanted, 5000).expect("the frame came")
}

fn poll_frame(
    guest: &mut Guest,
    posted: &mut Posted,
    wanted: impl Fn(&[u8]) -> bool,
    milliseconds: u64,
) -> Option<Vec<u8>> {
    let deadline = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < deadline {
        guest.worker.backend_event(WIRE);
        while let Some(frame) = posted.take(guest) {
            if wanted(&frame) {
                return Some(frame);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// Who has [`HOST`]? Tell [`GUEST`] (RFC 826).
fn arp_request() -> Vec<u8> {
    let mut frame = vec![0; header::LENGTH];
    frame.extend([0xff; 6]);
    frame.extend(MAC);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(MAC);
    frame.extend(GUEST.octets());
    frame.extend([0; 6]);
    frame.extend(HOST.octets());
    frame
}

/// A UDP datagram to [`HOST`] whose checksum is left to the device.
fn datagram(host_mac: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let header = [PORT.to_be_bytes(), PORT.to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
    packet(host_mac, 17, 6, &[&header, payload].concat())
}

/// An IPv4 packet to [`HOST`] of `protocol`, with a checksum `checksum_offset` bytes into its `payload` that
/// is left to the device.
fn packet(host_mac: [u8; 6], protocol: u8, checksum_offset: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend(GUEST.octets());
    packet.extend(HOST.octets());
    let checksum = internet_checksum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = vec![header::NEEDS_CSUM, header::GSO_NONE, 0, 0, 0, 0, 34, 0, checksum_offset, 0, 0, 0];
    frame.extend(host_mac);
    frame.extend(MAC);
    frame.extend([8, 0]);
    frame.extend(packet);
    frame.extend(payload);
    frame
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}
