//! From a kernel image to guest memory and the state in which vCPU 0 starts.
//!
//! The steps, each a type that carries what was checked:
//!
//! 1. [`ram_regions`] lays out RAM around the MMIO gap.
//! 2. [`identify`] tells an ELF file from a bzImage; a bzImage is turned into its ELF file by [`unpack`], so that no
//!    decompressor runs in the guest. [`Kernel::parse`] makes the plan of what is copied where; on a bzImage that
//!    cannot be unpacked it plans the image's own 64-bit entry.
//! 3. [`Kernel::load`] carries the plan out, [`Initrd::place`] and [`Initrd::load`] do the same for the initrd.
//! 4. [`acpi::write`] describes the machine: processors, interrupt controllers, and devices, as a list of
//!    [`DeviceNode`](acpi::DeviceNode)s.
//! 5. [`enter`] writes what the boot protocol asks for (Linux 64-bit or PVH) and returns an [`EntryState`]: plain
//!    register values for whoever owns the vCPU.
//!
//! **Memory is fresh**: every function here counts on guest memory that reads as zero where it was not written, as a
//! new anonymous mapping does, and leaves zeros to it. Whoever boots a second kernel in used memory calls [`scrub`]
//! before step 3.
//!
//! The crate knows nothing of KVM, threads or devices; addresses are in [`layout`] and nowhere else. It does not run
//! firmware, does not boot 32-bit or real-mode kernels, and does not relocate: a kernel is loaded where its image says.
//! Whatever a file claims, memory and time stay bounded, and the error names the value and the cure.

#![forbid(unsafe_code)]

pub mod acpi;
mod bzimage;
mod cmdline;
mod copy;
mod entry;
mod gdt;
mod image;
mod initrd;
pub mod layout;
mod linux;
mod memory_map;
pub mod mp_table;
mod page_tables;
mod pvh;
#[cfg(test)]
mod testkit;

pub use bzimage::{HeaderError, SetupHeader, UNPACK_LIMIT, UnpackError, unpack};
pub use cmdline::{CMDLINE_MAX, Cmdline, CmdlineError};
pub use copy::read_exact;
pub use entry::{BootError, BootRequest, ControlRegisters, EntryState, Protocol, Registers, enter};
pub use gdt::{DescriptorTable, SegmentDescriptor, Segments};
pub use image::{ElfError, Format, ImageError, Kernel, Segment, identify, scrub};
pub use initrd::{Initrd, InitrdError};
pub use layout::{LayoutError, RamRegion, RamRegions, ram_regions};

// Sizes of guest memory and of files are u64; they index and measure memory of this process.
const _: () = assert!(usize::BITS == 64);
