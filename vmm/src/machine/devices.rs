//! The virtio devices of a machine: the line where each of them comes in.

use ::devices::virtio::VirtioDevice;
use ::devices::virtio::rng::Rng;

use super::Window;
use crate::config::VmConfig;

/// A device and its place.
pub(super) type Placed = (Window, Box<dyn VirtioDevice>);

/// A device cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There are more devices than places.
    #[error("a machine has at most {} devices: leave some out", Window::COUNT)]
    TooMany,
}

/// Opens what the devices stand for, in the order of their places. Files and interfaces that are missing show before
/// there is a VM.
pub(super) fn open(config: &VmConfig) -> Result<Vec<Placed>, OpenError> {
    let mut devices: Vec<Box<dyn VirtioDevice>> = Vec::new();
    if let Some(limits) = config.rng {
        devices.push(Box::new(Rng::new(limits)));
    }
    let placed = devices.into_iter().enumerate();
    placed.map(|(index, device)| Ok((Window::new(index).ok_or(OpenError::TooMany)?, device))).collect()
}
