//! Where a virtio device is in the guest's map, and how the guest is told. The same devices in the same order are always at the same place.

use boot::acpi::{DeviceNode, Resource, Trigger};
use boot::layout;
use devices::virtio::transport::registers::QUEUE_NOTIFY;

/// The place of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    index: u32,
}

impl Window {
    /// How many devices a machine may have: as many as their ACPI names can tell apart, below the room in the map.
    pub const COUNT: usize = 256;

    /// The place of device `index` of the machine, counted from 0; below [`COUNT`](Self::COUNT).
    pub fn new(index: usize) -> Option<Self> {
        let index = u32::try_from(index).ok()?;
        ((index as usize) < Self::COUNT).then_some(Self { index })
    }

    /// Which of the machine's virtio devices it is.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Where its registers begin.
    pub fn base(self) -> u64 {
        layout::VIRTIO_MMIO_START + u64::from(self.index) * layout::VIRTIO_MMIO_SIZE
    }

    /// Where a driver writes the number of a queue that has new buffers.
    pub fn doorbell(self) -> u64 {
        self.base() + QUEUE_NOTIFY
    }

    /// Its interrupt line.
    pub fn gsi(self) -> u32 {
        layout::VIRTIO_GSIS[self.index() % layout::VIRTIO_GSIS.len()]
    }

    /// What the DSDT says of it.
    pub fn acpi_node(self) -> DeviceNode {
        DeviceNode {
            uid: Some(self.index),
            resources: vec![
                Resource::Mmio { base: self.base(), size: layout::VIRTIO_MMIO_SIZE },
                Resource::Irq { gsi: self.gsi(), trigger: Trigger::Edge, shared: true },
            ],
            ..DeviceNode::new(format!("V{:03X}", self.index), "LNRO0005")
        }
    }

    /// What a kernel without ACPI is told on its command line (Linux's Documentation/admin-guide/kernel-parameters).
    pub fn kernel_argument(self) -> String {
        let size = layout::VIRTIO_MMIO_SIZE;
        format!("virtio_mmio.device={size}@{:#x}:{}:{}", self.base(), self.gsi(), self.index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_device_has_its_own_place_and_a_line_that_nothing_else_has() {
        let windows: Vec<Window> = (0..Window::COUNT).filter_map(Window::new).collect();
        assert_eq!(windows.len(), Window::COUNT);
        assert_eq!(Window::new(Window::COUNT), None);
        let bases: BTreeSet<u64> = windows.iter().map(|window| window.base()).collect();
        assert_eq!(bases.len(), Window::COUNT);
        let names: BTreeSet<String> = windows.iter().map(|window| window.acpi_node().name).collect();
        assert_eq!(names.len(), Window::COUNT);
        for window in windows {
            // 0 to 2 are the timer, the keyboard and the cascade; 8 the clock, 13 the coprocessor.
            let taken = [0, 1, 2, 8, 13, layout::COM1_GSI, layout::GED_GSI];
            assert!(window.gsi() < layout::IOAPIC_PINS && !taken.contains(&window.gsi()), "{window:?}");
        }
    }

    #[test]
    fn the_first_devices_do_not_share_a_line() {
        let lines: BTreeSet<u32> = (0..17).filter_map(Window::new).map(Window::gsi).collect();
        assert_eq!(lines.len(), 17);
    }

    #[test]
    fn kernels_without_acpi_are_told_in_their_words() {
        let argument = Window::new(1).map(Window::kernel_argument);
        assert_eq!(argument.as_deref(), Some("virtio_mmio.device=4096@0xd0001000:17:1"));
    }
}
