//! What a machine costs that waits: memory of its own outside the guest's, threads, descriptors, and the binary's size.
//!
//! Many machines live at once, so that pages which they share count for none of them; one subject after the other, since
//! they do not disturb what another one holds.

use std::borrow::Cow;
use std::time::Duration;
use std::{error, fs, thread};

use crate::binaries;
use crate::footprint::{Footprint, is_static};
use crate::headroom;
use crate::options::Options;
use crate::process::{Machine, Warden};
use crate::report::{chain, table};
use crate::results::{Estimate, Files, Run, Samples};
use crate::statistics::{Slope, Summary};
use crate::subjects::{self, Absent, Job, MEMORY_MIB, Mode, Subject};

/// A machine that is not ready by then has failed.
const LIMIT: Duration = Duration::from_secs(30);
/// Time for the last machine to come to rest.
const SETTLE: Duration = Duration::from_millis(500);
/// QEMU's machines cost so much more that fewer of them tell it.
const FEW: usize = 10;

/// The sizes of the guests whose VMMs are compared, in MiB, and how many of each live at once.
const SIZES_MIB: [u64; 4] = [16, 128, 1024, 8192];
const OF_A_SIZE: usize = 5;

/// Who has guests of one size only, or is another subject's variant.
const ONE_SIZE: [&str; 2] = ["floor", "mote-devices"];

/// What is promised of mote: at most so much of each metric, and a static binary.
const PROMISES: [(&str, f64); 4] =
    [("private_memory", 140.0), ("threads", 2.0), ("descriptors", 16.0), ("binary_size", 4096.0)];

/// What is promised of five devices that the guest does not use: they add at most so much.
const DEVICES_KIB: f64 = 80.0;

/// All that is known of one subject.
struct Findings {
    name: &'static str,
    version: String,
    is_static: bool,
    metrics: Vec<Metric>,
    /// What one more takes from what is available on the host, in KiB, and from how many readings that is.
    marginal: Option<(Slope, usize)>,
}

struct Metric {
    name: Cow<'static, str>,
    unit: &'static str,
    samples: Vec<f64>,
    summary: Summary,
}

/// Measures one subject after the other, prints what came of it, and appends it to the results.
///
/// # Errors
/// When results cannot be kept. A subject that fails is part of what is printed.
pub fn run(
    subjects: &[Box<dyn Subject>],
    absent: &[Absent],
    options: &Options,
    warden: &Warden,
) -> Result<(), Box<dyn error::Error>> {
    let run = Run::begin("idle_memory", options.seed, binaries::commit());
    println!("idle_memory: {} machines at once, commit {}", options.machines, run.commit);
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for subject in subjects {
        let machines =
            if subject.name() == "qemu-microvm" { FEW.min(options.machines) } else { options.machines };
        match measure(&**subject, machines, warden) {
            Ok(findings) => all.push(findings),
            Err(error) => failed.push((subject.name(), chain(&*error))),
        }
    }
    let sizes = sizes(subjects, &mut all, &mut failed, warden);
    println!("\n{}\n{sizes}", report(&all));
    for (name, error) in failed {
        println!("failed: {name}: {error}");
    }
    for Absent { name, reason } in absent {
        println!("absent: {name}: {reason}");
    }
    for line in promises(&all) {
        println!("{line}");
    }
    keep(&run, &all)
}

/// One machine after the other, for comparisons over time.
pub struct Idlers {
    subject: Box<dyn Subject>,
    job: Job,
    /// It maps the binary all the while, so that the binary's pages count for none of the others.
    _companion: Machine,
}

impl Idlers {
    /// Starts the machine beside which all others are looked at.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn new(subject: Box<dyn Subject>, warden: &Warden) -> Result<Self, Box<dyn error::Error>> {
        let job = Job::new(Mode::Idle, warden.directory())?;
        let companion = start(&*subject, &job, warden)?;
        Ok(Self { subject, job, _companion: companion })
    }

    /// The subject's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.subject.name()
    }

    /// Starts a machine, lets it come to rest, and returns its private memory outside the guest's, in KiB.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn private_kib(&self, warden: &Warden) -> Result<u64, Box<dyn error::Error>> {
        let machine = start(&*self.subject, &self.job, warden)?;
        thread::sleep(SETTLE);
        Ok(Footprint::of(machine.id(), MEMORY_MIB * 1024)?.private_kib)
    }
}

fn start(subject: &dyn Subject, job: &Job, warden: &Warden) -> Result<Machine, Box<dyn error::Error>> {
    let mut machine = warden.spawn(&mut subjects::command(subject, job)?, &job.file("stderr"))?;
    machine.wait_until_ready(LIMIT)?;
    Ok(machine)
}

/// Starts the machines, looks at each, and ends them.
fn measure(
    subject: &dyn Subject,
    machines: usize,
    warden: &Warden,
) -> Result<Findings, Box<dyn error::Error>> {
    let job = Job::new(Mode::Idle, warden.directory())?;
    headroom::settle()?;
    let (footprints, available) = footprints(subject, &job, machines, warden)?;
    let binary = fs::read(subject.executable())?;
    let of = |figure: fn(&Footprint) -> f64| footprints.iter().map(figure).collect();
    let series: [(_, _, Vec<f64>); 6] = [
        ("private_memory", "KiB", of(|one| one.private_kib as f64)),
        ("proportional_set_size", "KiB", of(|one| one.pss_kib as f64)),
        ("page_tables", "KiB", of(|one| one.page_tables_kib as f64)),
        ("threads", "1", of(|one| one.threads as f64)),
        ("descriptors", "1", of(|one| one.descriptors as f64)),
        ("binary_size", "KiB", vec![binary.len() as f64 / 1024.0]),
    ];
    Ok(Findings {
        name: subject.name(),
        version: subject.version(),
        is_static: is_static(&binary),
        metrics: series
            .into_iter()
            .filter_map(|(name, unit, samples)| Metric::of(name.into(), unit, samples))
            .collect(),
        marginal: Slope::of_available(&available).map(|slope| (slope, available.len())),
    })
}

impl Metric {
    fn of(name: Cow<'static, str>, unit: &'static str, samples: Vec<f64>) -> Option<Self> {
        Some(Self { name, unit, summary: Summary::of(&samples)?, samples })
    }
}

/// Starts so many, and looks at each when all live; and what was available on the host after each start, in KiB.
fn footprints(
    subject: &dyn Subject,
    job: &Job,
    machines: usize,
    warden: &Warden,
) -> Result<(Vec<Footprint>, Vec<u64>), Box<dyn error::Error>> {
    let (mut live, mut available) = (Vec::with_capacity(machines), Vec::with_capacity(machines));
    for _ in 0..machines {
        live.push(start(subject, job, warden)?);
        available.push(headroom::available_kib()?);
    }
    thread::sleep(SETTLE);
    let look = |machine: &Machine| Footprint::of(machine.id(), job.memory_mib() * 1024);
    Ok((live.iter().map(look).collect::<Result<_, _>>()?, available))
}

/// Looks at machines of several sizes, of those that have them, and adds what they hold to their findings. Returns the table.
fn sizes(
    subjects: &[Box<dyn Subject>],
    all: &mut [Findings],
    failed: &mut Vec<(&'static str, String)>,
    warden: &Warden,
) -> String {
    let mut rows = Vec::new();
    for subject in subjects.iter().filter(|subject| !ONE_SIZE.contains(&subject.name())) {
        let Some(findings) = all.iter_mut().find(|it| it.name == subject.name()) else { continue };
        let mut row = vec![findings.name.to_owned()];
        for mib in SIZES_MIB {
            let job = Job::new(Mode::Idle, warden.directory()).map(|job| job.with_memory(mib));
            let found =
                job.map_err(Into::into).and_then(|job| footprints(&**subject, &job, OF_A_SIZE, warden));
            let cell = match found {
                Ok((footprints, _)) => findings.add_size(mib, &footprints),
                Err(error) => {
                    failed.push((subject.name(), format!("with {mib} MiB: {}", chain(&*error))));
                    None
                }
            };
            row.push(cell.unwrap_or_default());
        }
        rows.push(row);
    }
    let heads: Vec<String> = SIZES_MIB.iter().map(|mib| format!("{mib} MiB")).collect();
    let heads: Vec<&str> =
        std::iter::once("private + page tables, KiB, of").chain(heads.iter().map(String::as_str)).collect();
    table(&heads, &rows)
}

impl Findings {
    /// Adds what machines of `mib` hold; returns the medians.
    fn add_size(&mut self, mib: u64, footprints: &[Footprint]) -> Option<String> {
        let mut add = |name: &str, figure: fn(&Footprint) -> u64| {
            let samples = footprints.iter().map(|one| figure(one) as f64).collect();
            let metric = Metric::of(format!("{name}_of_guest_{mib}").into(), "KiB", samples)?;
            let p50 = metric.summary.p50;
            self.metrics.push(metric);
            Some(p50)
        };
        let (private, tables) = add("private_memory", |one| one.private_kib)
            .zip(add("page_tables", |one| one.page_tables_kib))?;
        Some(format!("{private:.0} + {tables:.0}"))
    }
}

fn report(all: &[Findings]) -> String {
    let heads = [
        "subject",
        "live",
        "private KiB: min",
        "p50",
        "p99",
        "PSS",
        "page tables",
        "host KiB for one more",
        "threads",
        "descriptors",
        "binary KiB",
        "static",
    ];
    let row = |findings: &Findings| {
        let summary = |name| findings.metrics.iter().find(|it| it.name == name).map(|it| it.summary);
        let figure = |name, of: fn(Summary) -> f64| {
            summary(name).map(|it| format!("{:.0}", of(it))).unwrap_or_default()
        };
        vec![
            findings.name.to_owned(),
            figure("private_memory", |it| it.n as f64),
            figure("private_memory", |it| it.min),
            figure("private_memory", |it| it.p50),
            figure("private_memory", |it| it.p99),
            figure("proportional_set_size", |it| it.p50),
            figure("page_tables", |it| it.p50),
            findings.marginal.map(|(slope, _)| slope.to_string()).unwrap_or_default(),
            figure("threads", |it| it.p99),
            figure("descriptors", |it| it.p99),
            figure("binary_size", |it| it.p50),
            if findings.is_static { "yes" } else { "no" }.to_owned(),
        ]
    };
    table(&heads, &all.iter().map(row).collect::<Vec<_>>())
}

/// Whether each promise was kept in this run: none, without mote.
fn promises(all: &[Findings]) -> Vec<String> {
    let Some(mote) = all.iter().find(|findings| findings.name == "mote") else { return Vec::new() };
    let kept = |kept| if kept { "kept" } else { "NOT KEPT" };
    let mut lines: Vec<String> = PROMISES
        .iter()
        .filter_map(|&(name, limit)| {
            let Metric { unit, summary, .. } = mote.metrics.iter().find(|metric| metric.name == name)?;
            let unit = if *unit == "1" { String::new() } else { format!(" {unit}") };
            let outcome = kept(summary.p50 <= limit);
            Some(format!("promise: p50 of mote's {name} <= {limit}{unit}: {outcome}: {:.0}", summary.p50))
        })
        .collect();
    let memory = |findings: &Findings| {
        findings
            .metrics
            .iter()
            .find(|metric| metric.name == "private_memory")
            .map(|metric| metric.summary.p50)
    };
    let with_devices = all.iter().find(|findings| findings.name == "mote-devices");
    if let Some((with, without)) = with_devices.and_then(memory).zip(memory(mote)) {
        let added = with - without;
        let outcome = kept(added <= DEVICES_KIB);
        lines.push(format!(
            "promise: five devices add <= {DEVICES_KIB} KiB to p50 of private_memory: {outcome}: {added:.0}"
        ));
    }
    lines.push(format!("promise: mote's binary is static: {}", kept(mote.is_static)));
    lines
}

fn keep(run: &Run, all: &[Findings]) -> Result<(), Box<dyn error::Error>> {
    let files = Files::of(run, &binaries::results_directory()?);
    for findings in all {
        let (subject, version) = (findings.name, &*findings.version);
        for Metric { name: metric, unit, samples: values, .. } in &findings.metrics {
            let values: Vec<_> = values.iter().copied().map(Some).collect();
            files.series(&Samples { subject, metric, unit, samples: &values }, version)?;
        }
        if let Some((slope, n)) = findings.marginal {
            let (metric, unit) = ("memory_per_machine", "KiB");
            files.result(&Estimate { subject, version, metric, unit, n, slope })?;
        }
    }
    Ok(files.finish(&[])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_adds_medians_to_what_was_found() {
        let mut mote = Findings {
            name: "mote",
            version: String::new(),
            is_static: true,
            metrics: Vec::new(),
            marginal: None,
        };
        let footprint = |private_kib| Footprint {
            private_kib,
            pss_kib: 0,
            page_tables_kib: 50,
            threads: 2,
            descriptors: 9,
        };
        assert_eq!(mote.add_size(16, &[130, 140, 190].map(footprint)).as_deref(), Some("140 + 50"));
        let names: Vec<_> = mote.metrics.iter().map(|metric| &*metric.name).collect();
        assert_eq!(names, ["private_memory_of_guest_16", "page_tables_of_guest_16"]);
        assert_eq!(mote.add_size(128, &[]), None);
    }

    #[test]
    fn promises_name_what_was_found() {
        let metric = |name, value| Metric {
            name: Cow::Borrowed(name),
            unit: "KiB",
            samples: vec![value],
            summary: Summary::of(&[value]).unwrap(),
        };
        let metrics = vec![metric("private_memory", 120.0), metric("binary_size", 5000.0)];
        let mote =
            Findings { name: "mote", version: String::new(), is_static: true, metrics, marginal: None };
        let expected = [
            "promise: p50 of mote's private_memory <= 140 KiB: kept: 120",
            "promise: p50 of mote's binary_size <= 4096 KiB: NOT KEPT: 5000",
            "promise: mote's binary is static: kept",
        ];
        assert_eq!(promises(&[mote]), expected);
        assert!(promises(&[]).is_empty());
    }
}
