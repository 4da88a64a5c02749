//! A machine: memory, devices and virtual CPUs, and the states it goes through.
//!
//! [`build`] makes one from a [`VmConfig`](crate::config::VmConfig) in a dozen steps; [`Machine`] is then started, paused, resumed and stopped.
//! Each transition is asked for and answered: a machine is [`Paused`](Lifecycle::Paused) when every virtual CPU
//! has left the guest, not when it has been told to.

mod attach;
mod builder;
mod control;
mod devices;
mod platform;
mod shared;
mod window;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::devices::Trigger;
use boot::EntryState;
use jailer::seccomp::{InstallError, Thread};

pub use attach::Attached;
pub use builder::{BuildError, build};
pub use control::{Order, RunControl};
pub use platform::{Buses, SerialPort};
pub use shared::Shared;
pub use window::Window;

use crate::device_host::DeviceHost;
use crate::event_loop::{EventLoop, Waker};
use crate::io_threads::IoThread;
use crate::kvm::{FastLine, IrqLine};
use crate::outcome::Ending;
use crate::vcpu_thread::{Program, VcpuThreads};
use platform::Platform;

/// A virtual CPU that has not left the guest after this long never will.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// Where a machine is in its life: created, running and paused in turn, stopped for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// Built; no guest code has run.
    Created,
    /// The guest runs.
    Running,
    /// No virtual CPU is in the guest; all state is at rest.
    Paused,
    /// The guest has ended or was stopped.
    Stopped,
}

/// A transition that could not be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleError {
    /// The machine is not in a state from which this leads anywhere.
    #[error("a machine that is {from:?} cannot be {wanted}")]
    Illegal {
        /// The state it is in.
        from: Lifecycle,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A virtual CPU did not leave the guest.
    #[error("a vCPU did not leave the guest within {} seconds", PAUSE_LIMIT.as_secs())]
    Unresponsive,
}

/// One microVM.
pub struct Machine {
    // Wiring.
    shared: Arc<Shared>,
    power_button: IrqLine,
    serial: Arc<Mutex<SerialPort>>,
    serial_line: Arc<FastLine>,
    program: Option<Program>,
    threads: VcpuThreads,
    /// Those that nobody serves yet.
    devices: Vec<Attached>,
    io_wakers: Vec<Waker>,
    io_threads: Vec<IoThread>,
    // State.
    lifecycle: Lifecycle,
}

impl Machine {
    fn new(
        shared: Arc<Shared>,
        platform: Platform,
        entry: EntryState,
        threads: VcpuThreads,
        io_wakers: Vec<Waker>,
    ) -> Self {
        Self {
            shared,
            power_button: platform.power_button,
            serial: platform.serial,
            serial_line: platform.serial_line,
            program: Some(Program { entry, buses: platform.buses }),
            threads,
            devices: platform.virtio,
            io_wakers,
            io_threads: Vec::new(),
            lifecycle: Lifecycle::Created,
        }
    }

    /// Lets the virtio devices be served, once: by I/O threads, where the machine has some, else by the loop of `events`, which
    /// passes its events and wakes on to the result.
    pub fn serve_devices(&mut self, events: &EventLoop) -> std::io::Result<DeviceHost> {
        let mut devices = std::mem::take(&mut self.devices);
        for (number, waker) in self.io_wakers.iter().enumerate() {
            let mine = |device: &mut Attached| device.window.index() % self.io_wakers.len() == number;
            let mine = devices.extract_if(.., mine).collect();
            self.io_threads.push(IoThread::spawn(number, waker, mine, &self.shared)?);
        }
        Ok(DeviceHost::new(events.clone(), devices))
    }

    /// Where the machine is in its life.
    pub fn lifecycle(&self) -> Lifecycle {
        if self.shared.ending().is_some() { Lifecycle::Stopped } else { self.lifecycle }
    }

    /// Leaves the calling thread only the system calls of an event loop, if the machine has filters.
    pub fn confine_event_loop(&self) -> Result<(), InstallError> {
        self.shared.confine(Thread::Vmm)
    }

    /// Created -> running.
    pub fn start(&mut self) -> Result<(), LifecycleError> {
        let program = match (self.lifecycle(), self.program.take()) {
            (Lifecycle::Created, Some(program)) => program,
            (from, program) => {
                self.program = program;
                return Err(LifecycleError::Illegal { from, wanted: "started" });
            }
        };
        self.shared.load(program);
        self.lifecycle = Lifecycle::Running;
        self.shared.control.give(Order::Run);
        Ok(())
    }

    /// Running -> paused.
    pub fn pause(&mut self) -> Result<(), LifecycleError> {
        self.expect(Lifecycle::Running, "paused")?;
        self.shared.control.give(Order::Park);
        self.threads.kick();
        if !self.shared.control.wait_parked(self.threads.count(), PAUSE_LIMIT) {
            // Those that did park go on: the machine is still running.
            self.shared.control.give(Order::Run);
            return Err(LifecycleError::Unresponsive);
        }
        // A guest that ended on its way to the pause is stopped, not paused.
        self.lifecycle = Lifecycle::Paused;
        self.expect(Lifecycle::Paused, "paused")
    }

    /// Paused -> running.
    pub fn resume(&mut self) -> Result<(), LifecycleError> {
        self.expect(Lifecycle::Paused, "resumed")?;
        self.lifecycle = Lifecycle::Running;
        self.shared.control.give(Order::Run);
        Ok(())
    }

    /// Any state -> stopped. Returns when no virtual CPU runs any more.
    pub fn stop(&mut self) {
        self.lifecycle = Lifecycle::Stopped;
        // Devices first: a vCPU that waits for one to be reset waits no longer then.
        self.devices.clear();
        self.io_threads.clear();
        self.threads.stop();
    }

    /// How the guest ended, if it has.
    pub fn ending(&self) -> Option<Ending> {
        self.shared.ending()
    }

    /// Presses the ACPI power button: the guest is asked to shut down.
    pub fn press_power_button(&self) -> std::io::Result<()> {
        self.power_button.trigger()
    }

    /// Hands `input` to the serial port; returns how much it took.
    pub fn serial_input(&self, input: &[u8]) -> std::io::Result<usize> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner).receive(input)
    }

    /// Tells the serial port that its output has room again.
    pub fn serial_drained(&self) -> std::io::Result<()> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner).drained()
    }

    /// Makes the serial port's interrupts cheaper, if there are many. To be called whenever the event loop was roused.
    pub fn speed_up_serial(&self) {
        self.serial_line.speed_up_if_busy();
    }

    /// Bytes that the guest sent to the serial port while it had no room.
    pub fn serial_lost(&self) -> u64 {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner).lost()
    }

    fn expect(&self, state: Lifecycle, wanted: &'static str) -> Result<(), LifecycleError> {
        match self.lifecycle() {
            now if now == state => Ok(()),
            from => Err(LifecycleError::Illegal { from, wanted }),
        }
    }
}
