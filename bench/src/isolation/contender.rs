//! A subject, ready to run any job.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::process::{Failure, Machine, Warden};
use crate::processes::{self, Memory};
use crate::subjects::{self, Devices, Job, Subject};

/// What is slow is slow in its firmware; nothing else takes as long.
const LIMIT: Duration = Duration::from_secs(10);
const SLOW_LIMIT: Duration = Duration::from_secs(60);
/// How long what has done its job may take to end.
const END: Duration = Duration::from_secs(2);

/// A subject and the program that it runs if it runs processes.
pub(super) struct Contender<'a> {
    pub(super) subject: Box<dyn Subject>,
    program: &'a Path,
    warden: &'a Warden,
}

impl<'a> Contender<'a> {
    pub(super) fn new(subject: Box<dyn Subject>, program: &'a Path, warden: &'a Warden) -> Self {
        Self { subject, program, warden }
    }

    pub(super) fn name(&self) -> &'static str {
        self.subject.name()
    }

    fn limit(&self) -> Duration {
        if self.subject.is_slow() { SLOW_LIMIT } else { LIMIT }
    }

    /// A job for this subject, to be started any number of times.
    pub(super) fn job(&self, command_line: &str) -> io::Result<Job> {
        let job = Job::with_devices(command_line.into(), Devices::default(), self.warden.directory())?;
        job.add_root(self.program)?;
        Ok(job)
    }

    /// Starts it and waits until it is ready.
    pub(super) fn start(&self, job: &Job) -> Result<(Instance, Duration), Failure> {
        let mut command = subjects::command(&*self.subject, job).map_err(Failure::Prepare)?;
        let machine = self.warden.spawn_to_ask(&mut command, &job.file("stderr"))?;
        let mut instance = Instance(machine);
        let times = instance.0.wait_until_ready(self.limit())?;
        Ok((instance, times.ready))
    }
}

/// One that runs. All its processes are killed when this is dropped.
pub(super) struct Instance(Machine);

impl Instance {
    /// Sends a line and waits for the answer to it, which is what it took.
    pub(super) fn ask(&mut self, line: &str) -> Result<Duration, Failure> {
        match self.0.ask(line, LIMIT)? {
            (answer, time) if answer == format!("ECHO {line}") => Ok(time),
            (answer, _) => Err(Failure::Output(answer)),
        }
    }

    /// All its processes.
    pub(super) fn processes(&self) -> Vec<u32> {
        processes::tree(self.0.id())
    }

    pub(super) fn memory(&self) -> Memory {
        processes::memory(&self.processes())
    }

    /// Waits until it has ended of itself, for a while, so that its end is not in the next one's time.
    pub(super) fn let_end(mut self) {
        let _said = self.0.wait_until_end(self.0.age() + END);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Before the first is killed: it is by their parents that the others are known.
        processes::kill(&self.processes());
    }
}
