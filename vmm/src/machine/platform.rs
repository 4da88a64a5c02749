//! The devices that every machine has, and the buses they are on.

use std::sync::{Arc, Mutex};

use boot::layout;
use devices::legacy::{AcpiPower, DebugPort, I8042, Pvpanic, Rtc, Serial, SystemClock};
use devices::{Bus, BusError, Device};

use super::attach::{Attached, attach};
use super::devices::Placed;
use super::window::Window;
use crate::console::{ConsoleOutput, SerialOutput};
use crate::event_loop::Waker;
use crate::kvm::{FastLine, IrqLine, Vm};

/// The serial port as it is wired here.
pub type SerialPort = Serial<Arc<FastLine>, SerialOutput>;

/// What a vCPU's accesses outside RAM reach.
#[derive(Default)]
pub struct Buses {
    /// Port I/O.
    pub pio: Bus,
    /// Memory-mapped I/O.
    pub mmio: Bus,
}

/// The assembled devices.
pub(super) struct Platform {
    pub(super) buses: Buses,
    pub(super) serial: Arc<Mutex<SerialPort>>,
    pub(super) serial_line: Arc<FastLine>,
    pub(super) power_button: IrqLine,
    pub(super) virtio: Vec<Attached>,
}

impl Platform {
    /// Puts every device where `layout` and the ACPI tables say it is. The virtio devices are served by whoever
    /// `waker` rouses, everything else by `event_loop`.
    pub(super) fn assemble(
        vm: &Arc<Vm>,
        console: Arc<ConsoleOutput>,
        virtio: Vec<Placed>,
        event_loop: Waker,
        mut waker: impl FnMut(Window) -> Waker,
    ) -> Result<Self, BusError> {
        let serial_line = Arc::new(FastLine::new(Arc::clone(vm), layout::COM1_GSI, Some(event_loop)));
        let serial = Serial::new(Arc::clone(&serial_line), SerialOutput(console));
        let serial = Arc::new(Mutex::new(serial));
        let mut buses = Buses::default();
        let mut port = |base: u16, count: u16, device: Arc<Mutex<dyn Device>>| {
            buses.pio.insert(u64::from(base), u64::from(count), device)
        };
        port(layout::COM1_PORT, layout::COM1_PORT_COUNT, Arc::clone(&serial) as _)?;
        port(layout::I8042_PORT, layout::I8042_PORT_COUNT, device(I8042::new()))?;
        port(layout::RTC_PORT, layout::RTC_PORT_COUNT, device(Rtc::new(SystemClock)))?;
        port(layout::PVPANIC_PORT, layout::PVPANIC_PORT_COUNT, device(Pvpanic::new()))?;
        port(layout::DEBUG_PORT, layout::DEBUG_PORT_COUNT, device(DebugPort::new()))?;
        port(layout::ACPI_SLEEP_CONTROL_PORT, layout::ACPI_PORT_COUNT, device(AcpiPower::new()))?;
        let mut attached = Vec::with_capacity(virtio.len());
        for (window, device) in virtio {
            attached.push(attach(device, window, vm, &mut buses.mmio, waker(window))?);
        }
        let power_button = IrqLine::new(Arc::clone(vm), layout::GED_GSI);
        Ok(Self { buses, serial, serial_line, power_button, virtio: attached })
    }
}

fn device(device: impl Device + 'static) -> Arc<Mutex<dyn Device>> {
    Arc::new(Mutex::new(device))
}
