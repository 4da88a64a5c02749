//! A QEMU plugin for the nested host: where the instructions go between two marks of a guest.
//!
//! Arguments: `out=FILE`, and `profile=FILE` where one wants to know more. A phase begins and ends with an instruction that
//! does nothing, `nopl MARK(%rax)`, executed by anybody. At its end one line is appended to `out`:
//!
//!     vmm peer host guest_user guest_kernel copied exits calls
//!
//! The first five are instructions: of the VMM, of the peer it talks to (linked to [`PEER_BEGIN`]), of the host's kernel, of
//! the guest. Iterations of string instructions, which copy one or eight bytes each, are in `copied` and nowhere else. `exits` counts VMRUN, and `calls` the system calls of VMMs.
//! To `profile` go lines `phase class address instructions` for each block of code that ran; a class is a column's number.
//!
//! Exact for one virtual processor (`-icount`), but for blocks that end in a fault: all of their instructions count.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

/// The displacement of the instruction that begins a phase; the next number ends it.
const MARK: u32 = 0x6d6f_7401;
const VMRUN: [u8; 3] = [0x0f, 0x01, 0xd8];
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Where the peer is linked to, and nobody else is.
const PEER_BEGIN: u64 = 0x1000_0000;
const PEER_END: u64 = 0x2000_0000;
const KERNEL_BEGIN: u64 = 1 << 63;

const VMM: usize = 0;
const PEER: usize = 1;
const HOST: usize = 2;
const GUEST_USER: usize = 3;
const GUEST_KERNEL: usize = 4;
const COPIED: usize = 5;
const EXITS: usize = 6;
const CALLS: usize = 7;

/// A block of code that QEMU has translated. Lives as long as QEMU, which may run it at any time.
struct Block {
    address: u64,
    /// Without string instructions: QEMU ends a block at one, and runs it again for each iteration.
    instructions: u64,
    string: bool,
    end: End,
    mark: Option<u32>,
    /// In this phase, and as what.
    runs: AtomicU64,
    class: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Plain,
    Vmrun,
    SystemCall,
}

static COUNTS: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
static COUNTING: AtomicBool = AtomicBool::new(false);
static IN_GUEST: AtomicBool = AtomicBool::new(false);
/// Where the host goes on when the guest exits.
static AFTER_VMRUN: AtomicU64 = AtomicU64::new(0);
static BLOCKS: Mutex<Vec<&Block>> = Mutex::new(Vec::new());
static OUTPUT: OnceLock<Mutex<Output>> = OnceLock::new();

struct Output {
    out: File,
    profile: Option<File>,
    phase: usize,
}

type Tb = c_void;
type Insn = c_void;

// qemu-plugin.h of QEMU 7.2.
unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: extern "C" fn(u64, *mut Tb));
    fn qemu_plugin_tb_n_insns(tb: *const Tb) -> usize;
    fn qemu_plugin_tb_get_insn(tb: *const Tb, index: usize) -> *mut Insn;
    fn qemu_plugin_insn_data(insn: *const Insn) -> *const u8;
    fn qemu_plugin_insn_size(insn: *const Insn) -> usize;
    fn qemu_plugin_insn_vaddr(insn: *const Insn) -> u64;
    fn qemu_plugin_register_vcpu_tb_exec_cb(
        tb: *mut Tb,
        callback: extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
}

/// The version of the interface that is used here.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 1;

/// # Safety
/// QEMU calls it once, with `count` strings at `arguments`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    let (mut out, mut profile) = (None, None);
    for index in 0..count as usize {
        // SAFETY: the caller's promise.
        let argument = unsafe { CStr::from_ptr(*arguments.add(index)) }.to_string_lossy();
        match argument.split_once('=') {
            Some(("out", path)) => out = File::create(path).ok(),
            Some(("profile", path)) => profile = File::create(path).ok(),
            _ => return 1,
        }
    }
    let Some(out) = out else { return 1 };
    let _ = OUTPUT.set(Mutex::new(Output { out, profile, phase: 0 }));
    // SAFETY: the callback has the type that QEMU wants, and lives for ever.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}

extern "C" fn translated(_id: u64, tb: *mut Tb) {
    // SAFETY: QEMU's block, during its translation.
    let count = unsafe { qemu_plugin_tb_n_insns(tb) };
    let mut block = Block {
        address: 0,
        instructions: count as u64,
        string: false,
        end: End::Plain,
        mark: None,
        runs: AtomicU64::new(0),
        class: AtomicUsize::new(0),
    };
    for index in 0..count {
        // SAFETY: an index of the block; data and size belong together.
        let (code, address) = unsafe {
            let insn = qemu_plugin_tb_get_insn(tb, index);
            let code = std::slice::from_raw_parts(qemu_plugin_insn_data(insn), qemu_plugin_insn_size(insn));
            (code, qemu_plugin_insn_vaddr(insn))
        };
        if index == 0 {
            block.address = address;
        }
        block.look_at(code, address);
    }
    let block: &'static Block = Box::leak(Box::new(block));
    BLOCKS.lock().expect("not poisoned").push(block);
    let data = std::ptr::from_ref(block).cast_mut().cast();
    // SAFETY: as above; the data are a `Block` that lives for ever. 0: the callback reads no registers.
    unsafe { qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, data) };
}

impl Block {
    fn look_at(&mut self, code: &[u8], address: u64) {
        match *code {
            _ if code == VMRUN => {
                self.end = End::Vmrun;
                AFTER_VMRUN.store(address + VMRUN.len() as u64, Relaxed);
            }
            _ if code == SYSCALL => self.end = End::SystemCall,
            // MOVS, CMPS, STOS, LODS and SCAS behind REP or REPNE, with or without REX.
            [0xf2 | 0xf3, 0xa4..=0xa7 | 0xaa..=0xaf]
            | [0xf2 | 0xf3, 0x40..=0x4f, 0xa4..=0xa7 | 0xaa..=0xaf] => {
                self.string = true;
                self.instructions -= 1;
            }
            [0x0f, 0x1f, 0x80, a, b, c, d] => {
                let mark = u32::from_le_bytes([a, b, c, d]);
                if mark == MARK || mark == MARK + 1 {
                    self.mark = Some(mark);
                }
            }
            _ => {}
        }
    }

    fn place(&self, in_guest: bool) -> usize {
        match (in_guest, self.address) {
            (false, KERNEL_BEGIN..) => HOST,
            (false, PEER_BEGIN..PEER_END) => PEER,
            (false, _) => VMM,
            (true, KERNEL_BEGIN..) => GUEST_KERNEL,
            (true, _) => GUEST_USER,
        }
    }
}

extern "C" fn executed(_cpu: c_uint, data: *mut c_void) {
    // SAFETY: `translated` gave it, and it lives for ever.
    let block = unsafe { &*data.cast::<Block>() };
    let mut in_guest = IN_GUEST.load(Relaxed);
    if in_guest && block.address == AFTER_VMRUN.load(Relaxed) {
        in_guest = false;
        IN_GUEST.store(false, Relaxed);
    }
    if COUNTING.load(Relaxed) {
        // One processor, one thread.
        let add = |index: usize, more: u64| COUNTS[index].store(COUNTS[index].load(Relaxed) + more, Relaxed);
        let class = block.place(in_guest);
        add(class, block.instructions);
        if block.string {
            add(COPIED, 1);
        }
        match block.end {
            End::Vmrun => add(EXITS, 1),
            End::SystemCall if class == VMM => add(CALLS, 1),
            _ => {}
        }
        block.runs.store(block.runs.load(Relaxed) + 1, Relaxed);
        block.class.store(class, Relaxed);
    }
    if block.end == End::Vmrun {
        IN_GUEST.store(true, Relaxed);
    }
    match block.mark {
        Some(MARK) => begin(),
        Some(_) if COUNTING.load(Relaxed) => end(),
        _ => {}
    }
}

fn begin() {
    COUNTS.iter().for_each(|count| count.store(0, Relaxed));
    BLOCKS.lock().expect("not poisoned").iter().for_each(|block| block.runs.store(0, Relaxed));
    COUNTING.store(true, Relaxed);
}

fn end() {
    COUNTING.store(false, Relaxed);
    let Some(output) = OUTPUT.get() else { return };
    let mut output = output.lock().expect("not poisoned");
    let words: Vec<String> = COUNTS.iter().map(|count| count.load(Relaxed).to_string()).collect();
    // Who reads the file sees what is missing.
    let _ = writeln!(output.out, "{}", words.join(" "));
    output.phase += 1;
    let phase = output.phase;
    let Some(profile) = &mut output.profile else { return };
    let mut text = String::new();
    for block in BLOCKS.lock().expect("not poisoned").iter() {
        let class = block.class.load(Relaxed);
        let spent = block.runs.load(Relaxed) * block.instructions;
        if spent > 0 {
            text += &format!("{phase} {class} {:x} {spent}\n", block.address);
        }
    }
    let _ = profile.write_all(text.as_bytes());
}
