//! One thread per virtual CPU: create it, wait for the order, run the guest, carry out what it asks for.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use boot::EntryState;
use devices::Action;

use crate::crash;
use crate::kvm::{self, KvmError, Vcpu, Vm, VmExit};
use crate::machine::{Buses, Order, Shared};
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

/// All vCPU threads of a machine; stopped and joined when dropped.
pub struct VcpuThreads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

impl VcpuThreads {
    /// Starts the threads. Each creates its virtual CPU, says so on `created`, and waits for its orders.
    pub(crate) fn spawn(
        vm: &Arc<Vm>,
        shared: &Arc<Shared>,
        cpus: u8,
        created: &Sender<Result<(), KvmError>>,
    ) -> io::Result<Self> {
        let mut threads = Self { shared: Arc::clone(shared), handles: Vec::with_capacity(cpus.into()) };
        for id in 0..cpus {
            let (vm, shared, created) = (Arc::clone(vm), Arc::clone(shared), created.clone());
            let builder = std::thread::Builder::new().name(format!("vcpu{id}")).stack_size(STACK_SIZE);
            threads.handles.push(builder.spawn(move || main(&vm, &shared, id, cpus, created))?);
        }
        Ok(threads)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.handles.len()
    }

    /// Makes every virtual CPU look for orders.
    pub(crate) fn kick(&self) {
        self.handles.iter().for_each(kvm::kick);
    }

    /// Ends them all, and waits for that.
    pub(crate) fn stop(&mut self) {
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

/// A vCPU thread's life.
fn main(vm: &Vm, shared: &Shared, id: u8, cpus: u8, created: Sender<Result<(), KvmError>>) {
    let (vcpu, answer) = match vm.create_vcpu(id, cpus) {
        Ok(vcpu) => (Some(vcpu), Ok(())),
        Err(error) => (None, Err(error)),
    };
    if id == 0 {
        shared.timeline.mark(Phase::VcpuCreated);
    }
    // Nobody listens if the builder has failed elsewhere; the order to stop comes then.
    let _ = created.send(answer);
    drop(created);
    if let Some(ending) = vcpu.and_then(|mut vcpu| live(&mut vcpu, id, shared, vm)) {
        shared.end(ending);
    }
}

/// From the first order to the last. `None`: the thread was told to stop.
fn live(vcpu: &mut Vcpu, id: u8, shared: &Shared, vm: &Vm) -> Option<Ending> {
    if !shared.control.may_run(|| {}) {
        return None;
    }
    let program = shared.program()?;
    if id == 0 {
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
                return Some(crash::report(fatal, vcpu, vm));
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
