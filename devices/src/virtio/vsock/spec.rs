//! The numbers of the socket device (virtio 1.2, section 5.10).

/// Packets for the guest (section 5.10.2).
pub(super) const RX: usize = 0;
/// Packets from the guest.
pub(super) const TX: usize = 1;
/// Events for the guest.
pub(super) const EVENT: usize = 2;

/// VIRTIO_VSOCK_F_STREAM: stream sockets (section 5.10.3).
pub(super) const FEATURE_STREAM: u64 = 1 << 0;

/// The host's address (section 5.10.4).
pub(super) const HOST_CID: u64 = 2;
/// The least CID that a guest may have; those below are reserved.
pub(super) const MIN_GUEST_CID: u64 = 3;
/// VMADDR_CID_ANY, in 32 bits; the upper half of a CID is reserved.
pub(super) const ANY_CID: u64 = u32::MAX as u64;

/// VIRTIO_VSOCK_TYPE_STREAM (section 5.10.6).
pub(super) const TYPE_STREAM: u16 = 1;

/// What a packet is for (section 5.10.6).
pub(super) mod op {
    /// Asks for a connection.
    pub(in super::super) const REQUEST: u16 = 1;
    /// Grants it.
    pub(in super::super) const RESPONSE: u16 = 2;
    /// There is no such connection, or no longer.
    pub(in super::super) const RST: u16 = 3;
    /// No more will be received, sent or either.
    pub(in super::super) const SHUTDOWN: u16 = 4;
    /// Payload.
    pub(in super::super) const RW: u16 = 5;
    /// Tells `buf_alloc` and `fwd_cnt`, as every packet does.
    pub(in super::super) const CREDIT_UPDATE: u16 = 6;
    /// Asks for the above.
    pub(in super::super) const CREDIT_REQUEST: u16 = 7;
}

/// Flags of SHUTDOWN (section 5.10.6.5).
pub(super) mod shutdown {
    /// The sender of the packet receives no more.
    pub(in super::super) const RECEIVE: u32 = 1;
    /// The sender of the packet sends no more.
    pub(in super::super) const SEND: u32 = 2;
    /// Neither.
    pub(in super::super) const BOTH: u32 = RECEIVE | SEND;
}

/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET: all connections are gone, and the CID may have changed (section 5.10.6.7).
pub(super) const EVENT_TRANSPORT_RESET: u32 = 0;
