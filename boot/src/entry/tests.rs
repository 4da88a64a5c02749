use std::io::Cursor;

use super::*;
use crate::testkit::{
    CONTENTS, KERNEL, KERNEL_ENTRY_PVH, KERNEL_ENTRY64, MIB, bytes_at, bzimage, elf, field, load, machine,
    put,
};

fn kernel() -> Kernel {
    Kernel::parse(&mut Cursor::new(KERNEL)).unwrap()
}

fn request<'a>(cmdline: &'a Cmdline, ram: &'a RamRegions, protocol: Protocol) -> BootRequest<'a> {
    BootRequest { cmdline, initrd: None, ram, protocol, rsdp: GuestAddress(layout::ACPI_START) }
}

/// boot.rst, "64-bit BOOT PROTOCOL": "the CPU must be in 64-bit mode with paging enabled. ... CS must be __BOOT_CS and
/// have execute/read permission; DS, ES, SS must be __BOOT_DS and have read/write permission; interrupt must be
/// disabled; RSI must hold the base address of the struct boot_params."
#[test]
fn linux_is_entered_in_long_mode() {
    let (mem, ram) = machine(128 * MIB);
    let cmdline = Cmdline::new("console=ttyS0").unwrap();
    let state = enter(&mem, &kernel(), &request(&cmdline, &ram, Protocol::Linux64)).unwrap();
    assert_eq!(state.protocol, Protocol::Linux64);
    assert_eq!(
        state.registers,
        Registers {
            rip: KERNEL_ENTRY64,
            rsp: layout::STACK_TOP,
            rsi: layout::BOOT_PARAMS,
            rbx: 0,
            rflags: 2,
        }
    );
    assert_eq!(
        state.control,
        ControlRegisters { cr0: 0x8000_0011, cr3: layout::PML4, cr4: 0x20, efer: 0x500 }
    );
    assert!(state.segments.code.long && !state.segments.code.big);
    assert_eq!(bytes_at(&mem, layout::CMDLINE_START, 14), b"console=ttyS0\0");
    assert_eq!(state.gdt.base, layout::GDT_START);
    assert_eq!(state.idt.limit, 0);
}

/// pvh.pandoc: "ebx: contains the physical memory address where the loader has placed the boot start info structure.
/// cr0: bit 0 (PE) must be set. All the other writeable bits are cleared. cr4: all bits are cleared. cs: must be a
/// 32-bit read/execute code segment with a base of '0' and a limit of '0xFFFFFFFF'. ds, es, ss: must be a 32-bit
/// read/write data segment ... tr: must be a 32-bit TSS (active) with a base of '0' and a limit of '0x67'. eflags: bit
/// 17 (VM) must be cleared. Bit 9 (IF) must be cleared. Bit 8 (TF) must be cleared."
#[test]
fn pvh_is_entered_in_protected_mode() {
    let (mem, ram) = machine(128 * MIB);
    let cmdline = Cmdline::new("x").unwrap();
    for protocol in [Protocol::Auto, Protocol::Pvh] {
        let state = enter(&mem, &kernel(), &request(&cmdline, &ram, protocol)).unwrap();
        assert_eq!(state.protocol, Protocol::Pvh);
        assert_eq!(state.registers.rip, u64::from(KERNEL_ENTRY_PVH));
        assert_eq!(state.registers.rbx, layout::PVH_START_INFO);
        assert_eq!(state.registers.rflags, 2);
        // ET is the bit that is not writable.
        assert_eq!(state.control, ControlRegisters { cr0: 0x11, cr3: 0, cr4: 0, efer: 0 });
        let Segments { code, data, task } = state.segments;
        assert_eq!(
            (code.base, code.limit, code.kind & 0xa, code.big, code.long),
            (0, u32::MAX, 0xa, true, false)
        );
        assert_eq!((data.base, data.limit, data.kind & 0xa, data.big), (0, u32::MAX, 2, true));
        assert_eq!((task.base, task.limit, task.kind, task.code_or_data), (0, 0x67, 0xb, false));
    }
}

#[test]
fn auto_takes_the_entry_there_is() {
    let (mem, ram) = machine(16 * MIB);
    let cmdline = Cmdline::default();
    let image = elf(2 * MIB, &[load(CONTENTS, 2 * MIB, 4, 4)], b"code");
    let kernel = Kernel::parse(&mut Cursor::new(image)).unwrap();
    let state = enter(&mem, &kernel, &request(&cmdline, &ram, Protocol::Auto)).unwrap();
    assert_eq!(state.protocol, Protocol::Linux64);
    let error = enter(&mem, &kernel, &request(&cmdline, &ram, Protocol::Pvh)).unwrap_err();
    assert!(error.to_string().starts_with("the kernel image has no PVH entry"));
}

#[test]
fn a_kernel_that_unpacks_itself_is_mapped_to_the_end_of_its_room() {
    let (mem, ram) = machine(16 * MIB);
    let mut image = bzimage(b"");
    put(&mut image, field::INIT_SIZE, &(9u32 << 20).to_le_bytes());
    put(&mut image, field::CMDLINE_SIZE, &5u32.to_le_bytes());
    let kernel = Kernel::parse(&mut Cursor::new(&image)).unwrap();
    let cmdline = Cmdline::new("quiet").unwrap();
    let state = enter(&mem, &kernel, &request(&cmdline, &ram, Protocol::Auto)).unwrap();
    assert_eq!(state.registers.rip, 2 * MIB + 0x200);
    // 2 MiB + 9 MiB is in the sixth page, and the seventh is not mapped.
    let directory = bytes_at(&mem, layout::PAGE_DIRECTORIES, 7 * 8);
    assert_eq!(directory[5 * 8..6 * 8], ((10 * MIB) | 0x83).to_le_bytes());
    assert_eq!(directory[6 * 8..], [0; 8]);

    let longer = Cmdline::new("quiet ").unwrap();
    let error = enter(&mem, &kernel, &request(&longer, &ram, Protocol::Auto)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kernel command line is 6 bytes long: this kernel takes 5 at most, shorten it"
    );
}

#[test]
fn an_initrd_outside_ram_is_refused() {
    let (mem, ram) = machine(16 * MIB);
    let cmdline = Cmdline::default();
    for (address, size) in [(16 * MIB - 4096, 4097), (20 * MIB, 1), (u64::MAX, 2)] {
        let initrd = Some(Initrd { address: GuestAddress(address), size });
        let request = BootRequest { initrd, ..request(&cmdline, &ram, Protocol::Auto) };
        let error = enter(&mem, &kernel(), &request).unwrap_err();
        assert!(matches!(error, BootError::InitrdOutsideRam { .. }), "{error}");
    }
}

/// Each page that is touched is a page fault on the host: these are all there are.
#[test]
fn few_pages_are_written() {
    let touched = |protocol| {
        let (mem, ram) = machine(16 * MIB);
        let cmdline = Cmdline::new("console=ttyS0 panic=-1").unwrap();
        enter(&mem, &kernel(), &request(&cmdline, &ram, protocol)).unwrap();
        (0..256u64).filter(|page| bytes_at(&mem, page * 4096, 4096) != [0; 4096]).collect::<Vec<_>>()
    };
    assert_eq!(touched(Protocol::Pvh), [6]);
    assert_eq!(touched(Protocol::Linux64), [6, 7, 9, 10, 11]);
}
