//! The way an interrupt leaves a device.

use std::io;
use std::sync::Arc;

/// An interrupt line or message that a device can raise.
///
/// The machine decides what is behind it: a pulse on an interrupt controller's input, an eventfd, a
/// counter in a test.
pub trait Trigger: Send {
    /// Raises the interrupt once.
    ///
    /// # Errors
    /// When the host refuses to deliver it. That is never the guest's doing.
    fn trigger(&self) -> io::Result<()>;
}

impl<T: Trigger + Sync + ?Sized> Trigger for Arc<T> {
    fn trigger(&self) -> io::Result<()> {
        (**self).trigger()
    }
}
