//! The MMIO transport, version 2 (virtio 1.2, 4.2), and the steps from reset to DRIVER_OK (3.1.1).

use super::failure::{Failure, NO_ROOM};
use super::queue::Queue;
use crate::dma::Arena;
use crate::options::Window;
use crate::{cpu, memory};

/// Registers, by their offset in the window (4.2.2).
mod register {
    pub(super) const MAGIC_VALUE: u64 = 0x000;
    pub(super) const VERSION: u64 = 0x004;
    pub(super) const DEVICE_ID: u64 = 0x008;
    pub(super) const DEVICE_FEATURES: u64 = 0x010;
    pub(super) const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub(super) const DRIVER_FEATURES: u64 = 0x020;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub(super) const QUEUE_SEL: u64 = 0x030;
    pub(super) const QUEUE_NUM_MAX: u64 = 0x034;
    pub(super) const QUEUE_NUM: u64 = 0x038;
    pub(super) const QUEUE_READY: u64 = 0x044;
    pub(super) const QUEUE_NOTIFY: u64 = 0x050;
    pub(super) const INTERRUPT_STATUS: u64 = 0x060;
    pub(super) const INTERRUPT_ACK: u64 = 0x064;
    pub(super) const STATUS: u64 = 0x070;
    pub(super) const QUEUE_DESC_LOW: u64 = 0x080;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub(super) const CONFIG: u64 = 0x100;
}

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION_2: u32 = 2;

/// Device status (2.1).
mod status {
    pub(super) const ACKNOWLEDGE: u32 = 1;
    pub(super) const DRIVER: u32 = 2;
    pub(super) const DRIVER_OK: u32 = 4;
    pub(super) const FEATURES_OK: u32 = 8;
}

/// Feature bits that belong to no device type (6).
pub(crate) mod feature {
    pub(crate) const RING_EVENT_IDX: u64 = 1 << 29;
    pub(crate) const VERSION_1: u64 = 1 << 32;
}

/// The device types that there are drivers for (5).
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Net = 1,
    Block = 2,
    Vsock = 19,
}

/// Where mote puts its windows, one after another, should the command line name none.
const DEFAULT_WINDOW: u64 = 0xd000_0000;
const WINDOW_SIZE: u64 = 0x1000;
const WINDOW_LIMIT: u8 = 64;
/// The interrupt of mote's first window. Each of the next has the one after, as far as these go.
const DEFAULT_GSI: u8 = 16;
const GSI_LIMIT: u8 = 24;

/// The windows of mote's machines.
pub(crate) fn default_windows() -> impl Iterator<Item = Window> {
    (0..WINDOW_LIMIT).map(|slot| Window {
        base: DEFAULT_WINDOW + u64::from(slot) * WINDOW_SIZE,
        gsi: Some(DEFAULT_GSI + slot).filter(|&gsi| gsi < GSI_LIMIT),
    })
}

/// A device of the wanted kind.
pub(crate) struct Transport {
    window: Window,
    features: u64,
}

impl Transport {
    /// Takes the first device of `kind` through reset and feature negotiation. `windows` are those that the command line
    /// names; without any, mote's are searched up to the first that is empty. Of the features `wanted` those are accepted
    /// that the device offers.
    pub(crate) fn open(
        kind: Kind,
        windows: impl Iterator<Item = Window>,
        wanted: u64,
    ) -> Result<Transport, Failure> {
        let mut windows = windows.peekable();
        let found = if windows.peek().is_some() {
            windows.find(|window| device_id(window.base) == Some(kind as u32))
        } else {
            default_windows()
                .map_while(|window| device_id(window.base).map(|id| (window, id)))
                .find_map(|(window, id)| (id == kind as u32).then_some(window))
        };
        let window = found.ok_or(Failure::new(b"no-device", b"of-this-type"))?;
        let mut transport = Transport { window, features: 0 };
        transport.reset()?;
        transport.negotiate(wanted | feature::VERSION_1)?;
        Ok(transport)
    }

    /// Whether the feature was negotiated.
    pub(crate) fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Sets up queue `index` with at least `needed` descriptors.
    pub(crate) fn queue(&self, index: u16, needed: u16, arena: &mut Arena) -> Result<Queue, Failure> {
        self.write(register::QUEUE_SEL, u32::from(index));
        let size = needed.next_power_of_two();
        if self.read(register::QUEUE_NUM_MAX) < u32::from(size) {
            return Err(Failure::new(b"queue-too-small", b"queue-num-max"));
        }
        let rings = arena.take(Queue::memory_needed(size), 16).ok_or(NO_ROOM)?;
        let notify = (self.window.base + register::QUEUE_NOTIFY, u32::from(index));
        let queue = Queue::new(rings, size, self.has(feature::RING_EVENT_IDX), notify);
        self.write(register::QUEUE_NUM, u32::from(size));
        let addresses = queue.addresses();
        for (low, address) in
            [register::QUEUE_DESC_LOW, register::QUEUE_DRIVER_LOW, register::QUEUE_DEVICE_LOW]
                .into_iter()
                .zip(addresses)
        {
            self.write(low, address as u32);
            self.write(low + 4, (address >> 32) as u32);
        }
        self.write(register::QUEUE_READY, 1);
        Ok(queue)
    }

    /// The queues are there: the device may begin.
    pub(crate) fn start(&self) {
        let status = self.read(register::STATUS);
        self.write(register::STATUS, status | status::DRIVER_OK);
    }

    /// One byte of the device's configuration.
    pub(crate) fn config_u8(&self, offset: u64) -> u8 {
        memory::read_register_u8(self.window.base + register::CONFIG + offset)
    }

    /// A 64-bit number of the device's configuration, in two halves (4.2.2.2). None of those that are read here changes.
    pub(crate) fn config_u64(&self, offset: u64) -> u64 {
        let half = |offset| u64::from(self.read(register::CONFIG + offset));
        half(offset) | half(offset + 4) << 32
    }

    /// The pin of the I/O APIC that its interrupts come to, if it is known.
    pub(crate) fn gsi(&self) -> Option<u8> {
        self.window.gsi
    }

    /// Acknowledges the interrupt (4.2.2.2), so that another one can come. False where the device has raised none.
    pub(crate) fn acknowledge(&self) -> bool {
        let raised = self.read(register::INTERRUPT_STATUS);
        if raised != 0 {
            self.write(register::INTERRUPT_ACK, raised);
        }
        raised != 0
    }

    /// Makes the device let go of all buffers.
    pub(crate) fn reset(&self) -> Result<(), Failure> {
        self.write(register::STATUS, 0);
        let patience = cpu::Patience::new();
        while self.read(register::STATUS) != 0 {
            if patience.is_over() {
                return Err(Failure::new(b"timeout", b"reset"));
            }
        }
        Ok(())
    }

    fn negotiate(&mut self, wanted: u64) -> Result<(), Failure> {
        let mut status = status::ACKNOWLEDGE;
        self.write(register::STATUS, status);
        status |= status::DRIVER;
        self.write(register::STATUS, status);
        let mut offered = 0;
        for half in [0, 1] {
            self.write(register::DEVICE_FEATURES_SEL, half);
            offered |= u64::from(self.read(register::DEVICE_FEATURES)) << (32 * half);
        }
        self.features = offered & wanted;
        if !self.has(feature::VERSION_1) {
            return Err(Failure::new(b"features", b"no-version-1"));
        }
        for half in [0, 1] {
            self.write(register::DRIVER_FEATURES_SEL, half);
            self.write(register::DRIVER_FEATURES, (self.features >> (32 * half)) as u32);
        }
        status |= status::FEATURES_OK;
        self.write(register::STATUS, status);
        if self.read(register::STATUS) & status::FEATURES_OK == 0 {
            return Err(Failure::new(b"features", b"refused"));
        }
        Ok(())
    }

    fn read(&self, register: u64) -> u32 {
        memory::read_register(self.window.base + register)
    }

    fn write(&self, register: u64, value: u32) {
        memory::write_register(self.window.base + register, value);
    }
}

/// The device's type: 0 where a window has no device. None where there is no window of version 2.
fn device_id(base: u64) -> Option<u32> {
    let is_window = memory::read_register(base + register::MAGIC_VALUE) == MAGIC
        && memory::read_register(base + register::VERSION) == VERSION_2;
    is_window.then(|| memory::read_register(base + register::DEVICE_ID))
}
