//! The numbers of virtio 1.2 that all devices share. Each device has its own in its own folder.

/// Bits of the device status field (section 2.1).
pub mod status {
    /// The driver has found the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u32 = 2;
    /// The driver is set up.
    pub const DRIVER_OK: u32 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u32 = 8;
    /// The device cannot go on until it is reset.
    pub const DEVICE_NEEDS_RESET: u32 = 64;
    /// The driver has given up on the device.
    pub const FAILED: u32 = 128;
    /// What a driver may set.
    pub const BY_DRIVER: u32 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;
}

/// Feature bits that do not depend on the device (section 6).
pub mod feature {
    /// Descriptors may point to tables of descriptors.
    pub const RING_INDIRECT_DESC: u64 = 1 << 28;
    /// Interrupts and notifications are suppressed by ring position.
    pub const RING_EVENT_IDX: u64 = 1 << 29;
    /// The device conforms to virtio 1.0 or later.
    pub const VERSION_1: u64 = 1 << 32;
    /// What the transport and the queues offer by themselves, for every device.
    pub const OF_TRANSPORT: u64 = RING_INDIRECT_DESC | RING_EVENT_IDX | VERSION_1;
}

/// Bits of the interrupt status (section 4.2.2, InterruptStatus).
pub mod interrupt {
    /// A buffer was used.
    pub const USED_BUFFER: u32 = 1;
    /// The configuration has changed; so may the status have.
    pub const CONFIGURATION_CHANGE: u32 = 2;
}

/// Device types (section 5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum DeviceKind {
    /// Network device (5.1).
    Network = 1,
    /// Block device (5.2).
    Block = 2,
    /// Entropy device (5.4).
    Entropy = 4,
    /// Traditional memory balloon (5.5).
    Balloon = 5,
    /// Socket device (5.10).
    Socket = 19,
}

impl DeviceKind {
    /// The name used in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network device",
            Self::Block => "block device",
            Self::Entropy => "entropy device",
            Self::Balloon => "balloon",
            Self::Socket => "socket device",
        }
    }
}

/// The most queues a device here may have: one bit each in a word.
pub const MAX_QUEUES: usize = 64;
