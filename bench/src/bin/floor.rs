//! The floor under every VMM: the KVM calls that a microVM cannot do without, and nothing else.
//!
//! `floor [COMMAND LINE]` boots the embedded guest with 128 MiB, one vCPU and the in-kernel interrupt controllers, the
//! objects that mote's machine has too, passes the serial port's bytes to stdout and ends when the guest does. There is no
//! device model, no configuration and no check beyond what keeps it from lying: it is what others are measured against.
#![expect(
    unsafe_code,
    reason = "guest memory is mapped, written and given to KVM by hand: that is the point"
)]

use std::error::Error;
use std::io::Write;
use std::{io, ptr, slice};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};

const MEMORY: usize = 128 << 20;

// Where the Linux 64-bit boot protocol's tables go, and what is in them.
const GDT: u64 = 0x500;
const BOOT_PARAMS: u64 = 0x7000;
const STACK_TOP: u64 = 0x8ff0;
const PML4: u64 = 0x9000;
const PDPT: u64 = 0xa000;
const PAGE_DIRECTORY: u64 = 0xb000;
const COMMAND_LINE: u64 = 0x2_0000;
const HIGH_MEMORY: u64 = 0x10_0000;
/// Three pages that KVM wants on Intel processors, outside memory.
const KVM_TSS: usize = 0xfffb_d000;

/// Descriptors 2 and 3, as the boot protocol has them: flat 64-bit code, flat data.
const GDT_ENTRIES: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;

const SERIAL: u16 = 0x3f8;
const SERIAL_LINE_STATUS: u16 = SERIAL + 5;
const SERIAL_FREE: u8 = 0x60;
const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;

fn main() -> Result<(), Box<dyn Error>> {
    let command_line = std::env::args().nth(1).unwrap_or_else(|| "mode=ready".into());
    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;
    let memory = map_memory()?;
    let slot = kvm_userspace_memory_region {
        memory_size: MEMORY as u64,
        userspace_addr: memory.as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: `memory` is mapped for as long as this process lives.
    unsafe { vm.set_user_memory_region(slot) }?;
    vm.set_tss_address(KVM_TSS)?;
    vm.create_irq_chip()?;
    let vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    let entry = load(memory, guest_kernel::ELF);
    write_boot_params(memory, &command_line);
    enter_long_mode(memory, &vcpu, entry)?;
    run(vcpu)
}

fn map_memory() -> io::Result<&'static mut [u8]> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, at no address in particular, harms no other.
    let address =
        unsafe { libc::mmap(ptr::null_mut(), MEMORY, protection, flags | libc::MAP_NORESERVE, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping has this length, is zeroed, stays, and is written here only until the guest runs.
    Ok(unsafe { slice::from_raw_parts_mut(address.cast(), MEMORY) })
}

/// Copies the loadable segments of the guest, which this very build has linked, and returns its entry point.
fn load(memory: &mut [u8], elf: &[u8]) -> u64 {
    const LOADABLE: u64 = 1;
    let field = |offset: usize, size: usize| {
        elf[offset..offset + size].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    };
    let (entry, headers, count) = (field(0x18, 8), field(0x20, 8), field(0x38, 2));
    for header in (0..count).map(|index| (headers + index * 0x38) as usize) {
        if field(header, 4) == LOADABLE {
            let [offset, address, size] = [0x8, 0x18, 0x20].map(|at| field(header + at, 8) as usize);
            memory[address..address + size].copy_from_slice(&elf[offset..offset + size]);
        }
    }
    entry
}

/// The zero page: a setup header, the command line, and a memory map of two entries.
fn write_boot_params(memory: &mut [u8], command_line: &str) {
    let mut write = |offset: u64, bytes: &[u8]| {
        memory[(BOOT_PARAMS + offset) as usize..][..bytes.len()].copy_from_slice(bytes);
    };
    write(0x1e8, &[2]);
    write(0x1fe, &0xaa55_u16.to_le_bytes());
    write(0x202, b"HdrS");
    write(0x210, &[0xff]);
    write(0x228, &(COMMAND_LINE as u32).to_le_bytes());
    write(0x238, &(command_line.len() as u32).to_le_bytes());
    let usable = [(0, 0x9_fc00), (HIGH_MEMORY, MEMORY as u64 - HIGH_MEMORY)];
    for (entry, (address, size)) in (0x2d0..).step_by(20).zip(usable) {
        write(entry, &u64::to_le_bytes(address));
        write(entry + 8, &u64::to_le_bytes(size));
        write(entry + 16, &1_u32.to_le_bytes());
    }
    memory[COMMAND_LINE as usize..][..command_line.len()].copy_from_slice(command_line.as_bytes());
}

/// Long mode with the first GiB mapped to itself, at `entry`.
fn enter_long_mode(memory: &mut [u8], vcpu: &VcpuFd, entry: u64) -> Result<(), Box<dyn Error>> {
    let mut write = |address: u64, value: u64| {
        memory[address as usize..][..8].copy_from_slice(&value.to_le_bytes());
    };
    write(PML4, PDPT | PRESENT_WRITABLE);
    write(PDPT, PAGE_DIRECTORY | PRESENT_WRITABLE);
    (0..512).for_each(|n| write(PAGE_DIRECTORY + n * 8, n << 21 | LARGE_PAGE | PRESENT_WRITABLE));
    (0..).zip(GDT_ENTRIES).for_each(|(n, entry)| write(GDT + n * 8, entry));

    let mut sregs = vcpu.get_sregs()?;
    let flat = kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, ..Default::default() };
    sregs.cs = kvm_segment { selector: 0x10, type_: 0xb, l: 1, ..flat };
    let data = kvm_segment { selector: 0x18, type_: 0x3, db: 1, ..flat };
    (sregs.ds, sregs.es, sregs.ss) = (data, data, data);
    (sregs.gdt.base, sregs.gdt.limit) = (GDT, size_of_val(&GDT_ENTRIES) as u16 - 1);
    // Protection and paging; physical address extension; long mode enabled and active.
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (1 << 31 | 1, PML4, 1 << 5, 1 << 10 | 1 << 8);
    vcpu.set_sregs(&sregs)?;

    let mut regs = vcpu.get_regs()?;
    (regs.rip, regs.rsi, regs.rsp, regs.rflags) = (entry, BOOT_PARAMS, STACK_TOP, 2);
    Ok(vcpu.set_regs(&regs)?)
}

fn run(mut vcpu: VcpuFd) -> Result<(), Box<dyn Error>> {
    let mut stdout = io::stdout().lock();
    loop {
        match vcpu.run()? {
            VcpuExit::IoOut(SERIAL, bytes) => {
                stdout.write_all(bytes)?;
                stdout.flush()?;
            }
            VcpuExit::IoIn(SERIAL_LINE_STATUS, bytes) => bytes.fill(SERIAL_FREE),
            VcpuExit::IoOut(KEYBOARD_COMMAND, [KEYBOARD_RESET]) | VcpuExit::Shutdown => return Ok(()),
            VcpuExit::IoOut(..) | VcpuExit::MmioWrite(..) => {}
            VcpuExit::IoIn(_, bytes) | VcpuExit::MmioRead(_, bytes) => bytes.fill(0),
            other => return Err(format!("the guest stopped: {other:?}").into()),
        }
    }
}
