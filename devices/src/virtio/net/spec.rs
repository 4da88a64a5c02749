//! The numbers of the network device (virtio 1.2, section 5.1).

/// Queues (section 5.1.2).
pub mod queue {
    /// receiveq1: empty buffers for frames to the guest.
    pub const RECEIVE: usize = 0;
    /// transmitq1: frames from the guest.
    pub const TRANSMIT: usize = 1;
}

/// Feature bits (section 5.1.3). HOST is the device's side, GUEST the driver's: what that side takes.
pub mod feature {
    /// The device completes checksums.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes frames without a complete checksum.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The device recommends an MTU.
    pub const MTU: u64 = 1 << 3;
    /// The device has a MAC address.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes TCP over IPv4 in segments larger than the MTU.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The same over IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The driver takes large TCP segments with ECN.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// The driver takes UDP datagrams larger than the MTU.
    pub const GUEST_UFO: u64 = 1 << 10;
    /// The device segments TCP over IPv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The same over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// The device segments TCP with ECN.
    pub const HOST_ECN: u64 = 1 << 13;
    /// The device fragments UDP datagrams.
    pub const HOST_UFO: u64 = 1 << 14;
    /// A frame to the guest may be spread over several buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
}

/// The header in front of each frame (section 5.1.6, struct virtio_net_hdr).
pub mod header {
    /// Bytes of it.
    pub const LENGTH: usize = 12;

    /// Offset of the flags, one byte.
    pub const FLAGS: usize = 0;
    /// The checksum is to be completed.
    pub const NEEDS_CSUM: u8 = 1;

    /// Offset of the kind of segmentation, one byte.
    pub const GSO_TYPE: usize = 1;
    /// An ordinary frame.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4, to be segmented.
    pub const GSO_TCPV4: u8 = 1;
    /// A UDP datagram, to be fragmented.
    pub const GSO_UDP: u8 = 3;
    /// TCP over IPv6, to be segmented.
    pub const GSO_TCPV6: u8 = 4;
    /// Added to one of the TCPs: with ECN.
    pub const GSO_ECN: u8 = 0x80;

    /// Offset of the number of buffers that the frame is spread over, 16 bits.
    pub const NUM_BUFFERS: usize = 10;
}

/// The configuration space (section 5.1.4, struct virtio_net_config), as far as any feature offered here reaches.
pub mod config {
    /// Bytes of it.
    pub const LENGTH: usize = 12;
    /// Offset of the MAC address, 6 bytes.
    pub const MAC: usize = 0;
    /// Offset of the MTU, 16 bits.
    pub const MTU: usize = 10;
}

/// The smallest MTU that a device may recommend (section 5.1.4.1).
pub const MIN_MTU: u16 = 68;

/// Destination, source and type.
pub const ETHERNET_HEADER: usize = 14;
/// What a VLAN tag (IEEE 802.1Q) adds to it.
pub const VLAN_TAG: usize = 4;
