//! The packets of a vsock stream, as bytes and as numbers (virtio 1.2, 5.10.6).

/// The only type there is a driver for.
const TYPE_STREAM: u16 = 1;
/// Flags of [`Operation::SHUTDOWN`]: the sender receives no more, and sends no more.
pub(crate) const SHUTDOWN_BOTH: u32 = 1 | 2;

/// What a packet is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Operation(pub(crate) u16);

impl Operation {
    pub(crate) const REQUEST: Operation = Operation(1);
    pub(crate) const RESPONSE: Operation = Operation(2);
    pub(crate) const RESET: Operation = Operation(3);
    pub(crate) const SHUTDOWN: Operation = Operation(4);
    pub(crate) const DATA: Operation = Operation(5);
    pub(crate) const CREDIT_UPDATE: Operation = Operation(6);
    pub(crate) const CREDIT_REQUEST: Operation = Operation(7);
}

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    pub(crate) cid: u64,
    pub(crate) port: u32,
}

/// What stands before a packet's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    /// Bytes of data behind the header.
    pub(crate) length: u32,
    pub(crate) operation: Operation,
    pub(crate) flags: u32,
    /// The sender's room for data, and how much it has taken out of it so far.
    pub(crate) room: u32,
    pub(crate) taken: u32,
}

impl Header {
    pub(crate) const SIZE: usize = 44;

    /// The header as bytes.
    pub(crate) fn to_bytes(self) -> [u8; Header::SIZE] {
        let mut bytes = [0; Header::SIZE];
        let mut rest = bytes.iter_mut();
        let mut put = |field: &[u8]| {
            for (&byte, place) in field.iter().zip(rest.by_ref()) {
                *place = byte;
            }
        };
        put(&self.source.cid.to_le_bytes());
        put(&self.destination.cid.to_le_bytes());
        for field in [self.source.port, self.destination.port, self.length] {
            put(&field.to_le_bytes());
        }
        put(&TYPE_STREAM.to_le_bytes());
        put(&self.operation.0.to_le_bytes());
        for field in [self.flags, self.room, self.taken] {
            put(&field.to_le_bytes());
        }
        bytes
    }

    /// Reads a header. None for another type of socket.
    pub(crate) fn from_bytes(bytes: &[u8; Header::SIZE]) -> Option<Header> {
        let half = |at: usize| {
            let byte = |at: usize| u16::from(bytes.get(at).copied().unwrap_or_default());
            byte(at) | byte(at + 1) << 8
        };
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        (half(28) == TYPE_STREAM).then(|| Header {
            source: Address { cid: long(0), port: word(16) },
            destination: Address { cid: long(8), port: word(20) },
            length: word(24),
            operation: Operation(half(30)),
            flags: word(32),
            room: word(36),
            taken: word(40),
        })
    }
}

/// The credit of both sides (5.10.6.3). All counters wrap.
pub(crate) struct Credit {
    own_room: u32,
    /// What this side has taken of the other's data, and what the other knows of that.
    taken: u32,
    told: u32,
    sent: u32,
    /// The other side's room, and how much it has taken out of it.
    pub(crate) peer_room: u32,
    peer_taken: u32,
}

impl Credit {
    /// Of a new connection whose own side has room for `own_room` bytes.
    pub(crate) fn new(own_room: u32) -> Credit {
        Credit { own_room, taken: 0, told: 0, sent: 0, peer_room: 0, peer_taken: 0 }
    }

    /// How many bytes may be sent.
    pub(crate) fn free(&self) -> u32 {
        self.peer_room.saturating_sub(self.unconfirmed())
    }

    /// How many bytes the other side has not yet taken.
    pub(crate) fn unconfirmed(&self) -> u32 {
        self.sent.wrapping_sub(self.peer_taken)
    }

    /// Whether the other side should be told that there is room again: half of it is free without its knowing.
    pub(crate) fn is_update_due(&self) -> bool {
        self.taken.wrapping_sub(self.told) >= self.own_room / 2
    }

    /// `length` bytes came, and were taken.
    pub(crate) fn receive(&mut self, length: u32) {
        self.taken = self.taken.wrapping_add(length);
    }

    /// A packet came.
    pub(crate) fn learn(&mut self, header: &Header) {
        self.peer_room = header.room;
        self.peer_taken = header.taken;
    }

    /// A packet with `length` bytes of data goes out: returns what it says of this side's room.
    pub(crate) fn send(&mut self, length: u32) -> (u32, u32) {
        self.sent = self.sent.wrapping_add(length);
        self.told = self.taken;
        (self.own_room, self.taken)
    }
}
