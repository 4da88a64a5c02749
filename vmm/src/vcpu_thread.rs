//! One thread per virtual CPU: create it, wait for the order, run the guest, carry out what it asks for.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use boot::EntryState;
use devices::Action;
use jailer::seccomp::Thread;
use kvm_bindings::CpuId;
use kvm_ioctls::Kvm;

use crate::crash;
use crate::kvm::{self, Kickable, KvmError, Vcpu, Vm, VmExit};
use crate::machine::{Buses, Order, Shared};
use crate::memory::GuestRam;
use crate::outcome::{Ending, Outcome};
use crate::timeline::Phase;

/// The stack of a vCPU thread: dispatch to a device is shallow.
const STACK_SIZE: usize = 128 << 10;

/// What the virtual CPUs run.
pub struct Program {
    /// Where the boot CPU starts.
    pub entry: EntryState,
    /// What they reach outside RAM.
    pub buses: Buses,
}

/// What the threads need to create the VM and its virtual CPUs, as it becomes known.
struct Nursery {
    kvm: Arc<Kvm>,
    ram: Arc<GuestRam>,
    cpus: u8,
    /// What CPUID can tell a guest. `None`: it will never be known.
    cpuid: OnceLock<Option<CpuId>>,
    vm: OnceLock<Result<Arc<Vm>, Arc<KvmError>>>,
}

/// All vCPU threads of a machine; stopped and joined when dropped.
pub struct VcpuThreads {
    shared: Arc<Shared>,
    nursery: Arc<Nursery>,
    /// A thread returns its virtual CPU: to close it is not among the system calls that it may make.
    handles: Vec<JoinHandle<Option<Vcpu>>>,
    kickable: Vec<Arc<Kickable>>,
}

impl VcpuThreads {
    /// Starts the threads, before there is a VM: the first creates it, around `ram`.
    pub(crate) fn spawn(
        kvm: &Arc<Kvm>,
        ram: &Arc<GuestRam>,
        shared: &Arc<Shared>,
        cpus: u8,
    ) -> io::Result<Self> {
        let nursery = Nursery {
            kvm: Arc::clone(kvm),
            ram: Arc::clone(ram),
            cpus,
            cpuid: OnceLock::new(),
            vm: OnceLock::new(),
        };
        let mut threads = Self {
            shared: Arc::clone(shared),
            nursery: Arc::new(nursery),
            handles: Vec::with_capacity(cpus.into()),
            kickable: Vec::with_capacity(cpus.into()),
        };
        for id in 0..cpus {
            let (shared, nursery) = (Arc::clone(shared), Arc::clone(&threads.nursery));
            let kickable = Arc::<Kickable>::default();
            threads.kickable.push(Arc::clone(&kickable));
            let builder = std::thread::Builder::new().name(format!("vcpu{id}")).stack_size(STACK_SIZE);
            let handle = builder.spawn(move || {
                kickable.set_current();
                let mut vcpu = None;
                if let Some(ending) = main(id, &nursery, &shared, &mut vcpu) {
                    shared.end(ending);
                }
                vcpu
            })?;
            threads.handles.push(handle);
        }
        Ok(threads)
    }

    /// Lets each thread set its virtual CPU up, and then wait for its orders.
    pub(crate) fn set_cpuid(&self, supported: CpuId) {
        // Set twice only by a machine that is being stopped.
        let _ = self.nursery.cpuid.set(Some(supported));
    }

    /// The VM; waits for the first thread to create it.
    pub(crate) fn vm(&self) -> Result<Arc<Vm>, Arc<KvmError>> {
        self.nursery.vm.wait().clone()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.handles.len()
    }

    /// Makes every virtual CPU look for orders.
    pub(crate) fn kick(&self) {
        self.kickable.iter().for_each(|thread| kvm::kick(thread));
    }

    /// Ends them all, and waits for that.
    pub(crate) fn stop(&mut self) {
        // Threads that still wait for what CPUID can tell wait no longer; others have it.
        let _ = self.nursery.cpuid.set(None);
        self.shared.control.give(Order::Stop);
        self.kick();
        for handle in self.handles.drain(..) {
            // A thread that panicked has aborted the process, or, under test, has said so itself.
            let _ = handle.join();
        }
    }
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A vCPU thread's life, with its CPU in `place`. `None`: it was told to stop, or another thread says why.
fn main(id: u8, nursery: &Nursery, shared: &Shared, place: &mut Option<Vcpu>) -> Option<Ending> {
    if id == 0 {
        let vm = Vm::create(&nursery.kvm, Arc::clone(&nursery.ram));
        if vm.is_ok() {
            shared.timeline.mark(Phase::VmCreated);
        }
        // Only this thread sets it.
        let _ = nursery.vm.set(vm.map(Arc::new).map_err(Arc::new));
    }
    // Whoever builds the machine reports that there is no VM.
    let vm = nursery.vm.wait().as_ref().ok()?;
    let vcpu = vm.create_vcpu(id, nursery.cpus, || nursery.cpuid.wait().as_ref());
    let vcpu = match vcpu {
        Ok(vcpu) => place.insert(vcpu?),
        Err(error) => return Some(Ending::new(Outcome::Error, crate::error_line(&error))),
    };
    if id == 0 {
        shared.timeline.mark(Phase::VcpuCreated);
    }
    if let Err(error) = shared.confine(Thread::Vcpu) {
        return Some(Ending::new(Outcome::Error, crate::error_line(&error)));
    }
    // No CPU runs before all exist, and are confined.
    shared.control.count_created();
    live(vcpu, id, nursery.cpus, shared, vm)
}

/// From the first order to the last. `None`: the thread was told to stop.
fn live(vcpu: &mut Vcpu, id: u8, cpus: u8, shared: &Shared, vm: &Vm) -> Option<Ending> {
    if !shared.control.may_run(|| {}) {
        return None;
    }
    let program = shared.program()?;
    if id == 0 {
        // The guest's INIT and SIPI would be lost on a CPU that does not exist yet.
        shared.control.wait_created(cpus.into());
        if let Err(error) = vcpu.enter_at(&program.entry) {
            return Some(Ending::new(Outcome::Error, crate::error_line(&error)));
        }
        shared.timeline.mark(Phase::FirstRun);
    }
    run(vcpu, shared, &program.buses, vm)
}

/// The run loop.
fn run(vcpu: &mut Vcpu, shared: &Shared, buses: &Buses, vm: &Vm) -> Option<Ending> {
    let kicks = vcpu.arm();
    loop {
        kicks.clear();
        if !shared.control.may_run(|| vcpu.note_pause()) {
            return None;
        }
        let exit = match vcpu.run() {
            Ok(exit) => exit,
            Err(error) => return Some(crash::run_failed(&error)),
        };
        shared.timeline.mark(Phase::FirstExit);
        let action = match exit {
            VmExit::PioOut { port, width, data } => write_port(buses, port, width, data),
            VmExit::PioIn { port, width, data } => {
                data.chunks_mut(width).for_each(|chunk| buses.pio.read(u64::from(port), chunk));
                continue;
            }
            VmExit::MmioWrite { address, data } => buses.mmio.write(address, data),
            VmExit::MmioRead { address, data } => {
                buses.mmio.read(address, data);
                continue;
            }
            VmExit::Interrupted => continue,
            fatal => {
                let fatal = crash::Fatal::from(&fatal);
                return Some(crash::report(fatal, vcpu, vm, shared.emulator()));
            }
        };
        if let Some(ending) = carry_out(action, shared) {
            return Some(ending);
        }
    }
}

/// A string output is as many writes; the machine acts on the first that asks it to.
fn write_port(buses: &Buses, port: u16, width: usize, data: &[u8]) -> Action {
    data.chunks(width)
        .map(|chunk| buses.pio.write(u64::from(port), chunk))
        .find(|&action| action != Action::Continue)
        .unwrap_or_default()
}

/// What a device's write asks of the machine.
fn carry_out(action: Action, shared: &Shared) -> Option<Ending> {
    match action {
        Action::Continue | Action::Panicked { crash_loaded: true } => None,
        Action::PowerOff => Some(Ending::new(Outcome::PowerOff, "the guest powered off")),
        Action::Reset => Some(Ending::new(Outcome::Reset, "the guest asked for a reset")),
        Action::Panicked { crash_loaded: false } => {
            Some(Ending::new(Outcome::Panic, "the guest's kernel panicked: see its console"))
        }
        Action::GuestStatus(status) => {
            shared.set_guest_status(status);
            None
        }
        Action::GuestReady => {
            shared.timeline.mark(Phase::GuestReady);
            None
        }
    }
}
