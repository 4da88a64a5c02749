//! A subject, ready to run any job.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::exit_count::{self, Counter};
use crate::process::{Failure, Machine, Warden};
use crate::processes::{self, Memory};
use crate::subjects::{self, Devices, Job, Mode, Subject};

/// What is slow is slow in its firmware, and may take so many times what others may.
const SLOW: u32 = 6;
/// How long what has done its job may take to end.
const END: Duration = Duration::from_secs(2);
/// What one says that has read all of its files.
const ALL_READ: &str = "bytes=67108864";

/// Everything that is on disk for all subjects.
#[derive(Clone, Copy)]
pub(super) struct Stock<'a> {
    /// The program of those that run processes.
    pub(super) program: &'a Path,
    /// 64 MiB to be read.
    pub(super) data: &'a Path,
    pub(super) warden: &'a Warden,
    /// What is not ready, or does not answer, by then has failed.
    pub(super) limit: Duration,
}

/// A subject, and what it runs.
pub(super) struct Contender<'a> {
    pub(super) subject: Box<dyn Subject>,
    stock: Stock<'a>,
    /// Of a subject that is a host, the process that holds all instances.
    host: RefCell<Option<Rc<RefCell<Host>>>>,
}

impl<'a> Contender<'a> {
    pub(super) fn new(subject: Box<dyn Subject>, stock: Stock<'a>) -> Self {
        Self { subject, stock, host: RefCell::new(None) }
    }

    pub(super) fn name(&self) -> &'static str {
        self.subject.name()
    }

    fn limit(&self) -> Duration {
        if self.subject.is_slow() { self.stock.limit * SLOW } else { self.stock.limit }
    }

    /// A job for this subject, to be started any number of times.
    pub(super) fn job(&self, command_line: &str) -> Result<Job, Failure> {
        let make = || -> io::Result<Job> {
            let directory = self.stock.warden.directory();
            let job = Job::with_devices(command_line.into(), Devices::default(), directory)?;
            job.add_root(self.stock.program)?;
            Ok(job)
        };
        make().map_err(Failure::Prepare)
    }

    /// The job that reads the files; `None` if the subject has no way to them.
    pub(super) fn reading_job(&self) -> Option<Result<Job, Failure>> {
        let command_line = self.subject.reading_job()?;
        Some(self.job(command_line).and_then(|mut job| {
            job.add_data(self.stock.data).map_err(Failure::Prepare)?;
            Ok(job)
        }))
    }

    /// Starts it and waits until it is ready.
    pub(super) fn start(&self, job: &Job) -> Result<(Instance, Duration), Failure> {
        if self.subject.is_host() {
            let host = self.host()?;
            let started = host.borrow_mut().add(job);
            let (number, time) = started.inspect_err(|_| {
                // Whatever is wrong with it, the next one gets a new host.
                self.host.replace(None);
            })?;
            return Ok((Instance { kind: Kind::Hosted { host, number }, limit: self.stock.limit }, time));
        }
        let mut command = subjects::command(&*self.subject, job).map_err(Failure::Prepare)?;
        let mut machine = self.stock.warden.spawn_to_ask(&mut command, &job.file("stderr"))?;
        let ready = machine.wait_until_ready(self.limit())?.ready;
        Ok((self.own(machine, ready), ready))
    }

    fn own(&self, machine: Machine, ready: Duration) -> Instance {
        Instance { kind: Kind::Own { machine, ready }, limit: self.stock.limit }
    }

    /// How often its guest leaves for the VMM, from its start to its end.
    pub(super) fn exits(&self, job: &Job, counter: &Counter) -> Result<usize, Failure> {
        let command = subjects::command(&*self.subject, job).map_err(Failure::Prepare)?;
        let trace = job.file("trace");
        let mut watched = counter.watch(&command, &trace);
        let mut machine = self.stock.warden.spawn_to_ask(&mut watched, &job.file("stderr"))?;
        let ready = machine.wait_until_ready(self.stock.limit * SLOW)?.ready;
        self.own(machine, ready).let_end()?;
        exit_count::count(&trace).map_err(Failure::Read)
    }

    /// What the process holds that holds all instances, if there is such a process.
    pub(super) fn host_memory(&self) -> Result<Option<Memory>, Failure> {
        let host = self.subject.is_host().then(|| self.host()).transpose()?;
        Ok(host.map(|host| processes::memory(&[host.borrow().machine.id()])))
    }

    fn host(&self) -> Result<Rc<RefCell<Host>>, Failure> {
        if let Some(host) = &*self.host.borrow() {
            return Ok(Rc::clone(host));
        }
        let host = Rc::new(RefCell::new(Host::start(&*self.subject, self.stock)?));
        self.host.replace(Some(Rc::clone(&host)));
        Ok(host)
    }
}

/// A process that holds instances.
struct Host {
    machine: Machine,
    started: usize,
    limit: Duration,
}

impl Host {
    fn start(subject: &dyn Subject, Stock { warden, limit, .. }: Stock<'_>) -> Result<Self, Failure> {
        let job = Job::new(Mode::Idle, warden.directory()).map_err(Failure::Prepare)?;
        let mut command = subjects::command(subject, &job).map_err(Failure::Prepare)?;
        let mut machine = warden.spawn_to_ask(&mut command, &warden.directory().join("host-stderr"))?;
        machine.wait_until_ready(limit)?;
        Ok(Self { machine, started: 0, limit })
    }

    fn ask(&mut self, line: &str) -> Result<(String, Duration), Failure> {
        self.machine.ask(line, self.limit)
    }

    /// Starts an instance, and returns its number.
    fn add(&mut self, job: &Job) -> Result<(usize, Duration), Failure> {
        let data = job.data_word().unwrap_or_default();
        let (answer, time) = self.ask(&format!("start {} {data}", job.command_line()))?;
        if answer != "READY" {
            return Err(Failure::Output(answer));
        }
        self.started += 1;
        Ok((self.started - 1, time))
    }
}

/// One that runs. It ends when this is dropped.
pub(super) struct Instance {
    kind: Kind,
    limit: Duration,
}

enum Kind {
    /// A process of its own, and those that it has started.
    Own { machine: Machine, ready: Duration },
    /// One of many in a process.
    Hosted { host: Rc<RefCell<Host>>, number: usize },
}

impl Instance {
    /// Sends a line and waits for the answer to it, which is what it took.
    pub(super) fn ask(&mut self, line: &str) -> Result<Duration, Failure> {
        let answer = match &mut self.kind {
            Kind::Own { machine, .. } => machine.ask(line, self.limit)?,
            Kind::Hosted { host, number } => host.borrow_mut().ask(&format!("ask {number} {line}"))?,
        };
        match answer {
            (answer, time) if answer == format!("ECHO {line}") => Ok(time),
            (answer, _) => Err(Failure::Output(answer)),
        }
    }

    /// Waits until it has read all of its files, which it does after READY. Returns what that took, and how often a machine had to
    /// leave its guest for it, if the guest tells.
    pub(super) fn read(&mut self) -> Result<(Duration, Option<u64>), Failure> {
        match &mut self.kind {
            Kind::Own { machine, ready } => {
                let (said, time) = machine.wait_for(ALL_READ, *ready + self.limit)?;
                let notifications =
                    said.split_whitespace().find_map(|word| word.strip_prefix("notifications="));
                Ok((time - *ready, notifications.and_then(|count| count.parse().ok())))
            }
            Kind::Hosted { host, number } => match host.borrow_mut().ask(&format!("read {number}"))? {
                (answer, time) if answer == ALL_READ => Ok((time, None)),
                (answer, _) => Err(Failure::Output(answer)),
            },
        }
    }

    /// All its processes.
    pub(super) fn processes(&self) -> Vec<u32> {
        match &self.kind {
            Kind::Own { machine, .. } => processes::tree(machine.id()),
            Kind::Hosted { host, .. } => vec![host.borrow().machine.id()],
        }
    }

    /// Waits until it has ended of itself, for a while, so that its end is not in the next one's time.
    ///
    /// # Errors
    /// When it says something after READY, such as READY.
    pub(super) fn let_end(mut self) -> Result<(), Failure> {
        let Kind::Own { machine, .. } = &mut self.kind else { return Ok(()) };
        match machine.wait_until_end(machine.age() + END) {
            Ok(more) => Err(Failure::Output(more)),
            // Without a word, as it should. One that takes longer is ended.
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        match &self.kind {
            // Before the first is killed: it is by their parents that the others are known.
            Kind::Own { .. } => processes::kill(&self.processes()),
            Kind::Hosted { host, number } => {
                // A host that does not answer has ended, and all its instances with it.
                let _ended = host.borrow_mut().ask(&format!("end {number}"));
            }
        }
    }
}
