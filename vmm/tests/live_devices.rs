//! Devices that are changed while their machine runs, through the library.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod support;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::rate_limiter::{Limit, RateLimits};
use devices::virtio::balloon::Balloon;
use devices::virtio::block::Block;
use support::PATIENCE;
use vmm::config::{Disk, VmConfig};
use vmm::console::{ConsoleOutput, Sink};
use vmm::device_host::DeviceHost;
use vmm::event_loop::{EventLoop, Interest, Waker};
use vmm::machine::{self, Machine, Shared};
use vmm::outcome::Outcome;
use vmm::timeline::Timeline;

const WAKE: u64 = 0;

/// A machine, and the loop that a session would have.
struct Vm {
    machine: Machine,
    devices: DeviceHost,
    events: EventLoop,
    wake: Waker,
    // It outlives the machine, which writes to it.
    _output: std::io::PipeReader,
}

impl Vm {
    fn start(config: &VmConfig) -> Self {
        let (output, writer) = std::io::pipe().unwrap();
        let (timeline, wake) = (Arc::<Timeline>::default(), Waker::new().unwrap());
        let sink = Sink::new(OwnedFd::from(writer)).unwrap();
        let console = Arc::new(ConsoleOutput::new(sink, wake.clone(), Arc::clone(&timeline)));
        let shared = Arc::new(Shared::new(timeline, wake.clone(), None));
        let mut machine = machine::build(config, console, shared).unwrap();
        let events = EventLoop::new().unwrap();
        events.add(&wake, WAKE, Interest::Read).unwrap();
        let devices = machine.serve_devices(&events).unwrap();
        machine.start().unwrap();
        Self { machine, devices, events, wake, _output: output }
    }

    /// Serves the devices for so long, or until the guest has ended.
    fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && self.machine.ending().is_none() {
            let deadline = self.devices.next_deadline().map_or(end, |at| at.min(end));
            let (devices, mut woken) = (&mut self.devices, false);
            let take = |token| {
                woken |= token == WAKE;
                devices.event(token);
            };
            self.events.wait(Some(deadline), take).unwrap();
            if woken {
                self.wake.acknowledge();
                self.devices.woken();
            }
            self.devices.expire();
        }
    }
}

/// What `verify=1` expects: 64-bit words, each its own index.
fn image(path: &Path) {
    let words: Vec<u8> = (0u64..1 << 17).flat_map(u64::to_le_bytes).collect();
    std::fs::write(path, words).unwrap();
}

fn a_second(operations: u64) -> RateLimits {
    let operations = Limit { size: operations, refill_ms: 1000, burst: 0 };
    RateLimits { bandwidth: None, operations: Some(operations) }
}

#[test]
fn a_disk_is_limited_exchanged_and_let_go_while_its_guest_reads() {
    need_kvm!();
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    image(&first);
    image(&second);
    // Without a change this would take half an hour.
    let config = VmConfig {
        cmdline: boot::Cmdline::new("mode=blk op=read verify=1 depth=8 n=90000").unwrap(),
        disks: vec![Disk { limits: a_second(50), ..Disk::new(&first) }],
        ..VmConfig::default()
    };
    let mut vm = Vm::start(&config);
    vm.run(Duration::from_millis(300));
    assert!(vm.machine.ending().is_none(), "the limit holds: {:?}", vm.machine.ending());

    assert!(vm.devices.with_device(0, |_: &mut Balloon| ()).is_none(), "it is a disk");
    assert!(vm.devices.with_device(1, |_: &mut Block| ()).is_none(), "there is one");
    let missing = directory.path().join("missing");
    let refused = vm.devices.with_device(0, |disk: &mut Block| disk.replace_backing(&missing)).unwrap();
    assert!(refused.unwrap_err().to_string().contains("missing"));
    vm.devices.with_device(0, |disk: &mut Block| disk.replace_backing(&second)).unwrap().unwrap();
    // Whoever still reads the first one gets errors from now on.
    File::create(&first).unwrap();
    vm.devices.with_device(0, |disk: &mut Block| disk.set_limits(RateLimits::default())).unwrap();
    vm.run(PATIENCE);
    let ending = vm.machine.ending().expect("the guest has ended");
    assert_eq!((ending.outcome, ending.guest_status.unwrap_or(0)), (Outcome::PowerOff, 0), "{ending:?}");
}
