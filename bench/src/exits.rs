//! What it costs a guest to leave for KVM or for its VMM, and to be woken: seen from the guest, in cycles of the processor's time
//! stamp, and from outside as a line there and back.
//!
//! The guest measures itself (`mode=exits`): a notification of a disk's empty queue (ioeventfd), a read that it sees by
//! looking at the ring and one whose interrupt (irqfd) ends its HLT, and a wake-up from HLT by its own timer. A subject that has no
//! disk, or no timer, is named with what it lacks. Subjects run interleaved, each once a round; mote takes part twice.

use std::collections::BTreeMap;
use std::error;
use std::fs;
use std::time::Duration;

use fastrand::Rng;

use crate::binaries;
use crate::options::Options;
use crate::process::{Failure, Warden};
use crate::progress;
use crate::report::{chain, table};
use crate::results::{Comparison, Files, Run, Samples};
use crate::rounds::schedule;
use crate::statistics::{Summary, noise, pairs};
use crate::subjects::{self, Absent, Devices, Job, Subject, Subjects};

/// How often the guest does each in one run.
const COUNT: usize = 500;
/// Lines there and back in one run.
const LINES: usize = 20;
/// A guest that has not ended by then has failed.
const LIMIT: Duration = Duration::from_secs(30);
/// What is measured, in the guest's words, and what each is.
const KINDS: [(&str, &str); 8] = [
    ("pio_write", "a port that nobody has: to the VMM and back"),
    ("mmio_read", "an address that nobody has: to the VMM and back"),
    ("cpuid", "to KVM and back"),
    ("hypercall", "to KVM and back"),
    ("ioeventfd", "a notification of a disk's empty queue: to KVM, which signals an eventfd, and back"),
    ("request_polled", "a read of 4 KiB, until the used ring shows it"),
    (
        "request_interrupt",
        "the same, until its interrupt has ended the guest's HLT: the difference is irqfd and wake-up",
    ),
    ("hlt_wake_up", "from when the local APIC's timer is due until the guest is back from HLT"),
];
/// From outside: interrupt by irqfd, wake-up from HLT, and the exits of a serial port.
const WAKE_UP: &str = "line_there_and_back";
/// The disk of those that can have one.
const DISK: &str = "exits.img";
const DISK_SIZE: usize = 1 << 20;

/// Samples of one run of one subject: by metric, the median in it.
type Medians = BTreeMap<&'static str, f64>;

/// Runs everything, prints what came of it, and appends it to the results.
///
/// # Errors
/// When files cannot be written, or results cannot be kept. A subject that fails is part of what is printed.
pub fn run(subjects: Subjects, options: &Options, warden: &Warden) -> Result<(), Box<dyn error::Error>> {
    let run = Run::begin("exits", options.seed, binaries::commit());
    println!(
        "exits: {} interleaved runs, seed {}, commit {}, load {}, scheduling {}",
        options.runs, options.seed, run.commit, run.host.load, run.host.scheduling
    );
    let Subjects { present, mut absent } = subjects;
    fs::write(warden.directory().join(DISK), vec![0x5a; DISK_SIZE])?;
    let mut random = Rng::with_seed(options.seed);
    let twice = present.iter().position(|subject| subject.name() == "mote").unwrap_or(0);
    let whose: Vec<usize> = (0..present.len()).chain((twice < present.len()).then_some(twice)).collect();
    let mut rounds: Vec<Vec<Medians>> = vec![Vec::new(); whose.len()];
    let mut failures = Vec::new();
    let turns = schedule(&vec![options.runs; whose.len()], &mut random).into_iter().flatten().collect();
    for turn in progress::over("exits", turns) {
        let subject = &*present[whose[turn]];
        let mut medians = Medians::new();
        for result in
            [from_inside(subject, warden), from_outside(subject, warden).map(|found| (found, Vec::new()))]
        {
            match result {
                Ok((found, lacks)) => {
                    medians.extend(found);
                    let lacks = lacks.into_iter().map(|reason| Absent { name: subject.name(), reason });
                    absent.extend(lacks.filter(|it| !absent.contains(it)).collect::<Vec<_>>());
                }
                Err(failure) => failures.push(format!("{}: {}", subject.name(), chain(&failure))),
            }
        }
        rounds[turn].push(medians);
    }
    let again = if rounds.len() > present.len() { rounds.pop() } else { None };
    let names: Vec<&'static str> = present.iter().map(|subject| subject.name()).collect();
    let named: Vec<_> = names.iter().copied().zip(&rounds).collect();
    let mut comparisons = compare(&named, &mut random);
    println!("\n{}", text(&named, &comparisons));
    if let (Some(again), Some(&(name, first))) = (&again, named.get(twice)) {
        for metric in metrics() {
            let pairs = pairs(&series(again, metric), &series(first, metric));
            println!("{metric}, {}", noise(name, &pairs, &mut random));
            comparisons.extend(Comparison::of(name, name, metric, &pairs, &mut random));
        }
    }
    for failure in failures {
        println!("failed: {failure}");
    }
    for Absent { name, reason } in &absent {
        println!("absent: {name}: {reason}");
    }
    let files = Files::of(&run, &binaries::results_directory()?);
    for (subject, (name, rounds)) in present.iter().zip(&named) {
        for metric in metrics() {
            let samples = series(rounds, metric);
            if samples.iter().any(Option::is_some) {
                let samples = Samples { subject: name, metric, unit: unit(metric), samples: &samples };
                files.series(&samples, &subject.version())?;
            }
        }
    }
    files.absent(&absent)?;
    Ok(files.finish(&comparisons)?)
}

/// The guest's own figures, and what it could not measure.
fn from_inside(subject: &dyn Subject, warden: &Warden) -> Result<(Medians, Vec<String>), Failure> {
    let command_line = format!("mode=exits n={COUNT}");
    let disk = subject.reading_job().is_some().then(|| warden.directory().join(DISK));
    let devices = Devices { disk, ..Devices::default() };
    let job = Job::with_devices(command_line, devices, warden.directory()).map_err(Failure::Prepare)?;
    let mut command = subjects::command(subject, &job).map_err(Failure::Prepare)?;
    let mut machine = warden.spawn(&mut command, &job.file("stderr"))?;
    machine.wait_until_ready(LIMIT)?;
    let said = machine.wait_until_end(LIMIT)?;
    let medians = parse(&said);
    if medians.is_empty() {
        return Err(Failure::Output("no line `exit=`".into()));
    }
    Ok((medians, lacks(&said)))
}

/// The medians in what the guest has said.
fn parse(said: &str) -> Medians {
    let value = |line: &str, key: &str| -> Option<String> {
        line.split_whitespace().find_map(|word| word.strip_prefix(key)).map(str::to_owned)
    };
    let median = |(kind, _): &(&'static str, &str)| {
        let line = said.lines().find(|line| value(line, "exit=").as_deref() == Some(*kind))?;
        Some((*kind, value(line, "p50=")?.parse().ok()?))
    };
    KINDS.iter().filter_map(median).collect()
}

/// What the guest says that it has left out, and why.
fn lacks(said: &str) -> Vec<String> {
    let skipped =
        |line: &str| line.trim_end().strip_prefix("skipped=").map(|it| it.replacen(" reason=", ": ", 1));
    said.lines().filter_map(skipped).collect()
}

/// The median of some lines there and back; nothing of a subject that cannot be asked.
fn from_outside(subject: &dyn Subject, warden: &Warden) -> Result<Medians, Failure> {
    // The floor has no input.
    if !subject.listens() || subject.name() == "floor" {
        return Ok(Medians::new());
    }
    let job = Job::with_devices("mode=echo".into(), Devices::default(), warden.directory())
        .map_err(Failure::Prepare)?;
    let mut command = subjects::command(subject, &job).map_err(Failure::Prepare)?;
    let mut machine = warden.spawn_to_ask(&mut command, &job.file("stderr"))?;
    machine.wait_until_ready(LIMIT)?;
    let mut times = Vec::new();
    for _ in 0..LINES {
        match machine.ask("x", LIMIT)? {
            (answer, time) if answer == "ECHO x" => times.push(time.as_secs_f64() * 1e6),
            (answer, _) => return Err(Failure::Output(answer)),
        }
    }
    Ok(Summary::of(&times).map(|it| (WAKE_UP, it.p50)).into_iter().collect())
}

fn metrics() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, _)| *kind).chain([WAKE_UP])
}

fn unit(metric: &str) -> &'static str {
    if metric == WAKE_UP { "us" } else { "tsc_cycles" }
}

fn series(rounds: &[Medians], metric: &str) -> Vec<Option<f64>> {
    rounds.iter().map(|medians| medians.get(metric).copied()).collect()
}

/// Every subject with the floor, and mote with every other.
fn compare(named: &[(&'static str, &Vec<Medians>)], random: &mut Rng) -> Vec<Comparison<'static>> {
    let mut comparisons = Vec::new();
    for &(above, above_rounds) in named {
        for &(below, below_rounds) in named {
            for metric in metrics().filter(|_| above != below && (below == "floor" || above == "mote")) {
                let pairs = pairs(&series(above_rounds, metric), &series(below_rounds, metric));
                comparisons.extend(Comparison::of(above, below, metric, &pairs, random));
            }
        }
    }
    comparisons
}

/// A row for each metric of each subject that has it, and what the metrics are.
fn text(named: &[(&'static str, &Vec<Medians>)], comparisons: &[Comparison<'_>]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for metric in metrics() {
        for (name, rounds) in named {
            let good: Vec<f64> = series(rounds, metric).into_iter().flatten().collect();
            let Some(summary) = Summary::of(&good) else { continue };
            let ratio = |above: &str, below: &str| {
                let found = comparisons
                    .iter()
                    .find(|it| (it.metric, it.subject, it.relative_to) == (metric, above, below));
                found
                    .map(|it| format!("{:.2} ({:.2}..{:.2})", it.ratio.ratio, it.ratio.low, it.ratio.high))
                    .unwrap_or_default()
            };
            let figures = [summary.min, summary.p50, summary.p99].map(|it| format!("{it:.0}"));
            let head = [metric.to_owned(), (*name).to_owned(), summary.n.to_string()];
            let ratios = [ratio(name, "floor"), ratio("mote", name)];
            rows.push(head.into_iter().chain(figures).chain(ratios).collect());
        }
    }
    let heads = ["exit", "subject", "n", "min", "p50", "p99", "it / floor", "mote / it"];
    let kinds: String = KINDS.iter().map(|(kind, what)| format!("{kind}: {what}; TSC cycles\n")).collect();
    format!(
        "{}\n{kinds}{WAKE_UP}: interrupt, wake-up from HLT, exits of a serial port; us\n",
        table(&heads, &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::Shell;

    #[test]
    fn the_guests_words_are_understood() {
        let said = "READY\nmote-guest proto=1\nexit=pio_write n=500 min=1 p50=250 mean=3 unit=tsc_cycles\n\
                    skipped=ioeventfd reason=no-device\r\nexit=cpuid n=500 min=1 p50=70 mean=3 unit=tsc_cycles\n";
        assert_eq!(parse(said), Medians::from([("pio_write", 250.0), ("cpuid", 70.0)]));
        assert_eq!(lacks(said), ["ioeventfd: no-device"]);
        assert!(parse("error=no-ram").is_empty() && lacks("error=no-ram").is_empty());
    }

    #[test]
    fn a_stand_in_is_measured_and_a_broken_one_fails() {
        let warden = Warden::start().unwrap();
        let good = r#"echo READY; case "$1" in mode=exits) echo exit=cpuid n=1 p50=70;; *) while read -r x; do echo "ECHO $x"; done;; esac"#;
        let good = Shell::new(good);
        assert_eq!(from_inside(&good, &warden).unwrap(), (Medians::from([("cpuid", 70.0)]), vec![]));
        assert!(from_outside(&good, &warden).unwrap()[WAKE_UP] > 0.0);
        let bad = Shell::new("echo READY; echo error=no-ram");
        assert!(matches!(from_inside(&bad, &warden), Err(Failure::Output(_))));
        assert!(from_outside(&bad, &warden).is_err());
    }

    #[test]
    fn a_table_has_a_row_where_there_is_a_figure() {
        let floor = vec![Medians::from([("cpuid", 100.0)]); 3];
        let mote = vec![Medians::from([("cpuid", 110.0), ("hypercall", 50.0)]); 3];
        let named = [("floor", &floor), ("mote", &mote)];
        let text = text(&named, &compare(&named, &mut Rng::with_seed(1)));
        assert!(text.contains("cpuid         mote  3  110  110  110  1.10 (1.10..1.10)\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("hypercall ")).count(), 1, "{text}");
    }
}
