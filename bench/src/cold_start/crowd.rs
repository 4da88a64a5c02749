//! Starts that are not alone: several at once, and one after the other among machines that live already. And where the time
//! goes: mote tells of its phases.
//!
//! Rounds of several at once are interleaved like single starts. Among others each subject has its turn alone, since
//! nobody's machines are to wait for another's; so no ratio is computed of these.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use fastrand::Rng;

use super::{LIMIT, Starter};
use crate::headroom;
use crate::phases::{self, PHASES};
use crate::process::{Failure, Machine, Warden};
use crate::progress;
use crate::report::{chain, table};
use crate::results::{Files, ResultsError, Samples};
use crate::rounds::schedule;
use crate::statistics::Summary;
use crate::subjects::{self, Job, Mode};

/// How many at once, and in how many rounds.
const AT_ONCE: [(usize, usize); 3] = [(1, 20), (10, 5), (LARGEST, 3)];
const LARGEST: usize = 100;
/// How many others live, and how many starts are timed among them.
const AMONG: [usize; 4] = [0, 100, 300, 1000];
const STARTS: usize = 10;
/// What is left to the host, in MiB.
const MARGIN_MIB: u64 = 2048;
/// When the last of the largest crowd was ready, one entry for each round; a failure where not all were.
const LAST: &str = "request_to_last_ready_of_100";
/// Whom a crowd of would take minutes, or most of the memory.
const LEFT_OUT: [&str; 2] = ["qemu-microvm", "mote-devices"];

/// A subject's samples of a metric, in ms.
struct Series {
    subject: &'static str,
    metric: String,
    samples: Vec<Option<f64>>,
}

/// All that was found.
#[derive(Default)]
pub(super) struct Crowds {
    series: Vec<Series>,
    notes: Vec<String>,
}

impl Crowds {
    fn push(&mut self, subject: &'static str, metric: &str, sample: Option<f64>) {
        match self.series.iter_mut().find(|it| it.subject == subject && it.metric == metric) {
            Some(series) => series.samples.push(sample),
            None => {
                self.series.push(Series { subject, metric: metric.to_owned(), samples: vec![sample] });
            }
        }
    }

    fn p50(&self, subject: &str, metric: &str) -> Option<f64> {
        let series = self.series.iter().find(|it| it.subject == subject && it.metric == metric)?;
        Summary::of(&series.samples.iter().copied().flatten().collect::<Vec<_>>()).map(|it| it.p50)
    }

    /// A row for each phase, for each subject's starts at once, and for those among others.
    pub(super) fn text(&self) -> String {
        let cell = |subject: &str, metric: String| {
            self.p50(subject, &metric).map(|ms| format!("{ms:.3}")).unwrap_or_default()
        };
        let mut rows: Vec<Vec<String>> = Vec::new();
        for phase in PHASES {
            let cells = AT_ONCE.iter().map(|(count, _)| cell("mote", phase_of(phase, *count)));
            rows.push(std::iter::once(phase.to_owned()).chain(cells).collect());
        }
        let phases = table(&["mote's phases, ms, p50 of", "1", "10", "100 at once"], &rows);
        let mut subjects: Vec<&str> = self.series.iter().map(|series| series.subject).collect();
        subjects.dedup();
        subjects.sort_unstable();
        subjects.dedup();
        let row = |subject: &&str| {
            let at_once = AT_ONCE[1..].iter().map(|(count, _)| cell(subject, ready_of(*count)));
            let last = std::iter::once(cell(subject, LAST.to_owned()));
            let among = AMONG.iter().map(|live| cell(subject, ready_among(*live)));
            std::iter::once((*subject).to_owned()).chain(at_once).chain(last).chain(among).collect()
        };
        let rows: Vec<Vec<String>> = subjects.iter().map(row).collect();
        let heads = ["READY, ms, p50 of", "10", "100 at once", "their last", "among 0", "100", "300", "1000"];
        let notes: String = self.notes.iter().map(|note| format!("{note}\n")).collect();
        format!("{phases}\n{}{notes}", table(&heads, &rows))
    }

    /// Appends everything to the results.
    pub(super) fn keep(
        &self,
        files: &Files<'_>,
        version: impl Fn(&str) -> String,
    ) -> Result<(), ResultsError> {
        for Series { subject, metric, samples } in &self.series {
            files.series(&Samples { subject, metric, unit: "ms", samples }, &version(subject))?;
        }
        Ok(())
    }
}

/// From the moment at which all are asked for.
fn ready_of(count: usize) -> String {
    format!("request_to_ready_of_{count}")
}

fn ready_among(live: usize) -> String {
    format!("spawn_to_ready_among_{live}")
}

/// Alone it has the phase's own name.
fn phase_of(phase: &str, count: usize) -> String {
    let metric = phases::metric(phase);
    if count == 1 { metric } else { format!("{metric}_of_{count}") }
}

/// Times everything.
pub(super) fn measure(starters: &[Starter], random: &mut Rng, warden: &Warden) -> Crowds {
    let mut crowds = Crowds::default();
    let starters: Vec<&Starter> =
        starters.iter().filter(|starter| !LEFT_OUT.contains(&starter.name())).collect();
    for (count, rounds) in AT_ONCE {
        let turns = schedule(&vec![rounds; starters.len()], random).into_iter().flatten().collect();
        for turn in progress::over("several at once", turns) {
            at_once(starters[turn], count, warden, &mut crowds);
        }
    }
    for starter in progress::over("among others", starters) {
        if let Err(failure) = among(starter, warden, &mut crowds) {
            crowds.notes.push(format!("failed: {}, among others: {}", starter.name(), chain(&failure)));
        }
    }
    crowds
}

/// Starts so many at the same moment. Of mote each leaves its timeline; the others alone have been timed already.
fn at_once(starter: &Starter, count: usize, warden: &Warden, crowds: &mut Crowds) {
    let name = starter.name();
    if count == 1 && name != "mote" {
        return;
    }
    // Before anyone waits at the barrier, which would wait for ever for one that failed.
    let starts: Result<Vec<_>, _> = (0..count).map(|number| Start::prepare(starter, number)).collect();
    let starts = match starts {
        Ok(starts) => starts,
        Err(error) => {
            crowds
                .notes
                .push(format!("failed: {name}, {count} at once: {}", chain(&Failure::Prepare(error))));
            return;
        }
    };
    let request = Request { barrier: Barrier::new(count), made: OnceLock::new() };
    let results: Vec<_> = thread::scope(|scope| {
        let request = &request;
        let threads: Vec<_> =
            starts.into_iter().map(|start| scope.spawn(move || start.time(request, warden))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let last = results.iter().map(|result| result.as_ref().ok().map(|(ready, _)| ready.as_secs_f64() * 1e3));
    if let Some(last) = last.reduce(|one, other| Some(one?.max(other?))).filter(|_| count == LARGEST) {
        crowds.push(name, LAST, last);
    }
    for result in results {
        let result = result.map_err(|failure| {
            crowds.notes.push(format!("failed: {name}, {count} at once: {}", chain(&failure)));
        });
        let timeline = result.as_ref().ok().and_then(|(_, timeline)| phases::durations(timeline));
        for (phase, ms) in PHASES.into_iter().zip(timeline.into_iter().flatten()) {
            crowds.push(name, &phase_of(phase, count), Some(ms));
        }
        if count > 1 {
            crowds.push(name, &ready_of(count), result.ok().map(|(ready, _)| ready.as_secs_f64() * 1e3));
        }
    }
}

/// For several starts at once.
///
/// They are timed from here, and not each from its own spawn: with fewer CPUs than starts the scheduler may run one after the
/// other, from spawn to READY, and how long the others wait for their spawn would be in no figure.
struct Request {
    barrier: Barrier,
    made: OnceLock<Instant>,
}

impl Request {
    /// Waits until all are here. Returns when that was.
    fn wait(&self) -> Instant {
        self.barrier.wait();
        *self.made.get_or_init(Instant::now)
    }
}

/// One of several starts at once.
struct Start {
    command: Command,
    complaints: PathBuf,
    /// Where its phases go, if it tells of them.
    timeline: Option<PathBuf>,
}

impl Start {
    fn prepare(starter: &Starter, number: usize) -> io::Result<Self> {
        let mut command = subjects::command(&*starter.subject, &starter.job)?;
        let file = |name: &str| starter.job.file(&format!("{name}{number}"));
        let timeline = (starter.name() == "mote").then(|| file("timeline"));
        if let Some(timeline) = &timeline {
            command.arg("--timeline").arg(timeline);
        }
        Ok(Self { command, complaints: file("stderr"), timeline })
    }

    /// Starts it with all others. Returns the time from the request to READY, and the timeline.
    fn time(mut self, request: &Request, warden: &Warden) -> Result<(Duration, String), Failure> {
        let requested = request.wait();
        let mut machine = warden.spawn(&mut self.command, &self.complaints)?;
        machine.wait_until_ready(LIMIT)?;
        let ready = requested.elapsed();
        let Some(timeline) = self.timeline else { return Ok((ready, String::new())) };
        // It is written before the end, which comes without another word.
        let _end = machine.wait_until_end(LIMIT);
        Ok((ready, fs::read_to_string(timeline).unwrap_or_default()))
    }
}

/// Times starts among ever more that live.
fn among(starter: &Starter, warden: &Warden, crowds: &mut Crowds) -> Result<(), Failure> {
    let descriptors = headroom::raise_descriptor_limit();
    let job = Job::new(Mode::Idle, warden.directory()).map_err(Failure::Prepare)?;
    let mut live: Vec<Machine> = Vec::new();
    for wanted in AMONG {
        while live.len() < wanted && !progress::is_interrupted() {
            let available = headroom::available_kib().map_err(Failure::Prepare)?;
            if available < MARGIN_MIB * 1024 || live.len() >= descriptors {
                let short = if live.len() >= descriptors { "descriptors" } else { "memory" };
                crowds.notes.push(format!(
                    "left out: {}, among {wanted}: {short} for {} only",
                    starter.name(),
                    live.len()
                ));
                return Ok(());
            }
            let mut command = subjects::command(&*starter.subject, &job).map_err(Failure::Prepare)?;
            let mut machine = warden.spawn(&mut command, &job.file("stderr"))?;
            machine.wait_until_ready(LIMIT)?;
            live.push(machine);
        }
        for _ in 0..STARTS {
            if progress::is_interrupted() {
                return Ok(());
            }
            let ready = starter.time(warden).map(|times| times.ready.as_secs_f64() * 1e3);
            crowds.push(starter.name(), &ready_among(wanted), ready.ok());
        }
    }
    live.iter_mut().for_each(Machine::kill);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::Shell;

    fn starter(script: &str, warden: &Warden) -> Starter {
        Starter::new(Box::new(Shell::new(script)), warden).unwrap()
    }

    #[test]
    fn several_at_once_are_timed_and_failures_counted() {
        let (warden, mut crowds) = (Warden::start().unwrap(), Crowds::default());
        at_once(&starter("echo READY", &warden), 3, &warden, &mut crowds);
        at_once(&starter("echo no; exit 1", &warden), 3, &warden, &mut crowds);
        let [series] = &crowds.series[..] else { panic!("one subject, one metric") };
        assert_eq!((&*series.metric, series.samples.len()), ("request_to_ready_of_3", 6));
        assert_eq!(series.samples.iter().flatten().count(), 3);
        assert_eq!(crowds.notes.len(), 3);
        assert!(
            crowds.notes[0].contains("shell, 3 at once: it did not say what it should"),
            "{:?}",
            crowds.notes
        );
    }

    #[test]
    fn a_table_has_a_row_for_each_phase_and_subject() {
        let mut crowds = Crowds::default();
        crowds.push("mote", &phase_of("exec", 1), Some(1.5));
        crowds.push("mote", &ready_of(10), Some(4.0));
        crowds.push("floor", &ready_among(1000), Some(2.25));
        let text = crowds.text();
        assert!(text.contains("exec                       1.500\n"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("floor") && line.ends_with("2.250")), "{text}");
        assert!(text.lines().any(|line| line.starts_with("mote") && line.ends_with("4.000")), "{text}");
    }
}
