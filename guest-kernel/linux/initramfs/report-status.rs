//! `report-status N`: writes the byte N to mote's debug port, which tells the host how the guest's job ended.
//!
//! Debian's kernel has no /dev/port, so the port is opened to this process and written directly. Without the standard
//! library the program is one page, which every boot of the test initramfs unpacks. Under another VMM nobody listens
//! on the port, and nothing happens. Exits 2 for an argument that is no byte, 1 where the kernel refuses the port.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

const DEBUG_PORT: u16 = 0xf4;

// The kernel leaves argc and argv on the stack, where no Rust function can look for them.
global_asm!(".globl _start", "_start:", "mov rdi, rsp", "and rsp, -16", "call {main}", "ud2", main = sym main);

/// # Safety
/// `stack` points at what the kernel gives a new process: argc, then argc pointers to NUL-terminated strings.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the caller's promise.
    let count = unsafe { stack.read() };
    if count != 2 {
        exit(2);
    }
    // SAFETY: argv[1] is there, as argc is 2; argv[0] stands before it.
    let argument = unsafe { stack.add(2).read() } as *const u8;
    // SAFETY: the string ends in NUL, as the caller promised.
    let Some(status) = (unsafe { parse_byte(argument) }) else { exit(2) };
    if system_call(SYS_IOPERM, [DEBUG_PORT.into(), 1, 1]) != 0 {
        exit(1);
    }
    // SAFETY: ioperm gave this process the port, and writing to it changes no memory of ours.
    unsafe { asm!("out dx, al", in("dx") DEBUG_PORT, in("al") status, options(nomem, nostack)) };
    exit(0);
}

/// # Safety
/// `text` points at a string that ends in NUL.
unsafe fn parse_byte(mut text: *const u8) -> Option<u8> {
    let mut value = None;
    loop {
        // SAFETY: not past the NUL: the loop ends there.
        let digit = match unsafe { text.read() } {
            0 => return value,
            digit @ b'0'..=b'9' => digit - b'0',
            _ => return None,
        };
        value = Some(value.unwrap_or(0_u8).checked_mul(10)?.checked_add(digit)?);
        // SAFETY: as above.
        text = unsafe { text.add(1) };
    }
}

const SYS_EXIT: usize = 60;
const SYS_IOPERM: usize = 173;

fn system_call(number: usize, arguments: [usize; 3]) -> isize {
    let result;
    // SAFETY: of the two calls made here, neither reads or writes memory of this process.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") arguments[0], in("rsi") arguments[1],
            in("rdx") arguments[2], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

fn exit(status: usize) -> ! {
    loop {
        system_call(SYS_EXIT, [status, 0, 0]);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(1)
}
