use devices::testkit::*;
use devices::virtio::block::*;
use std::time::{Duration, Instant};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let path = &args[1];
    let engine = match args[2].as_str() {
        "sync" => Engine::Sync,
        _ => Engine::IoUring,
    };
    let direct = args[3] == "direct";
    let depth: u64 = args[4].parse().unwrap();
    let kind: u32 = match args[5].as_str() {
        "read" => 0,
        _ => 1,
    };
    let size: u32 = args[6].parse().unwrap();
    let total: u64 = args[7].parse().unwrap();
    let mut o = BlockOptions::new(path);
    o.engine = engine;
    o.direct = direct;
    o.cache = CacheMode::Unsafe;
    let t = Instant::now();
    let mut b = Block::open(&o).unwrap();
    let t1 = t.elapsed();
    b.prepare().unwrap();
    let t2 = t.elapsed();
    let mut g = Guest::new(Box::new(b));
    g.set_up(!(1u64 << 29));
    let sectors = u64::from_le_bytes(g.config(0, 8).try_into().unwrap());
    let blocks = sectors * 512 / u64::from(size);
    let (memory_of, mut rng) = (0x80_0000u64, 12345u64);
    // slots: descriptors 3*i..3*i+3
    for i in 0..depth as u16 {
        let base = memory_of + u64::from(i) * 0x100;
        let (dflags, dlen) = if kind == 0 { (WRITE | NEXT, size) } else { (NEXT, size) };
        let data = memory_of + 0x10000 + u64::from(i) * u64::from(size) % 0x40_0000;
        g.queues[0]
            .set_descriptor(3 * i, Descriptor { address: base, length: 16, flags: NEXT, next: 3 * i + 1 });
        g.queues[0].set_descriptor(
            3 * i + 1,
            Descriptor { address: data, length: dlen, flags: dflags, next: 3 * i + 2 },
        );
        g.queues[0]
            .set_descriptor(3 * i + 2, Descriptor { address: base + 16, length: 1, flags: WRITE, next: 0 });
    }
    let mut submit = |g: &mut Guest, slot: u16| {
        rng = rng.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let sector = (rng >> 33) % blocks * u64::from(size) / 512;
        let base = memory_of + u64::from(slot) * 0x100;
        let mut h = [0u8; 16];
        h[..4].copy_from_slice(&kind.to_le_bytes());
        h[8..].copy_from_slice(&sector.to_le_bytes());
        g.queues[0].write(base, &h);
        g.queues[0].make_available(3 * slot);
    };
    let (mut device, mut done) = (Duration::ZERO, 0u64);
    for i in 0..depth as u16 {
        submit(&mut g, i);
    }
    let begun = Instant::now();
    let mut inflight = depth;
    let mut started = depth;
    let mut kick = true;
    while inflight > 0 {
        let t = Instant::now();
        if kick {
            g.notify(0);
            kick = false;
        } else {
            g.serve();
            let tokens = g.reactor.ready();
            for token in tokens {
                g.worker.backend_event(token);
            }
        }
        device += t.elapsed();
        while let Some((head, written)) = g.queues[0].take_used() {
            assert!(kind == 1 || written == size + 1);
            done += 1;
            inflight -= 1;
            if started < total {
                submit(&mut g, head / 3);
                inflight += 1;
                started += 1;
                kick = true;
            }
        }
    }
    let all = begun.elapsed();
    println!(
        "{path} {} {} depth {depth} {} {size}: open {t1:?} prepare {:?}; {:.0} ns/op device, {:.0} all, {:.0} op/s",
        args[2],
        args[3],
        args[5],
        t2 - t1,
        device.as_nanos() as f64 / done as f64,
        all.as_nanos() as f64 / done as f64,
        done as f64 / all.as_secs_f64()
    );
}
