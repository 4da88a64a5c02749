//! One machine from its start to its end: console, signals and time limits, in one event loop.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::termios::isatty;

use crate::console::{self, ConsoleInput, ConsoleOutput, Flushed, Key};
use crate::device_host::DeviceHost;
use crate::event_loop::{EventLoop, Interest, Waker};
use crate::machine::Machine;
use crate::outcome::{Ending, Outcome};
use crate::signals::Signals;

/// How long a line without its end waits for more before it is shown.
const FLUSH_DELAY: Duration = Duration::from_millis(2);

/// How long the reader of the last output has where the user wants the machine to end at once.
const LINGER: Duration = Duration::from_millis(250);

/// A limit beyond this is none: 100 years.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

const WAKE: u64 = 0;
const SIGNAL: u64 = 1;
const STDIN: u64 = 2;
const STDOUT: u64 = 3;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The machine's whole life.
    pub timeout: Option<Duration>,
    /// From the power button to the guest's power-off, and from the guest's end to its output's.
    pub shutdown: Duration,
}

/// What drives a machine.
pub struct Session {
    // Configuration.
    limits: Limits,
    // Wiring.
    events: EventLoop,
    devices: DeviceHost,
    machine: Machine,
    console: Arc<ConsoleOutput>,
    wake: Waker,
    signals: Signals,
    /// Stdin is a terminal in raw mode.
    terminal: bool,
    // State.
    input: ConsoleInput,
    stdin: Stdin,
    stalled: bool,
    flush_at: Option<Instant>,
    timeout_at: Option<Instant>,
    /// The power button was pressed: when patience ends, and which signal asked.
    shutdown: Option<(Instant, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stdin {
    /// Epoll says when there is something to read.
    Watched,
    /// The guest has to read first.
    Unwatched,
    /// A file: always ready.
    File,
    /// At its end.
    Closed,
}

/// What a session needs of the outside.
pub struct Wiring {
    /// The serial port's output.
    pub console: Arc<ConsoleOutput>,
    /// Rouses the loop.
    pub wake: Waker,
    /// The signals that end a machine.
    pub signals: Signals,
    /// Stdin is a terminal, and in raw mode for us.
    pub terminal: bool,
}

impl Session {
    /// A session for a machine that is about to be started; `since` is when its time began to count.
    pub fn new(mut machine: Machine, wiring: Wiring, limits: Limits, since: Instant) -> io::Result<Self> {
        let events = EventLoop::new()?;
        events.add(&wiring.wake, WAKE, Interest::Read)?;
        events.add(&wiring.signals, SIGNAL, Interest::Read)?;
        let stdin = if isatty(io::stdin()) && !wiring.terminal {
            // Others type there: to read it from the background would stop this process (SIGTTIN).
            Stdin::Closed
        } else if events.add(io::stdin(), STDIN, Interest::Read)? {
            Stdin::Watched
        } else {
            Stdin::File
        };
        let devices = machine.serve_devices(&events)?;
        Ok(Self {
            limits,
            events,
            devices,
            machine,
            console: wiring.console,
            wake: wiring.wake,
            signals: wiring.signals,
            terminal: wiring.terminal,
            input: ConsoleInput::new(wiring.terminal),
            stdin,
            stalled: false,
            flush_at: None,
            timeout_at: limits.timeout.and_then(|timeout| since.checked_add(timeout)),
            shutdown: None,
        })
    }

    /// Gives up all system calls that are not needed from here on, starts the machine, and sees it to its end.
    pub fn run(mut self) -> Ending {
        if let Err(error) = self.machine.confine_event_loop() {
            return Ending::new(Outcome::Error, crate::error_line(&error));
        }
        let ending = match self.machine.start() {
            Ok(()) => self.drive(),
            // A vCPU thread that failed before the start says more than that the machine has stopped.
            Err(error) => {
                self.machine.ending().unwrap_or_else(|| Ending::new(Outcome::Error, error.to_string()))
            }
        };
        // As in `Machine::stop`: nobody serves them any more.
        self.devices.clear();
        self.machine.stop();
        self.finish_output(ending.outcome);
        let lost = self.machine.serial_lost();
        if lost > 0 {
            log::warn!("the guest sent {lost} bytes to a serial port that was busy; they are lost");
        }
        ending
    }

    fn drive(&mut self) -> Ending {
        loop {
            if let Some(ending) = self.machine.ending() {
                return ending;
            }
            let step = match self.turn() {
                Ok(step) => step.or_else(|| self.expired()),
                Err(error) => Some(Ending::new(Outcome::Error, format!("the event loop failed: {error}"))),
            };
            if let Some(ending) = step {
                return self.machine.ending().unwrap_or(ending);
            }
        }
    }

    /// Waits once and handles what came.
    fn turn(&mut self) -> io::Result<Option<Ending>> {
        let mut ready = [false; 4];
        let deadline = if self.stdin == Stdin::File && self.input.room() > 0 && !self.input.waiting() {
            Some(Instant::now())
        } else {
            self.next_deadline()
        };
        self.events.wait(deadline, |token| {
            match usize::try_from(token).ok().and_then(|index| ready.get_mut(index)) {
                Some(flag) => *flag = true,
                None => self.devices.event(token),
            }
        })?;
        if ready[WAKE as usize] {
            self.woken()?;
        }
        if deadline.is_some() {
            self.devices.expire();
        }
        if ready[STDOUT as usize] || self.flush_at.is_some_and(|at| at <= Instant::now()) {
            self.flush()?;
        }
        if (ready[STDIN as usize] || self.stdin == Stdin::File)
            && let Some(ending) = self.read_stdin()?
        {
            return Ok(Some(ending));
        }
        if ready[SIGNAL as usize] {
            return self.signalled();
        }
        Ok(None)
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let shutdown = self.shutdown.map(|(at, _)| at);
        let devices = self.devices.next_deadline();
        [self.flush_at, self.timeout_at, shutdown, devices].into_iter().flatten().min()
    }

    /// Whether a limit has passed.
    fn expired(&self) -> Option<Ending> {
        if self.shutdown.is_none() && self.timeout_at.is_none() {
            return None;
        }
        let now = Instant::now();
        if let Some((_, signal)) = self.shutdown.filter(|(at, _)| *at <= now) {
            let seconds = self.limits.shutdown.as_secs_f64();
            let reason = format!("the guest did not power off within {seconds} s of signal {signal}");
            return Some(Ending::signal(signal, reason));
        }
        if self.timeout_at.is_some_and(|at| at <= now) {
            let seconds = self.limits.timeout.unwrap_or_default().as_secs_f64();
            return Some(Ending::new(
                Outcome::Timeout,
                format!("the guest did not end within {seconds} s (--timeout)"),
            ));
        }
        None
    }

    /// A vCPU thread has something for us: an ending (seen by `drive`), output, room for input, or a driver's request.
    fn woken(&mut self) -> io::Result<()> {
        self.wake.acknowledge();
        self.devices.woken();
        self.machine.speed_up_serial();
        if self.console.announced() && self.flush_at.is_none() {
            self.flush_at = Some(Instant::now() + FLUSH_DELAY);
        }
        self.deliver()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_at = None;
        let stalled = self.console.flush() == Flushed::Stalled;
        if stalled != self.stalled {
            self.stalled = stalled;
            if stalled {
                self.events.add(self.console.sink(), STDOUT, Interest::Write)?;
            } else {
                self.events.remove(self.console.sink())?;
            }
        }
        self.machine.serial_drained()
    }

    fn read_stdin(&mut self) -> io::Result<Option<Ending>> {
        let mut bytes = [0; 256];
        let room = self.input.room().min(bytes.len());
        if room == 0 || self.stdin == Stdin::Closed {
            return Ok(None);
        }
        if self.terminal && !console::is_ours(io::stdin().as_fd()) {
            // We were put into the background: what is typed is for others now.
            self.watch_stdin(Stdin::Closed)?;
            return Ok(None);
        }
        match rustix::io::read(io::stdin().as_fd(), &mut bytes[..room]) {
            Ok(0) => self.watch_stdin(Stdin::Closed)?,
            Ok(length) => {
                if let Some(Key::Quit) = self.input.accept(&bytes[..length]) {
                    return Ok(Some(Ending::signal(libc::SIGINT as u8, "ended by Ctrl-A x")));
                }
                self.deliver()?;
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            // A terminal that has hung up, for one: there will be no more input.
            Err(_) => self.watch_stdin(Stdin::Closed)?,
        }
        Ok(None)
    }

    /// Offers input to the guest; what it does not take waits until it has read.
    fn deliver(&mut self) -> io::Result<()> {
        // First the flag, then the offer: a guest that reads in between rouses us once too often, never too seldom.
        self.console.set_input_waits(true);
        let mut result = Ok(0);
        self.input.deliver(|bytes| {
            result = self.machine.serial_input(bytes);
            *result.as_ref().unwrap_or(&0)
        });
        result?;
        if !self.input.waiting() {
            self.console.set_input_waits(false);
        }
        match (self.stdin, self.input.room() > 0) {
            (Stdin::Watched, false) => self.watch_stdin(Stdin::Unwatched),
            (Stdin::Unwatched, true) => self.watch_stdin(Stdin::Watched),
            _ => Ok(()),
        }
    }

    fn watch_stdin(&mut self, wanted: Stdin) -> io::Result<()> {
        match (self.stdin, wanted) {
            (Stdin::Watched, Stdin::Unwatched | Stdin::Closed) => self.events.remove(io::stdin())?,
            (Stdin::Unwatched, Stdin::Watched) => {
                self.events.add(io::stdin(), STDIN, Interest::Read)?;
            }
            _ => {}
        }
        self.stdin = wanted;
        Ok(())
    }

    /// SIGTERM presses the power button once; everything else ends the machine at once.
    fn signalled(&mut self) -> io::Result<Option<Ending>> {
        let Some(signal) = self.signals.next() else {
            return Ok(None);
        };
        if i32::from(signal) == libc::SIGTERM && self.shutdown.is_none() && !self.limits.shutdown.is_zero() {
            self.machine.press_power_button()?;
            self.shutdown = Some((Instant::now() + self.limits.shutdown.min(FOREVER), signal));
            return Ok(None);
        }
        Ok(Some(Ending::signal(signal, format!("ended by signal {signal}"))))
    }

    /// The guest's last words: a reader that is merely slow gets them, one that is stuck does not hold us for ever.
    fn finish_output(&self, outcome: Outcome) {
        let patience = match outcome {
            Outcome::Signal => self.limits.shutdown.min(LINGER),
            _ => self.limits.shutdown.min(FOREVER),
        };
        let patience = Instant::now() + patience;
        let limit = self.timeout_at.map_or(patience, |at| at.min(patience));
        if !self.flush_before(limit).unwrap_or(false) {
            log::warn!("the console's reader does not read; the guest's last output is lost");
        }
    }

    /// `false`: time ran out, or another signal came.
    fn flush_before(&self, limit: Instant) -> io::Result<bool> {
        if self.console.flush() == Flushed::Empty {
            return Ok(true);
        }
        // Not the loop: nobody handles input and wake-ups any more, and they would end each wait at once.
        while self.console.flush() == Flushed::Stalled {
            if Instant::now() >= limit || self.signals.next().is_some() {
                return Ok(false);
            }
            self.console.sink().wait_writable(self.signals.as_fd(), limit)?;
        }
        Ok(true)
    }
}
