//! The registers of one device, as a state machine of the vCPU threads.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vm_memory::GuestMemoryMmap;

use super::registers as reg;
use crate::virtio::port::Port;
use crate::virtio::spec::{MAX_QUEUES, feature, interrupt, status};
use crate::virtio::{ConfigSpace, DeviceKind, Identity};
use crate::{Action, Device, IoError, RestoreError};

const NAME: &str = "virtio transport";
const VERSION: u16 = 1;

/// What a driver has set when it sets DRIVER_OK (section 3.1.1).
const BEFORE_DRIVER_OK: u32 = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;

/// One device behind virtio over MMIO.
///
/// It never touches the device: what the driver asks for is left in a mailbox for the device's [`Worker`](crate::virtio::Worker). The only
/// wait is for a reset, because drivers free their buffers after it; it is bounded.
pub struct MmioTransport {
    // Configuration.
    kind: DeviceKind,
    offered: u64,
    queue_sizes: Vec<u16>,
    // Wiring.
    port: Arc<Port>,
    config: ConfigSpace,
    memory: GuestMemoryMmap,
    // Guest-visible state.
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    accepted: u64,
    queue_sel: u32,
    queues: Vec<QueueSetup>,
    /// 0 was written to the status while requests were in flight.
    resetting: bool,
}

/// One queue as its driver set it up, and where it stands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSetup {
    /// Number of buffers.
    pub size: u16,
    /// Whether the driver has set it up.
    pub ready: bool,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
    /// The next entry of the available ring.
    pub next_available: u16,
    /// The next entry of the used ring.
    pub next_used: u16,
}

/// What a snapshot holds of an [`MmioTransport`] and of its device's configuration space.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TransportState {
    version: u16,
    device_id: u32,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    accepted: u64,
    queue_sel: u32,
    queues: Vec<QueueSetup>,
    interrupt_status: u32,
    config: Vec<u8>,
}

impl MmioTransport {
    /// Bytes of address space that a device takes.
    pub const SIZE: u64 = 0x1000;

    pub(in crate::virtio) fn new(identity: Identity, port: Arc<Port>, memory: GuestMemoryMmap) -> Self {
        let mut queue_sizes = identity.queue_sizes;
        queue_sizes.truncate(MAX_QUEUES);
        let queues = reset_queues(&queue_sizes);
        Self {
            kind: identity.kind,
            offered: identity.features | feature::OF_TRANSPORT,
            queue_sizes,
            port,
            config: identity.config,
            memory,
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            accepted: 0,
            queue_sel: 0,
            queues,
            resetting: false,
        }
    }

    /// Its state; `positions` are those of the device's queues. The machine is paused, and no request is in flight.
    #[must_use]
    pub fn save(&mut self, positions: &[(u16, u16)]) -> TransportState {
        // A driver may not have looked yet whether its reset is over.
        self.finish_reset();
        let mut queues = self.queues.clone();
        for (queue, &(next_available, next_used)) in queues.iter_mut().zip(positions) {
            (queue.next_available, queue.next_used) = (next_available, next_used);
        }
        TransportState {
            version: VERSION,
            device_id: self.kind as u32,
            status: self.read_status(),
            device_features_sel: self.device_features_sel,
            driver_features_sel: self.driver_features_sel,
            accepted: self.accepted,
            queue_sel: self.queue_sel,
            queues,
            interrupt_status: self.port.interrupt_status(),
            config: self.config.bytes(),
        }
    }

    /// Takes on a saved state; a device that was active will be activated again.
    ///
    /// # Errors
    /// When the state's version is unknown, it is another device's, or holds what a driver cannot have brought about.
    pub fn restore(&mut self, state: &TransportState) -> Result<(), RestoreError> {
        let check = |field, value: u64, sound: bool| RestoreError::check(NAME, field, value, sound);
        RestoreError::check_version(NAME, state.version, VERSION)?;
        check("the device type", state.device_id.into(), state.device_id == self.kind as u32)?;
        let known = status::BY_DRIVER | status::DEVICE_NEEDS_RESET;
        check("status", state.status.into(), state.status & !known == 0)?;
        let ready =
            state.status & status::DRIVER_OK == 0 || state.status & BEFORE_DRIVER_OK == BEFORE_DRIVER_OK;
        check("status", state.status.into(), ready)?;
        let negotiated = state.status & status::FEATURES_OK == 0 || self.acceptable(state.accepted);
        check("the accepted features", state.accepted, negotiated)?;
        let causes = interrupt::USED_BUFFER | interrupt::CONFIGURATION_CHANGE;
        check("the interrupt status", state.interrupt_status.into(), state.interrupt_status & !causes == 0)?;
        let queues = state.queues.len();
        check("the number of queues", queues as u64, queues == self.queue_sizes.len())?;
        for (queue, &max_size) in state.queues.iter().zip(&self.queue_sizes) {
            let sound = !queue.ready || queue.check(max_size, &self.memory).is_ok();
            check("the rings of a queue of size", queue.size.into(), sound)?;
        }
        let bytes = state.config.len();
        check("the configuration space's size", bytes as u64, bytes == self.config.bytes().len())?;

        self.config.update(0, &state.config);
        self.status = state.status & !status::DEVICE_NEEDS_RESET;
        self.device_features_sel = state.device_features_sel;
        self.driver_features_sel = state.driver_features_sel;
        self.accepted = state.accepted;
        self.queue_sel = state.queue_sel;
        self.queues.clone_from(&state.queues);
        self.port.set_interrupt_status(state.interrupt_status);
        self.port.set_needs_reset(state.status & status::DEVICE_NEEDS_RESET != 0);
        if self.status & status::DRIVER_OK != 0 {
            self.port.activate(self.accepted, self.queues.clone());
        }
        Ok(())
    }

    fn read_register(&mut self, offset: u64) -> Result<u32, IoError> {
        let queue_index = self.queue_sel as usize;
        Ok(match offset {
            reg::MAGIC_VALUE => reg::MAGIC,
            reg::VERSION => reg::MODERN,
            reg::DEVICE_ID => self.kind as u32,
            reg::VENDOR_ID => reg::VENDOR,
            reg::DEVICE_FEATURES => half(self.offered, self.device_features_sel),
            reg::QUEUE_NUM_MAX => self.queue_sizes.get(queue_index).map_or(0, |&size| size.into()),
            reg::QUEUE_READY => self.queues.get(queue_index).is_some_and(|queue| queue.ready).into(),
            reg::INTERRUPT_STATUS => self.port.interrupt_status(),
            reg::STATUS => {
                self.finish_reset();
                self.read_status()
            }
            reg::SHM_LEN_LOW..=reg::SHM_BASE_HIGH if offset.is_multiple_of(4) => u32::MAX,
            reg::CONFIG_GENERATION => self.config.generation(),
            _ => return Err(IoError::Offset(offset)),
        })
    }

    fn write_register(&mut self, offset: u64, value: u32) -> Result<(), IoError> {
        match offset {
            reg::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            reg::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            reg::DRIVER_FEATURES => self.accept_features(value)?,
            reg::QUEUE_SEL => self.queue_sel = value,
            reg::QUEUE_NOTIFY => self.notify(value)?,
            reg::INTERRUPT_ACK => self.port.acknowledge(value),
            reg::STATUS => self.write_status(value)?,
            reg::QUEUE_READY => self.set_queue_ready(value)?,
            reg::SHM_SEL => {}
            _ => self.set_up_queue(offset, value)?,
        }
        Ok(())
    }

    fn read_status(&self) -> u32 {
        let needs_reset = if self.port.needs_reset() { status::DEVICE_NEEDS_RESET } else { 0 };
        self.status | needs_reset
    }

    fn write_status(&mut self, value: u32) -> Result<(), IoError> {
        self.finish_reset();
        if value == 0 {
            self.resetting = true;
            if self.port.reset() {
                self.finish_reset();
            }
            return Ok(());
        }
        // The driver only ever sets bits (section 2.1.1), and only in the order of section 3.1.1.
        let added = value & !self.status & status::BY_DRIVER;
        let in_order = added & status::DRIVER_OK == 0 || self.status & BEFORE_DRIVER_OK == BEFORE_DRIVER_OK;
        if self.resetting || self.status & status::BY_DRIVER & !value != 0 || !in_order {
            return Err(IoError::State(reg::STATUS));
        }
        let mut status = self.status | added;
        if added & status::FEATURES_OK != 0 && !self.acceptable(self.accepted) {
            // Section 3.1.1, step 6: the driver reads back that its choice was not accepted.
            status &= !status::FEATURES_OK;
        }
        self.status = status;
        if added & status::DRIVER_OK != 0 {
            self.port.activate(self.accepted, self.queues.clone());
        }
        Ok(())
    }

    /// Whether the device can work with these features.
    fn acceptable(&self, features: u64) -> bool {
        features & !self.offered == 0 && features & feature::VERSION_1 != 0
    }

    /// Back to the beginning, once the device holds nothing of the guest's any more.
    fn finish_reset(&mut self) {
        if self.resetting && self.port.quiet() {
            self.resetting = false;
            self.status = 0;
            self.device_features_sel = 0;
            self.driver_features_sel = 0;
            self.accepted = 0;
            self.queue_sel = 0;
            self.queues = reset_queues(&self.queue_sizes);
        }
    }

    fn accept_features(&mut self, value: u32) -> Result<(), IoError> {
        if self.status & status::FEATURES_OK != 0 || self.resetting {
            return Err(IoError::State(reg::DRIVER_FEATURES));
        }
        match self.driver_features_sel {
            0 => self.accepted = self.accepted & !u64::from(u32::MAX) | u64::from(value),
            1 => self.accepted = self.accepted & u64::from(u32::MAX) | u64::from(value) << 32,
            // A device has no features there to accept.
            _ if value == 0 => {}
            _ => return Err(IoError::State(reg::DRIVER_FEATURES)),
        }
        Ok(())
    }

    fn notify(&mut self, queue: u32) -> Result<(), IoError> {
        let there = (queue as usize) < self.queues.len();
        if !there || self.status & status::DRIVER_OK == 0 || self.resetting {
            return Err(IoError::State(reg::QUEUE_NOTIFY));
        }
        self.port.notify(queue);
        Ok(())
    }

    /// The selected queue, if the driver may set it up now.
    fn selected(&mut self, offset: u64) -> Result<&mut QueueSetup, IoError> {
        let open = self.status & status::DRIVER_OK == 0 && !self.resetting;
        let queue = self.queues.get_mut(self.queue_sel as usize);
        queue.filter(|_| open).ok_or(IoError::State(offset))
    }

    fn set_queue_ready(&mut self, value: u32) -> Result<(), IoError> {
        let max_size = self.queue_sizes.get(self.queue_sel as usize).copied().unwrap_or(0);
        let memory = self.memory.clone();
        let queue = self.selected(reg::QUEUE_READY)?;
        if value & 1 == 0 {
            queue.ready = false;
            return Ok(());
        }
        if queue.check(max_size, &memory).is_err() {
            // It reads back as not ready, and the device cannot be used. No interrupt before DRIVER_OK (section 2.1.2).
            self.port.fault();
            self.port.set_needs_reset(true);
            return Err(IoError::State(reg::QUEUE_READY));
        }
        queue.ready = true;
        Ok(())
    }

    fn set_up_queue(&mut self, offset: u64, value: u32) -> Result<(), IoError> {
        if !matches!(offset, reg::QUEUE_NUM | reg::QUEUE_DESC_LOW..=reg::QUEUE_DEVICE_HIGH) {
            return Err(IoError::Offset(offset));
        }
        let queue = self.selected(offset)?;
        if queue.ready {
            return Err(IoError::State(offset));
        }
        match offset {
            // What does not fit 16 bits is no size either: 0 is refused like it when the queue is made ready.
            reg::QUEUE_NUM => queue.size = u16::try_from(value).unwrap_or(0),
            reg::QUEUE_DESC_LOW => set_low(&mut queue.descriptors, value),
            reg::QUEUE_DESC_HIGH => set_high(&mut queue.descriptors, value),
            reg::QUEUE_DRIVER_LOW => set_low(&mut queue.available, value),
            reg::QUEUE_DRIVER_HIGH => set_high(&mut queue.available, value),
            reg::QUEUE_DEVICE_LOW => set_low(&mut queue.used, value),
            reg::QUEUE_DEVICE_HIGH => set_high(&mut queue.used, value),
            _ => return Err(IoError::Offset(offset)),
        }
        Ok(())
    }
}

impl Device for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), IoError> {
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            return if self.config.read(offset, data) { Ok(()) } else { Err(IoError::Offset(offset)) };
        }
        // Section 4.2.2.2: the registers are read and written 32 bits at a time.
        let width = data.len();
        let data: &mut [u8; 4] = data.try_into().map_err(|_| IoError::Width(width))?;
        *data = self.read_register(offset)?.to_le_bytes();
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<Action, IoError> {
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            return if self.config.write(offset, data) {
                Ok(Action::Continue)
            } else {
                Err(IoError::Offset(offset))
            };
        }
        let value = data.try_into().map_err(|_| IoError::Width(data.len()))?;
        self.write_register(offset, u32::from_le_bytes(value))?;
        Ok(Action::Continue)
    }
}

fn reset_queues(sizes: &[u16]) -> Vec<QueueSetup> {
    sizes.iter().map(|&size| QueueSetup { size, ..QueueSetup::default() }).collect()
}

/// Half `select` of 64 bits; there are none beyond.
fn half(bits: u64, select: u32) -> u32 {
    match select {
        0 => bits as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

fn set_low(address: &mut u64, value: u32) {
    *address = *address & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = *address & u64::from(u32::MAX) | u64::from(value) << 32;
}
