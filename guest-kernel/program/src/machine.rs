//! The machine's beginning and end: READY, and the job's status and power-off.

use crate::acpi::{self, SleepControl};
use crate::boot_info::BootInfo;
use crate::{cpu, ring0, serial};

/// mote's debug port: the byte that is written there is the job's status.
const DEBUG_STATUS: u16 = 0xf4;
const I8042_COMMAND: u16 = 0x64;
const I8042_PULSE_RESET: u8 = 0xfe;
/// How long a VMM may take to act, in TSC cycles: about half a second. Some stop the machine from another thread.
const PATIENCE: u64 = 1 << 30;

/// What is known about the machine.
#[derive(Clone, Copy)]
pub(crate) struct Machine {
    /// The VMM is mote: it has a debug port.
    pub(crate) is_mote: bool,
    /// The address of the ACPI root pointer, or 0.
    pub(crate) rsdp: u64,
    /// entry.s has said READY already.
    pub(crate) said_ready: bool,
}

impl Machine {
    /// Looks at the ACPI root pointer for the VMM's name.
    pub(crate) fn new(boot: BootInfo) -> Machine {
        Machine { is_mote: acpi::is_mote(boot.rsdp), rsdp: boot.rsdp, said_ready: boot.said_ready }
    }

    /// Says READY on the serial port, and before that, in one byte, on mote's debug port.
    pub(crate) fn ready(self) {
        if !self.said_ready {
            ring0::ready(serial::COM1, self.is_mote);
        }
    }

    /// Reports `status` where there is someone to report to, and powers off by every way there is until one works.
    pub(crate) fn end(self, status: Option<u8>) -> ! {
        self.end_by(status, SleepControl::find(self.rsdp))
    }

    /// The same for those who have looked for the register before they wrote over the tables.
    pub(crate) fn end_by(self, status: Option<u8>, sleep: Option<SleepControl>) -> ! {
        if self.is_mote
            && let Some(status) = status
        {
            ring0::write(DEBUG_STATUS, &[status]);
        }
        if let Some(sleep) = sleep {
            sleep.power_off();
            wait();
        }
        ring0::write(I8042_COMMAND, &[I8042_PULSE_RESET]);
        wait();
        ring0::triple_fault()
    }
}

fn wait() {
    let start = cpu::timestamp();
    while cpu::timestamp().wrapping_sub(start) < PATIENCE {
        cpu::relax();
    }
}
