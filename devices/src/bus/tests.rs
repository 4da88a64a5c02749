use proptest::prelude::*;

use super::*;

/// Eight bytes of memory. It refuses a 4-byte access, and with a write to offset 7 its interrupt is lost.
struct Memory([u8; 8]);

impl Device for Memory {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), IoError> {
        if data.len() == 4 {
            data.fill(0);
            return Err(IoError::Width(4));
        }
        let offset = usize::try_from(offset).unwrap();
        data.copy_from_slice(&self.0[offset..offset + data.len()]);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<Action, IoError> {
        let offset = usize::try_from(offset).unwrap();
        self.0[offset..offset + data.len()].copy_from_slice(data);
        if offset == 7 {
            Err(IoError::Interrupt(std::io::ErrorKind::Other.into()))
        } else {
            Ok(Action::Reset)
        }
    }
}

fn memory() -> Arc<Mutex<dyn Device>> {
    Arc::new(Mutex::new(Memory([0, 1, 2, 3, 4, 5, 6, 7])))
}

/// Memory at 0x100 and 0x108, and at the last addresses there are.
fn bus() -> Bus {
    let mut bus = Bus::new();
    for base in [0x108, 0x100, u64::MAX - 7] {
        bus.insert(base, 8, memory()).unwrap();
    }
    bus
}

fn read(bus: &Bus, address: u64, width: usize) -> Vec<u8> {
    let mut data = vec![0; width];
    bus.read(address, &mut data);
    data
}

#[test]
fn accesses_reach_their_device() {
    let bus = bus();
    assert_eq!(read(&bus, 0x100, 1), [0]);
    assert_eq!(read(&bus, 0x10e, 2), [6, 7]);
    assert_eq!(read(&bus, u64::MAX - 7, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(read(&bus, u64::MAX, 1), [7]);
    assert_eq!(bus.write(0x101, &[9, 9]), Action::Reset);
    assert_eq!(read(&bus, 0x100, 8), [0, 9, 9, 3, 4, 5, 6, 7]);
    assert_eq!(bus.counters(), BusCounters::default());
}

#[test]
fn what_no_device_answers_reads_as_ones() {
    let bus = bus();
    for address in [0, 0xff, 0x110, u64::MAX - 8] {
        assert_eq!(read(&bus, address, 1), [0xff], "{address:#x}");
        assert_eq!(bus.write(address, &[0]), Action::Continue);
    }
    assert_eq!(bus.counters(), BusCounters { unclaimed: 8, ..Default::default() });
}

#[test]
fn an_access_must_end_where_it_begins() {
    let bus = bus();
    for (address, width) in [(0x107, 2), (0x101, 8), (0x10f, 2), (u64::MAX, 2), (u64::MAX - 6, 8)] {
        assert_eq!(read(&bus, address, width), vec![0xff; width], "{width} bytes at {address:#x}");
        assert_eq!(bus.write(address, &vec![0; width]), Action::Continue);
    }
    assert_eq!(bus.counters(), BusCounters { refused: 10, ..Default::default() });
    assert_eq!(read(&bus, 0x100, 8), [0, 1, 2, 3, 4, 5, 6, 7], "nothing was written");
}

#[test]
fn only_the_widths_of_a_processor_pass() {
    let bus = bus();
    for width in [0, 3, 5, 6, 7, 9] {
        assert_eq!(read(&bus, 0x100, width), vec![0xff; width]);
    }
    assert_eq!(bus.counters().refused, 6);
}

#[test]
fn what_a_device_refuses_reads_as_ones() {
    let bus = bus();
    assert_eq!(read(&bus, 0x100, 4), [0xff; 4]);
    assert_eq!(bus.counters(), BusCounters { refused: 1, ..Default::default() });
}

#[test]
fn a_lost_interrupt_is_counted_as_the_hosts_fault() {
    let bus = bus();
    assert_eq!(bus.write(0x107, &[0]), Action::Continue);
    assert_eq!(bus.counters(), BusCounters { undelivered: 1, ..Default::default() });
}

#[test]
fn ranges_that_overlap_or_wrap_are_refused() {
    let mut bus = bus();
    for (base, length, other) in [
        (0x100, 8, 0x100),
        (0x0ff, 2, 0x100),
        (0x0ff, 0x1000, 0x100),
        (0x10f, 1, 0x108),
        (0x107, 2, 0x100),
        (u64::MAX, 1, u64::MAX - 7),
    ] {
        assert_eq!(bus.insert(base, length, memory()), Err(BusError::Overlap { base, length, other }));
    }
    for (base, length) in [(0, 0), (1, u64::MAX), (u64::MAX, 2)] {
        let expected = if length == u64::MAX {
            BusError::Overlap { base, length, other: 0x100 }
        } else {
            BusError::Range { base, length }
        };
        assert_eq!(bus.insert(base, length, memory()), Err(expected));
    }
    bus.insert(0x110, 1, memory()).unwrap();
    bus.insert(0xff, 1, memory()).unwrap();
}

proptest! {
    /// Whatever ranges were accepted: each address belongs to the one device that was put there.
    #[test]
    fn lookup_agrees_with_a_linear_search(
        ranges in prop::collection::vec((0..200u64, 0..20u64), 0..20),
        address in 0..230u64,
        width in prop::sample::select(vec![1, 2, 4, 8]),
    ) {
        struct Tag(u8);
        impl Device for Tag {
            fn read(&mut self, _: u64, data: &mut [u8]) -> Result<(), IoError> {
                data.fill(self.0);
                Ok(())
            }
            fn write(&mut self, _: u64, _: &[u8]) -> Result<Action, IoError> {
                Ok(Action::GuestStatus(self.0))
            }
        }

        let mut bus = Bus::new();
        let mut accepted: Vec<(u64, u64, u8)> = Vec::new();
        for (tag, &(base, length)) in (0..).zip(&ranges) {
            let free = accepted.iter().all(|&(first, end, _)| base + length <= first || end <= base);
            let done = bus.insert(base, length, Arc::new(Mutex::new(Tag(tag))));
            prop_assert_eq!(done.is_ok(), free && length > 0);
            if done.is_ok() {
                accepted.push((base, base + length, tag));
            }
        }
        let whole = address..=address + width as u64 - 1;
        let owner = accepted.iter().find(|&&(first, end, _)| first <= *whole.start() && *whole.end() < end);
        prop_assert_eq!(read(&bus, address, width), vec![owner.map_or(0xff, |owner| owner.2); width]);
        let action = owner.map_or(Action::Continue, |owner| Action::GuestStatus(owner.2));
        prop_assert_eq!(bus.write(address, &vec![0; width]), action);
    }
}
