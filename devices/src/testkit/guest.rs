//! A driver that finds a device, sets it up and talks to it, all on the test's own thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vm_memory::GuestMemoryMmap;

use super::{Buffer, CountingTrigger, DriverQueue, FakeReactor};
use crate::virtio::spec::{feature, status};
use crate::virtio::transport::registers as reg;
use crate::virtio::{MmioTransport, Served, VirtioDevice, Worker, connect};
use crate::{Device, IoError};

/// A device and all that is around it.
pub struct Guest {
    /// Its registers.
    pub transport: MmioTransport,
    /// Itself.
    pub worker: Worker,
    /// Its interrupt.
    pub line: CountingTrigger,
    /// Its event loop.
    pub reactor: FakeReactor,
    /// The driver's side of its queues, once [`set_up`](Self::set_up).
    pub queues: Vec<DriverQueue>,
    memory: GuestMemoryMmap,
    wakes: Arc<AtomicUsize>,
}

impl Guest {
    /// A machine with `device` in it, that nobody has touched yet.
    #[must_use]
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        Self::with_memory(device, super::memory())
    }

    /// The same with other memory; the queues' arenas begin at 1 MiB.
    #[must_use]
    pub fn with_memory(device: Box<dyn VirtioDevice>, memory: GuestMemoryMmap) -> Self {
        let line = CountingTrigger::default();
        let wakes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&wakes);
        let wake = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let (transport, worker) = connect(device, memory.clone(), Box::new(line.clone()), wake);
        Self { transport, worker, line, reactor: FakeReactor::default(), queues: Vec::new(), memory, wakes }
    }

    /// The handshake of section 3.1.1, with those of `features` that the device offers, and VERSION_1.
    ///
    /// # Panics
    /// When the device refuses.
    pub fn set_up(&mut self, features: u64) {
        self.write(reg::STATUS, 0);
        self.write(reg::STATUS, status::ACKNOWLEDGE);
        self.write(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        let accepted = features & self.offered() | feature::VERSION_1;
        for half in [0, 1] {
            self.write(reg::DRIVER_FEATURES_SEL, half);
            self.write(reg::DRIVER_FEATURES, (accepted >> (32 * half)) as u32);
        }
        let negotiated = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.write(reg::STATUS, negotiated);
        assert_eq!(self.read(reg::STATUS), negotiated, "the features are accepted");
        self.set_up_queues();
        self.write(reg::STATUS, negotiated | status::DRIVER_OK);
        self.serve();
    }

    /// Gives every queue its arena.
    pub fn set_up_queues(&mut self) {
        self.queues.clear();
        for index in 0u32.. {
            self.write(reg::QUEUE_SEL, index);
            let size = self.read(reg::QUEUE_NUM_MAX);
            if size == 0 {
                break;
            }
            let base = (u64::from(index) + 1) * DriverQueue::ARENA;
            // What an earlier driver left in the rings is no business of the next one.
            let zeros = vec![0; 0x10000];
            let queue = DriverQueue::new(self.memory.clone(), base, size as u16);
            queue.write(base, &zeros);
            self.write(reg::QUEUE_NUM, size);
            let parts = [
                (reg::QUEUE_DESC_LOW, queue.descriptors()),
                (reg::QUEUE_DRIVER_LOW, queue.available()),
                (reg::QUEUE_DEVICE_LOW, queue.used()),
            ];
            for (low, address) in parts {
                self.write(low, address as u32);
                self.write(low + 4, (address >> 32) as u32);
            }
            self.write(reg::QUEUE_READY, 1);
            self.queues.push(queue);
        }
    }

    /// All features on offer.
    pub fn offered(&mut self) -> u64 {
        let mut offered = 0;
        for half in [0, 1] {
            self.write(reg::DEVICE_FEATURES_SEL, half);
            offered |= u64::from(self.read(reg::DEVICE_FEATURES)) << (32 * half);
        }
        offered
    }

    /// Reads a register; ones, where there is none.
    pub fn read(&mut self, register: u64) -> u32 {
        let mut value = [0xff; 4];
        let _ = self.transport.read(register, &mut value);
        u32::from_le_bytes(value)
    }

    /// Writes a register; what is refused changes nothing.
    pub fn write(&mut self, register: u64, value: u32) {
        let _ = self.try_write(register, value);
    }

    /// Writes a register.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn try_write(&mut self, register: u64, value: u32) -> Result<(), IoError> {
        self.transport.write(register, &value.to_le_bytes()).map(|_| ())
    }

    /// Reads `length` bytes of the configuration space from `offset` on.
    ///
    /// # Panics
    /// When there are not that many.
    pub fn config(&mut self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for (offset, byte) in (reg::CONFIG + offset..).zip(&mut bytes) {
            self.transport.read(offset, std::slice::from_mut(byte)).expect("inside the configuration space");
        }
        bytes
    }

    /// Resets the device as drivers do, with the event loop running beside the write.
    pub fn reset(&mut self) {
        std::thread::scope(|scope| {
            let transport = &mut self.transport;
            let writer = scope.spawn(|| transport.write(reg::STATUS, &[0; 4]).map(|_| ()));
            while !writer.is_finished() {
                let reactor = self.reactor.clone();
                self.worker.serve(|| Box::new(reactor));
                for token in self.reactor.ready() {
                    self.worker.backend_event(token);
                }
                std::thread::yield_now();
            }
        });
    }

    /// One turn of the event loop, if the device has asked for it.
    pub fn serve(&mut self) -> Served {
        let reactor = self.reactor.clone();
        self.worker.serve(|| Box::new(reactor))
    }

    /// Makes a request available, notifies the device, and lets the event loop turn. Returns the buffers' addresses.
    pub fn send(&mut self, queue: usize, buffers: &[Buffer<'_>]) -> Vec<u64> {
        let (_, addresses) = self.queues[queue].add(buffers);
        self.notify(queue);
        addresses
    }

    /// Notifies `queue` and lets the event loop turn.
    pub fn notify(&mut self, queue: usize) {
        self.write(reg::QUEUE_NOTIFY, queue as u32);
        self.serve();
    }

    /// How often the event loop was roused since the last call.
    pub fn take_wakes(&self) -> usize {
        self.wakes.swap(0, Ordering::Relaxed)
    }

    /// The memory of the machine.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Whether the device says that it must be reset.
    pub fn needs_reset(&mut self) -> bool {
        self.read(reg::STATUS) & status::DEVICE_NEEDS_RESET != 0
    }
}
