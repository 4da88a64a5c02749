//! Why a driver gives up, in the two words of an `error=` line.

/// A reason and a detail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: &'static [u8],
    pub(crate) detail: &'static [u8],
}

impl Failure {
    /// What the device said or did not say.
    pub(crate) const fn new(reason: &'static [u8], detail: &'static [u8]) -> Failure {
        Failure { reason, detail }
    }
}

/// There is not enough scratch RAM for the buffers that the options ask for.
pub(crate) const NO_ROOM: Failure = Failure::new(b"too-little-ram", b"buffers");
