//! The guest that mote carries: a program without an operating system that any VMM boots, for tests and measurements.
//!
//! entry.s brings the processor to ring 3; everything here runs there. The command line picks the job (`mode=`), the serial
//! port carries the results as `key=value` lines, and every job ends by power-off.

#![no_std]
#![no_main]

mod acpi;
mod apic;
mod boot_info;
mod clock;
mod cpu;
mod dma;
mod machine;
mod memory;
mod modes;
mod options;
mod report;
mod ring0;
mod serial;
mod virtio;
mod work;

use boot_info::{BootInfo, COMMAND_LINE_LIMIT};
use machine::Machine;
use options::Options;

/// Everything after the entry code.
fn run(boot: BootInfo) -> ! {
    let machine = Machine::new(boot);
    report::set_machine(machine);
    let mut buffer = [0; COMMAND_LINE_LIMIT];
    let options = Options::parse(boot.command_line(&mut buffer));
    modes::run(machine, boot, &options)
}
