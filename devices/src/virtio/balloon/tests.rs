//! Section 5.5: pages that are given come from the guest, and go to the host; nothing else does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use super::pages::{TURN_BYTES, TURN_PAGES};
use super::*;
use crate::testkit::{Buffer, Descriptor, Guest, NEXT, WRITE};
use crate::virtio::Served;
use crate::virtio::spec::{feature as transport, interrupt};
use crate::virtio::transport::registers as reg;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const REPORT: usize = 4;

/// Beyond the arenas of all queues.
const DATA: u64 = 8 << 20;
const PAGE: u64 = 4096;

const OPTIONS: BalloonOptions = BalloonOptions {
    target: 0,
    deflate_on_oom: true,
    free_page_reporting: true,
    stats_interval: Some(Duration::from_secs(5)),
    page: HostPage::Small,
};

/// With an interrupt for everything that is used.
fn guest(options: BalloonOptions) -> Guest {
    let mut guest = Guest::new(Box::new(Balloon::new(options)));
    guest.set_up(!transport::RING_EVENT_IDX);
    guest
}

fn balloon(guest: &mut Guest) -> &mut Balloon {
    let device: &mut dyn std::any::Any = guest.worker.device();
    device.downcast_mut().expect("the device made above")
}

/// Lets the event loop turn until the device has no more to do.
fn settle(guest: &mut Guest) {
    while guest.take_wakes() > 0 {
        guest.serve();
    }
}

fn send_pages(guest: &mut Guest, queue: usize, pages: &[u32]) {
    let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    guest.send(queue, &[Buffer::Readable(&bytes)]);
    settle(guest);
    assert_eq!(guest.queues[queue].take_used().map(|(_, written)| written), Some(0));
}

fn fill(memory: &GuestMemoryMmap, start: u64, length: usize) {
    memory.write_slice(&vec![0xa5; length], GuestAddress(start)).expect("RAM");
}

/// Whether the page holds nothing, or what `fill` wrote.
fn is_empty(memory: &GuestMemoryMmap, address: u64) -> bool {
    let mut bytes = [1; PAGE as usize];
    memory.read_slice(&mut bytes, GuestAddress(address)).expect("RAM");
    let empty = bytes == [0; PAGE as usize];
    assert!(empty || bytes == [0xa5; PAGE as usize], "{address:#x}: a page goes as a whole or not at all");
    empty
}

/// How many bytes of the `length` from `start` on the host has in memory.
fn resident(memory: &GuestMemoryMmap, start: u64, length: usize) -> u64 {
    let address = memory.get_host_address(GuestAddress(start)).expect("RAM") as u64;
    let pagemap = fs::File::open("/proc/self/pagemap").expect("a mounted /proc");
    let mut entries = vec![0; length / PAGE as usize * 8];
    pagemap.read_exact_at(&mut entries, address / PAGE * 8).expect("an entry for each page");
    // The highest bit of 64: the page is present.
    entries.chunks(8).filter(|entry| entry[7] & 0x80 != 0).count() as u64 * PAGE
}

#[test]
fn what_is_offered_depends_on_the_options() {
    let none =
        BalloonOptions { deflate_on_oom: false, free_page_reporting: false, stats_interval: None, ..OPTIONS };
    let offer = |options| {
        let identity = Balloon::new(options).identity();
        (identity.features, identity.queue_sizes.len())
    };
    assert_eq!(offer(none), (0, 2));
    assert_eq!(offer(BalloonOptions { deflate_on_oom: true, ..none }), (feature::DEFLATE_ON_OOM, 2));
    assert_eq!(
        offer(BalloonOptions { stats_interval: OPTIONS.stats_interval, ..none }),
        (feature::STATS_VQ, 3)
    );
    assert_eq!(offer(BalloonOptions { free_page_reporting: true, ..none }), (feature::PAGE_REPORTING, 5));
    assert_eq!(offer(BalloonOptions { page: HostPage::Huge, ..none }), (feature::MUST_TELL_HOST, 2));
}

#[test]
fn the_target_is_shown_and_the_size_is_the_drivers_word() {
    let mut guest = guest(BalloonOptions { target: (3 << 20) + 1, ..OPTIONS });
    assert_eq!(guest.config(0, 8), [0, 3, 0, 0, 0, 0, 0, 0], "768 pages");
    balloon(&mut guest).set_target(u64::MAX);
    assert_eq!(guest.config(0, 4), [0xff; 4]);
    balloon(&mut guest).set_target(1 << 20);
    assert_eq!(balloon(&mut guest).target(), 1 << 20);
    assert_eq!(guest.read(reg::INTERRUPT_STATUS), interrupt::CONFIGURATION_CHANGE);
    assert_eq!(guest.line.take(), 2);

    guest.write(reg::CONFIG, 7);
    guest.write(reg::CONFIG + 4, 256);
    assert_eq!(balloon(&mut guest).target(), 1 << 20, "the target is not the driver's");
    assert_eq!(balloon(&mut guest).actual(), 1 << 20);

    guest.reset();
    assert_eq!((balloon(&mut guest).target(), balloon(&mut guest).actual()), (1 << 20, 0));
}

#[test]
fn what_is_inflated_leaves_the_hosts_memory_and_comes_back_when_it_is_touched() {
    let mut guest = guest(OPTIONS);
    let memory = guest.memory().clone();
    fill(&memory, DATA, 4 << 20);
    assert_eq!(resident(&memory, DATA, 4 << 20), 4 << 20);
    // Down, as Linux's allocator often does; one page is left out.
    for chunk in 0..4 {
        let first = (DATA / PAGE) as u32 + chunk * 256;
        let pages: Vec<u32> = (first..first + 256).rev().filter(|page| *page != first + 100).collect();
        send_pages(&mut guest, INFLATE, &pages);
    }
    assert_eq!(guest.line.take(), 4);
    assert_eq!(resident(&memory, DATA, 4 << 20), 4 * PAGE);
    let pages = (0..1024).map(|page| (page, DATA + page * PAGE));
    pages.for_each(|(page, address)| assert_eq!(is_empty(&memory, address), page % 256 != 100));
    let counters = balloon(&mut guest).counters();
    assert_eq!(counters, BalloonCounters { given_back: 4 * 255 * PAGE, refused: 0 });

    let page = (DATA / PAGE) as u32;
    send_pages(&mut guest, DEFLATE, &[page]);
    fill(&memory, DATA, PAGE as usize);
    assert!(!is_empty(&memory, DATA));
    assert_eq!(guest.worker.counters().faults, 0);
}

#[test]
fn numbers_that_are_no_pages_of_ram_are_faults_and_nothing_else() {
    let mut guest = guest(OPTIONS);
    let memory = guest.memory().clone();
    fill(&memory, DATA, 3 * PAGE as usize);
    let page = (DATA / PAGE) as u32;
    let end = (crate::testkit::MEMORY as u64 / PAGE) as u32;
    send_pages(&mut guest, INFLATE, &[u32::MAX, end, page + 1, page + 1, end + 7]);
    assert_eq!(guest.worker.counters().faults, 3);
    assert_eq!([0, 1, 2].map(|page| is_empty(&memory, DATA + page * PAGE)), [false, true, false]);

    // Three bytes are no number; a request without any is none.
    guest.send(INFLATE, &[Buffer::Readable(&[0; 3])]);
    guest.send(INFLATE, &[Buffer::Writable(64)]);
    settle(&mut guest);
    assert_eq!(std::iter::from_fn(|| guest.queues[INFLATE].take_used()).count(), 2);
    assert_eq!(guest.worker.counters().faults, 4);
    assert!(!guest.needs_reset());
}

#[test]
fn numbers_may_be_split_over_descriptors_byte_by_byte() {
    let mut guest = guest(OPTIONS);
    let memory = guest.memory().clone();
    fill(&memory, DATA, PAGE as usize);
    let bytes = ((DATA / PAGE) as u32).to_le_bytes();
    let buffers: Vec<_> = bytes.chunks(1).map(Buffer::Readable).collect();
    guest.send(INFLATE, &buffers);
    assert!(is_empty(&memory, DATA));
}

#[test]
fn a_long_request_takes_several_turns_and_is_used_once() {
    let mut guest = guest(OPTIONS);
    let memory = guest.memory().clone();
    fill(&memory, DATA, 4 << 20);
    let first = (DATA / PAGE) as u32;
    let pages: Vec<u8> = (first..first + 1000).flat_map(|page| page.to_le_bytes()).collect();
    guest.take_wakes();
    guest.send(INFLATE, &[Buffer::Readable(&pages)]);
    let mut turns = 1;
    while guest.queues[INFLATE].take_used().is_none() {
        assert_eq!(guest.take_wakes(), if turns == 1 { 2 } else { 1 }, "it asks for its next turn");
        assert!(!is_empty(&memory, DATA + 1000 * PAGE - PAGE));
        guest.serve();
        turns += 1;
    }
    assert_eq!(turns, 1000usize.div_ceil(TURN_PAGES));
    assert!((0..1000).all(|page| is_empty(&memory, DATA + page * PAGE)));
    assert!(!is_empty(&memory, DATA + 1000 * PAGE));
    assert_eq!(guest.line.take(), 1);
    settle(&mut guest);
    assert_eq!(guest.worker.positions()[INFLATE], (1, 1));
}

#[test]
fn a_request_that_is_not_finished_is_still_in_its_ring() {
    let mut guest = guest(OPTIONS);
    let pages = vec![0; 4 * (TURN_PAGES + 1)];
    guest.send(DEFLATE, &[Buffer::Readable(&pages)]);
    assert_eq!(guest.worker.positions()[DEFLATE], (0, 0), "a snapshot taken now begins it anew");
    guest.serve();
    assert_eq!(guest.worker.positions()[DEFLATE], (1, 1));
}

#[test]
fn a_driver_that_breaks_the_ring_has_to_reset() {
    let mut guest = guest(OPTIONS);
    guest.send(STATS, &[Buffer::Readable(&[])]);
    guest.queues[INFLATE].set_available_index(1000);
    guest.notify(INFLATE);
    assert!(guest.needs_reset());
    expire(&mut guest);
    assert!(guest.queues[STATS].take_used().is_none(), "until then the device does nothing");
    guest.reset();
    guest.set_up(u64::MAX);
    send_pages(&mut guest, INFLATE, &[(DATA / PAGE) as u32]);
}

/// Entries of statistics, as a driver packs them.
fn entries(stats: &[(u16, u64)]) -> Vec<u8> {
    stats.iter().flat_map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()).collect()
}

fn expire(guest: &mut Guest) {
    assert!(matches!(guest.worker.backend_event(TIMER), Served::Nothing));
}

#[test]
fn statistics_come_when_the_device_asks() {
    for features in [u64::MAX, !transport::RING_EVENT_IDX] {
        ask_for_statistics(features);
    }
}

fn ask_for_statistics(features: u64) {
    let mut guest = Guest::new(Box::new(Balloon::new(OPTIONS)));
    guest.set_up(features);
    assert_eq!(guest.reactor.timer(), None, "without a buffer there is nothing to ask with");
    let before = Instant::now();
    guest.send(STATS, &[Buffer::Readable(&[])]);
    assert_eq!(balloon(&mut guest).stats(), Stats::default());
    assert!(guest.queues[STATS].take_used().is_none(), "the device keeps the buffer");
    assert!(guest.reactor.timer().expect("a time to ask") >= before + Duration::from_secs(5));

    for round in 1..=300 {
        expire(&mut guest);
        assert!(guest.queues[STATS].take_used().is_some(), "to use the buffer is to ask");
        assert_eq!(guest.line.take(), 1);
        expire(&mut guest);
        assert!(guest.queues[STATS].take_used().is_none(), "nothing to ask with");
        let queue = &mut guest.queues[STATS];
        queue.set_used_event(round as u16);
        let wanted = queue.read(queue.used() + 4 + 8 * u64::from(queue.size()), 2);
        let wanted = u16::from_le_bytes([wanted[0], wanted[1]]);
        assert!(
            features & transport::RING_EVENT_IDX == 0 || wanted == round as u16,
            "it waits for the answer"
        );
        assert_eq!(queue.read(queue.used(), 2), [0, 0], "and does not suppress notifications");
        let supplied = entries(&[(9, round), (0, 1), (4, 4096), (1, 2), (2, 3), (3, 4)]);
        guest.send(STATS, &[Buffer::Readable(&supplied)]);
        let expected = Stats {
            swap_in: Some(1),
            swap_out: Some(2),
            major_faults: Some(3),
            minor_faults: Some(4),
            free_memory: Some(4096),
            hugetlb_failures: Some(round),
            ..Stats::default()
        };
        assert_eq!(balloon(&mut guest).stats(), expected);
    }
    assert_eq!(guest.worker.positions()[STATS], (300, 300), "the last buffer is still in its ring");
    guest.reset();
    assert_eq!((balloon(&mut guest).stats(), guest.reactor.timer()), (Stats::default(), None));
}

#[test]
fn statistics_may_be_odd() {
    let mut guest = guest(OPTIONS);
    let mut odd = entries(&[(10, 1), (u16::MAX, 2), (5, 1 << 40), (5, 1 << 41), (6, 7), (7, 8), (8, 9)]);
    odd.extend([4, 0, 1]);
    guest.send(STATS, &[Buffer::Readable(&odd)]);
    let expected = Stats {
        total_memory: Some(1 << 41),
        available_memory: Some(7),
        disk_caches: Some(8),
        hugetlb_allocations: Some(9),
        ..Stats::default()
    };
    assert_eq!(balloon(&mut guest).stats(), expected, "unknown tags are ignored, and so is half an entry");

    // More than there are kinds; and a second buffer, which section 5.5.6.3.1 forbids: it waits for its turn.
    guest.send(STATS, &[Buffer::Readable(&entries(&[(4, 4); 1000]))]);
    assert_eq!(balloon(&mut guest).stats(), expected);
    expire(&mut guest);
    assert_eq!(std::iter::from_fn(|| guest.queues[STATS].take_used()).count(), 1);
    assert_eq!(balloon(&mut guest).stats(), Stats { free_memory: Some(4), ..Stats::default() });
    assert!(!guest.needs_reset());
}

#[test]
fn the_interval_can_be_changed_but_not_to_nothing() {
    let mut guest = guest(OPTIONS);
    assert!(balloon(&mut guest).set_stats_interval(Duration::from_secs(60)));
    assert_eq!(guest.reactor.timer(), None);
    let before = Instant::now();
    guest.send(STATS, &[Buffer::Readable(&[])]);
    assert!(guest.reactor.timer().expect("a time to ask") >= before + Duration::from_secs(60));
    assert!(balloon(&mut guest).set_stats_interval(Duration::ZERO));
    let timer = guest.reactor.timer().expect("a time to ask");
    assert!(timer >= before + MIN_INTERVAL && timer < before + Duration::from_secs(50));
    assert!(balloon(&mut guest).set_stats_interval(Duration::MAX));
    assert_eq!(guest.reactor.timer(), None, "never");

    let mut without = Balloon::new(BalloonOptions { stats_interval: None, ..OPTIONS });
    assert!(!without.set_stats_interval(Duration::from_secs(1)));
}

#[test]
fn reports_are_given_back_and_acknowledged() {
    let memory =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20), (GuestAddress(1 << 30), 72 << 20)]);
    let memory = memory.expect("a little memory");
    let mut guest = Guest::with_memory(Box::new(Balloon::new(OPTIONS)), memory.clone());
    guest.set_up(u64::MAX);
    let base = 1 << 30;
    fill(&memory, base, 72 << 20);
    let resident = || resident(&memory, base, 72 << 20);
    assert_eq!(resident(), 72 << 20);
    let large = |address, length, flags| Descriptor { address, length, flags: WRITE | flags, next: 0 };
    // The second begins and ends within a page, the third is the size of many turns.
    let descriptors =
        [large(DATA, 4096, NEXT), large(base + 1, 3 * 4096, NEXT), large(base + (4 << 20), 66 << 20, 0)];
    guest.queues[REPORT].add_descriptors(&descriptors);
    guest.notify(REPORT);
    assert!(guest.queues[REPORT].take_used().is_none(), "more than one turn");
    assert!(resident() >= (72 << 20) - TURN_BYTES as u64);
    settle(&mut guest);
    assert_eq!(guest.queues[REPORT].take_used(), Some((0, 0)));
    assert_eq!(resident(), (6 << 20) - 2 * PAGE);
    assert_eq!([0, 1, 2, 3].map(|page| is_empty(&memory, base + page * PAGE)), [false, true, true, false]);
    assert!(!is_empty(&memory, base + (4 << 20) - PAGE) && !is_empty(&memory, base + (70 << 20)));
}

#[test]
fn reports_come_where_the_specification_says_and_where_linux_has_them() {
    // Section 5.5.2: queue 4. Linux: the next after those that exist.
    for (features, queue) in [(feature::PAGE_REPORTING | feature::STATS_VQ, 3), (feature::PAGE_REPORTING, 2)]
    {
        for queue in [queue, 4] {
            let mut guest = Guest::new(Box::new(Balloon::new(OPTIONS)));
            guest.set_up(features);
            let memory = guest.memory().clone();
            fill(&memory, DATA, 2 * PAGE as usize);
            let report = Descriptor { address: DATA, length: 4096, flags: WRITE, next: 0 };
            guest.queues[queue].add_descriptors(&[report]);
            guest.notify(queue);
            assert_eq!(guest.queues[queue].take_used(), Some((0, 0)));
            assert!(is_empty(&memory, DATA) && !is_empty(&memory, DATA + PAGE));
        }
    }
    let mut guest = Guest::new(Box::new(Balloon::new(OPTIONS)));
    guest.set_up(0);
    guest.send(REPORT, &[Buffer::Writable(4096)]);
    assert!(guest.queues[REPORT].take_used().is_none(), "not negotiated");
}

/// Memory whose second region is congruent to the host's addresses, so that it may be given back in pieces of 2 MiB.
fn huge_memory() -> (GuestMemoryMmap, u64) {
    let region = MmapRegion::new(8 << 20).expect("a little memory");
    let base = (1 << 30) + region.as_ptr() as u64 % (2 << 20);
    let regions = [(GuestAddress(0), MmapRegion::new(16 << 20).expect("a little memory"))];
    let regions = regions.into_iter().chain([(GuestAddress(base), region)]);
    let regions = regions.map(|(start, region)| GuestRegionMmap::new(region, start).expect("no overflow"));
    let memory = GuestMemoryMmap::from_regions(regions.collect()).expect("in order");
    (memory, base.next_multiple_of(2 << 20))
}

#[test]
fn a_huge_page_is_given_back_when_all_of_it_is_in_the_balloon() {
    let (memory, start) = huge_memory();
    let options = BalloonOptions { page: HostPage::Huge, ..OPTIONS };
    let mut guest = Guest::with_memory(Box::new(Balloon::new(options)), memory.clone());
    guest.set_up(u64::MAX);
    fill(&memory, start, 4 << 20);
    let first = (start / PAGE) as u32;
    let huge: Vec<u32> = (first..first + 512).collect();
    let empty = |page: u64| is_empty(&memory, start + page * PAGE);
    send_pages(&mut guest, INFLATE, &huge[..256]);
    send_pages(&mut guest, INFLATE, &huge[256..511]);
    send_pages(&mut guest, DEFLATE, &[first + 3, u32::MAX]);
    send_pages(&mut guest, INFLATE, &huge[511..]);
    assert!(!empty(0), "the guest has a page of it");
    send_pages(&mut guest, INFLATE, &[first + 3]);
    assert!((0..512).all(empty) && !empty(512));

    // One page out and in again: the host gave a whole huge page for it, and takes it back.
    send_pages(&mut guest, DEFLATE, &[first]);
    fill(&memory, start, PAGE as usize);
    send_pages(&mut guest, INFLATE, &[first + 1]);
    assert!(!empty(0), "the others were in the balloon before");
    send_pages(&mut guest, INFLATE, &[first]);
    assert!(empty(0));

    // A new driver has all pages, and this one does not say when it uses them.
    send_pages(&mut guest, DEFLATE, &huge[..1]);
    guest.reset();
    guest.set_up(0);
    fill(&memory, start, 2 << 20);
    send_pages(&mut guest, INFLATE, &huge[..1]);
    assert!(!empty(0) && !empty(1));
    send_pages(&mut guest, INFLATE, &huge);
    assert!(!empty(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Section 5.5.6: the pages named in inflate requests are taken, and no others, whatever is named and in whatever
    /// order.
    #[test]
    fn arbitrary_numbers_take_what_they_name(
        requests in prop::collection::vec(
            prop::collection::vec(
                prop_oneof![4 => 2048u32..2112, 4 => 0x40000u32..0x40040, 2 => 0x4003eu32..0x40044, 1 => 0x50000u32..],
                0..300,
            ),
            1..6,
        ),
    ) {
        let regions = [(GuestAddress(0), 16 << 20), (GuestAddress(1 << 30), 64 << 12)];
        let memory = GuestMemoryMmap::from_ranges(&regions).expect("a little memory");
        let mut guest = Guest::with_memory(Box::new(Balloon::new(OPTIONS)), memory.clone());
        guest.set_up(u64::MAX);
        fill(&memory, DATA, 64 << 12);
        fill(&memory, 1 << 30, 64 << 12);
        for request in &requests {
            send_pages(&mut guest, INFLATE, request);
        }
        let named: BTreeSet<u32> = requests.iter().flatten().copied().collect();
        for page in (2048..2112).chain(0x40000..0x40040) {
            prop_assert_eq!(is_empty(&memory, u64::from(page) * PAGE), named.contains(&page));
        }
        let outside = requests.iter().flatten().filter(|page| **page >= 0x40040).count();
        prop_assert_eq!(guest.worker.counters().faults, outside as u64);
        prop_assert!(!guest.needs_reset());
    }

    /// The same with huge pages: one is taken when all of it is in the balloon, and only then.
    #[test]
    fn arbitrary_orders_take_whole_huge_pages_only(
        steps in prop::collection::vec((any::<bool>(), 0u32..1024, 1u32..700), 1..12),
    ) {
        let (memory, start) = huge_memory();
        let options = BalloonOptions { page: HostPage::Huge, ..OPTIONS };
        let mut guest = Guest::with_memory(Box::new(Balloon::new(options)), memory.clone());
        guest.set_up(u64::MAX);
        let mut inside = BTreeSet::new();
        let first = (start / PAGE) as u32;
        let whole = |inside: &BTreeSet<u32>, huge: u32| (huge * 512..huge * 512 + 512).all(|page| inside.contains(&page));
        fill(&memory, start, 4 << 20);
        for (inflate, from, count) in steps {
            let pages: Vec<u32> = (from..(from + count).min(1024)).collect();
            let before = [0, 1].map(|huge| whole(&inside, huge));
            if inflate {
                inside.extend(&pages);
            } else {
                pages.iter().for_each(|page| { inside.remove(page); });
            }
            let numbers: Vec<u32> = pages.iter().map(|page| first + page).collect();
            send_pages(&mut guest, if inflate { INFLATE } else { DEFLATE }, &numbers);
            for huge in [0, 1] {
                let address = start + u64::from(huge) * (2 << 20);
                let now = whole(&inside, huge);
                if before[huge as usize] && !now {
                    // The guest uses what it has again.
                    fill(&memory, address, 2 << 20);
                }
                prop_assert_eq!(is_empty(&memory, address), now);
                prop_assert_eq!(is_empty(&memory, address + (2 << 20) - PAGE), now);
            }
        }
    }
}
