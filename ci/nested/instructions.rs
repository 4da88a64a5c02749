//! A QEMU plugin for the nested host: where the instructions go between two marks of a guest.
//!
//! Arguments: `out=FILE`, `stalled=FILE`, and `profile=FILE` where one wants to know more. A phase begins and ends with an
//! instruction that does nothing, `nopl BEGIN(%rax)` and `nopl END(%rax)`, executed by anybody. At its end one line is
//! appended to `out`:
//!
//!     vmm peer host guest_user guest_kernel copied exits calls
//!
//! The first five are instructions: of the VMM, of the peer it talks to (linked to [`PEER_BEGIN`]), of the host's kernel, of
//! the guest. Iterations of string instructions, which copy one or eight bytes each, are in `copied` and nowhere else. `exits` counts VMRUN, and `calls` the system calls of VMMs.
//! To `profile` go lines `phase class address instructions` for each block of code that ran; a class is a column's number.
//!
//! Exact for one virtual processor (`-icount`), but for blocks that end in a fault: all of their instructions count.
//!
//! Where a guest waits for a spin lock for ever, a line is appended to `stalled`. QEMU's VMRUN leaves the vector of an
//! interrupt that it injects behind as if it were still to be delivered (`helper_vmrun`, `SVM_EVTINJ_TYPE_INTR`:
//! `exception_index`). Where the instruction budget of `-icount` runs out before the guest's next exit, the interrupt is
//! delivered once more, whether or not the guest has interrupts enabled; and if its handler held a lock just then, nobody is
//! left to release it. Two more marks let who starts the guest again take back what was counted of the one that has stalled.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

/// The displacements of instructions: a phase begins, and ends; all lines up to here are kept; those since are taken back.
const BEGIN: u32 = 0x6d6f_7401;
const END: u32 = BEGIN + 1;
const KEEP: u32 = BEGIN + 2;
const FORGET: u32 = BEGIN + 3;
const VMRUN: [u8; 3] = [0x0f, 0x01, 0xd8];
const SYSCALL: [u8; 2] = [0x0f, 0x05];
const PAUSE: [u8; 2] = [0xf3, 0x90];
/// So many PAUSEs of a guest with no instruction outside kernels in between are no wait that ends: some 100 ms of a delay
/// by the time-stamp counter, which kernels do not do with guests that have none but virtio devices.
const ENDLESS: u64 = 1 << 24;
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
static PAUSES: AtomicU64 = AtomicU64::new(0);
/// Where the host goes on when the guest exits.
static AFTER_VMRUN: AtomicU64 = AtomicU64::new(0);
static BLOCKS: Mutex<Vec<&Block>> = Mutex::new(Vec::new());
static OUTPUT: OnceLock<Mutex<Output>> = OnceLock::new();

struct Output {
    out: Lines,
    profile: Option<Lines>,
    stalled: Option<File>,
    phase: usize,
    kept_phase: usize,
}

/// A file that can be taken back to where it was kept.
struct Lines {
    file: File,
    kept: u64,
}

impl Lines {
    fn create(path: &str) -> Option<Self> {
        Some(Self { file: File::create(path).ok()?, kept: 0 })
    }

    fn keep(&mut self) {
        self.kept = self.file.stream_position().unwrap_or(self.kept);
    }

    fn forget(&mut self) {
        // Where that fails there are too many lines, which who reads them sees.
        let _ = self.file.set_len(self.kept).and_then(|()| self.file.seek(SeekFrom::Start(self.kept)));
    }
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
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: *mut Insn,
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
    let (mut out, mut profile, mut stalled) = (None, None, None);
    for index in 0..count as usize {
        // SAFETY: the caller's promise.
        let argument = unsafe { CStr::from_ptr(*arguments.add(index)) }.to_string_lossy();
        match argument.split_once('=') {
            Some(("out", path)) => out = Lines::create(path),
            Some(("profile", path)) => profile = Lines::create(path),
            Some(("stalled", path)) => stalled = OpenOptions::new().append(true).open(path).ok(),
            _ => return 1,
        }
    }
    let Some(out) = out else { return 1 };
    let _ = OUTPUT.set(Mutex::new(Output { out, profile, stalled, phase: 0, kept_phase: 0 }));
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
        let (insn, code, address) = unsafe {
            let insn = qemu_plugin_tb_get_insn(tb, index);
            let code = std::slice::from_raw_parts(qemu_plugin_insn_data(insn), qemu_plugin_insn_size(insn));
            (insn, code, qemu_plugin_insn_vaddr(insn))
        };
        if code == PAUSE {
            // SAFETY: an instruction of the block that is translated; 0 as below, and no data.
            unsafe { qemu_plugin_register_vcpu_insn_exec_cb(insn, paused, 0, std::ptr::null_mut()) };
        }
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
                if (BEGIN..=FORGET).contains(&mark) {
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
    if block.address < KERNEL_BEGIN {
        PAUSES.store(0, Relaxed);
    }
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
        Some(BEGIN) => begin(),
        Some(END) if COUNTING.load(Relaxed) => end(),
        Some(KEEP) => keep(),
        Some(FORGET) => forget(),
        _ => {}
    }
}

extern "C" fn paused(_cpu: c_uint, _data: *mut c_void) {
    if !IN_GUEST.load(Relaxed) {
        return;
    }
    let pauses = PAUSES.load(Relaxed) + 1;
    PAUSES.store(pauses, Relaxed);
    // Once, until something else than kernels has run again.
    if pauses == ENDLESS
        && let Some(output) = OUTPUT.get()
    {
        // Where that fails, the nested host stalls, which ci/testbed --stall sees.
        let _ = output
            .lock()
            .expect("not poisoned")
            .stalled
            .as_mut()
            .map(|stalled| stalled.write_all(b"stalled\n"));
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
    let _ = writeln!(output.out.file, "{}", words.join(" "));
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
    let _ = profile.file.write_all(text.as_bytes());
}

fn keep() {
    let Some(output) = OUTPUT.get() else { return };
    let mut output = output.lock().expect("not poisoned");
    output.kept_phase = output.phase;
    output.out.keep();
    output.profile.as_mut().map(Lines::keep);
}

fn forget() {
    COUNTING.store(false, Relaxed);
    let Some(output) = OUTPUT.get() else { return };
    let mut output = output.lock().expect("not poisoned");
    output.phase = output.kept_phase;
    output.out.forget();
    output.profile.as_mut().map(Lines::forget);
}
