//! The register map of virtio over MMIO (virtio 1.2, section 4.2.2, table 4.1). Offsets in bytes.

/// "virt", little-endian.
pub const MAGIC_VALUE: u64 = 0x00;
/// 2: not the legacy interface.
pub const VERSION: u64 = 0x04;
/// The device type.
pub const DEVICE_ID: u64 = 0x08;
/// Who made the device.
pub const VENDOR_ID: u64 = 0x0c;
/// The selected 32 feature bits of the device.
pub const DEVICE_FEATURES: u64 = 0x10;
/// Which 32 bits.
pub const DEVICE_FEATURES_SEL: u64 = 0x14;
/// The selected 32 feature bits that the driver accepts.
pub const DRIVER_FEATURES: u64 = 0x20;
/// Which 32 bits.
pub const DRIVER_FEATURES_SEL: u64 = 0x24;
/// The queue that the queue registers are about.
pub const QUEUE_SEL: u64 = 0x30;
/// Its largest size; 0 if there is no such queue.
pub const QUEUE_NUM_MAX: u64 = 0x34;
/// Its size.
pub const QUEUE_NUM: u64 = 0x38;
/// Whether it is set up.
pub const QUEUE_READY: u64 = 0x44;
/// Takes the number of a queue with new buffers.
pub const QUEUE_NOTIFY: u64 = 0x50;
/// Why there was an interrupt.
pub const INTERRUPT_STATUS: u64 = 0x60;
/// What of it has been seen to.
pub const INTERRUPT_ACK: u64 = 0x64;
/// The device status; writing 0 resets the device.
pub const STATUS: u64 = 0x70;
/// Address of the descriptor table, low half.
pub const QUEUE_DESC_LOW: u64 = 0x80;
/// High half.
pub const QUEUE_DESC_HIGH: u64 = 0x84;
/// Address of the available ring, low half.
pub const QUEUE_DRIVER_LOW: u64 = 0x90;
/// High half.
pub const QUEUE_DRIVER_HIGH: u64 = 0x94;
/// Address of the used ring, low half.
pub const QUEUE_DEVICE_LOW: u64 = 0xa0;
/// High half.
pub const QUEUE_DEVICE_HIGH: u64 = 0xa4;
/// The shared memory region that the next registers are about.
pub const SHM_SEL: u64 = 0xac;
/// Its length and base, 64 bits each: all ones, as there is none.
pub const SHM_LEN_LOW: u64 = 0xb0;
/// The last of them.
pub const SHM_BASE_HIGH: u64 = 0xbc;
/// Another number after each change of the configuration space.
pub const CONFIG_GENERATION: u64 = 0xfc;
/// The configuration space, to the end.
pub const CONFIG: u64 = 0x100;

/// What [`MAGIC_VALUE`] reads.
pub const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// What [`VERSION`] reads.
pub const MODERN: u32 = 2;
/// What [`VENDOR_ID`] reads: "mote", little-endian.
pub const VENDOR: u32 = u32::from_le_bytes(*b"mote");
