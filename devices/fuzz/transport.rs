//! The registers, in front of the simplest device: mostly ones that exist, with values that mean something.

use devices::Device;
use devices::rate_limiter::RateLimits;
use devices::testkit::Guest;
use devices::virtio::rng::Rng;
use devices::virtio::transport::registers as reg;

/// Runs one input: six bytes are one access.
pub(crate) fn check(data: &[u8]) {
    let mut guest = Guest::new(Box::new(Rng::new(RateLimits::default())));
    for access in data.chunks_exact(6).take(512) {
        let [kind, register, value @ ..] = access else { continue };
        let offset = u64::from(register % 0x48) * 4;
        let value: [u8; 4] = match kind >> 4 {
            // Small numbers are what most registers take.
            0..8 => [value[0], 0, 0, 0],
            _ => [value[0], value[1], value[2], value[3]],
        };
        match kind & 3 {
            0 => _ = guest.transport.read(offset, &mut [0; 4]),
            1 => _ = guest.serve(),
            _ if offset == reg::STATUS && value == [0; 4] => guest.reset(),
            _ => _ = guest.transport.write(offset, &value),
        }
    }
    guest.reset();
    assert_eq!(guest.read(reg::STATUS), 0);
    guest.set_up(u64::MAX);
    assert!(!guest.needs_reset());
    guest.reset();
}
