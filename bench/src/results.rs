//! Results as lines of JSON, appended to files that scripts read.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fastrand::Rng;
use serde::Serialize;
use thiserror::Error;

use crate::host::Host;
use crate::progress;
use crate::statistics::{Ratio, Slope, Summary};
use crate::subjects::{Absent, Boundary};

/// Results could not be kept.
#[derive(Debug, Error)]
#[error("{path} could not be written: is the target directory writable?")]
pub struct ResultsError {
    path: PathBuf,
    source: io::Error,
}

/// What all results of one run have in common.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Which bench.
    pub bench: &'static str,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// The seed of its random order.
    pub seed: u64,
    /// The commit that floor and mote were built from.
    pub commit: String,
    /// Where it ran.
    pub host: Host,
}

/// A subject's samples of one metric, summarised.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement<'a> {
    /// Whose.
    pub subject: &'a str,
    /// What that subject says of its version.
    pub version: &'a str,
    /// Of what.
    pub metric: &'a str,
    /// The unit of the summary.
    pub unit: &'static str,
    /// How many runs failed, and are not in the summary.
    pub failures: usize,
    /// The samples.
    #[serde(flatten)]
    pub summary: Summary,
}

/// How two subjects' medians compare.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison<'a> {
    /// Whose median.
    pub subject: &'a str,
    /// Of what.
    pub metric: &'a str,
    /// By whose median it is divided.
    pub relative_to: &'a str,
    /// Always `ratio`.
    pub unit: &'static str,
    /// From how many rounds.
    pub n: usize,
    /// The ratio.
    #[serde(flatten)]
    pub ratio: Ratio,
}

/// A figure that many samples together give, with the interval that holds the true one in 95 of 100 such runs.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate<'a> {
    /// Whose.
    pub subject: &'a str,
    /// What that subject says of its version.
    pub version: &'a str,
    /// Of what.
    pub metric: &'a str,
    /// The unit of the slope.
    pub unit: &'static str,
    /// From how many samples.
    pub n: usize,
    /// The figure.
    #[serde(flatten)]
    pub slope: Slope,
}

impl<'a> Comparison<'a> {
    /// The comparison of two subjects by what each took in the same rounds; `None` if there is none of which that is known.
    #[must_use]
    pub fn of(
        subject: &'a str,
        relative_to: &'a str,
        metric: &'a str,
        pairs: &[(f64, f64)],
        random: &mut Rng,
    ) -> Option<Self> {
        let ratio = Ratio::of_medians(pairs, random)?;
        Some(Self { subject, metric, relative_to, unit: "ratio", n: pairs.len(), ratio })
    }
}

/// A subject that was not there, and why.
#[derive(Clone, Debug, Serialize)]
struct Missing<'a> {
    subject: &'a str,
    metric: &'static str,
    reason: &'a str,
}

/// What lies between a subject's job and its host.
#[derive(Clone, Debug, Serialize)]
struct Between<'a> {
    subject: &'a str,
    metric: &'static str,
    #[serde(flatten)]
    boundary: Boundary,
}

/// The samples themselves, in the order in which they were taken.
#[derive(Clone, Debug, Serialize)]
pub struct Samples<'a> {
    /// Whose.
    pub subject: &'a str,
    /// Of what.
    pub metric: &'a str,
    /// The unit.
    pub unit: &'static str,
    /// One for each run; none where it failed.
    pub samples: &'a [Option<f64>],
}

impl Run {
    /// A run that begins now, here.
    #[must_use]
    pub fn begin(bench: &'static str, seed: u64, commit: String) -> Self {
        let started = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        Self { bench, started, seed, commit, host: Host::detect() }
    }

    /// Appends one result of this run to `file`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&self, file: &Path, result: &impl Serialize) -> Result<(), ResultsError> {
        let failed = |source| ResultsError { path: file.to_owned(), source };
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let line = self.line(result).map_err(|error| failed(error.into()))?;
        let mut file = OpenOptions::new().create(true).append(true).open(file).map_err(failed)?;
        file.write_all(line.as_bytes()).map_err(failed)
    }

    fn command(&self) -> String {
        let variables = ["MOTE_BENCH_RUNS", "MOTE_BENCH_MACHINES", "MOTE_BENCH_SUBJECTS"];
        let set = variables.into_iter().filter_map(|name| Some((name, env::var(name).ok()?)));
        let arguments = env::args().skip(1).filter(|word| word != "--bench");
        let features = if cfg!(feature = "wasmtime") { " --features wasmtime" } else { "" };
        let bench = format!("{}{features}", self.bench);
        command(&bench, self.seed, set, &arguments.collect::<Vec<_>>())
    }

    fn line(&self, result: &impl Serialize) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Line<'a, R: Serialize> {
            #[serde(flatten)]
            result: &'a R,
            #[serde(flatten)]
            run: &'a Run,
            /// What takes the same anew, in the same random order.
            command: String,
            /// Fewer rounds than were wanted: somebody pressed Ctrl-C.
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            partial: bool,
        }
        let partial = progress::is_interrupted();
        Ok(serde_json::to_string(&Line { result, run: self, command: self.command(), partial })? + "\n")
    }
}

/// The command of a bench with these variables and arguments.
fn command<'a>(
    bench: &str,
    seed: u64,
    variables: impl Iterator<Item = (&'a str, String)>,
    arguments: &[String],
) -> String {
    let mut command = format!("MOTE_BENCH_SEED={seed} ");
    for (name, value) in variables {
        command.push_str(&format!("{name}={value} "));
    }
    command.push_str(&format!("cargo bench --bench {bench}"));
    if !arguments.is_empty() {
        command.push_str(&format!(" -- {}", arguments.join(" ")));
    }
    command
}

/// Where a run's results go: `results.jsonl`, which all benches share, and a file of samples of the bench's own.
pub struct Files<'a> {
    run: &'a Run,
    results: PathBuf,
    samples: PathBuf,
}

impl<'a> Files<'a> {
    /// The files of `run` in `directory`, which are made when something is appended.
    #[must_use]
    pub fn of(run: &'a Run, directory: &Path) -> Self {
        let samples = directory.join(format!("{}-samples.jsonl", run.bench));
        Self { run, results: directory.join("results.jsonl"), samples }
    }

    /// Appends what is neither a series nor a comparison.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn result(&self, result: &impl Serialize) -> Result<(), ResultsError> {
        self.run.append(&self.results, result)
    }

    /// Appends who was absent.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn absent(&self, absent: &[Absent]) -> Result<(), ResultsError> {
        let missing =
            |it: &Absent| self.result(&Missing { subject: it.name, metric: "absent", reason: &it.reason });
        absent.iter().try_for_each(missing)
    }

    /// Appends what a subject shares with its host, and what a job in it cannot do.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn boundary(&self, subject: &str, boundary: Boundary) -> Result<(), ResultsError> {
        self.result(&Between { subject, metric: "boundary", boundary })
    }

    /// Appends all samples of a series, those of runs that failed included.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn samples(&self, samples: &Samples<'_>) -> Result<(), ResultsError> {
        self.run.append(&self.samples, samples)
    }

    /// Appends a series: its samples, and their summary, if there is one that succeeded.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn series(&self, series: &Samples<'_>, version: &str) -> Result<(), ResultsError> {
        self.samples(series)?;
        let &Samples { subject, metric, unit, samples } = series;
        let good: Vec<f64> = samples.iter().copied().flatten().collect();
        let failures = samples.len() - good.len();
        Summary::of(&good).map_or(Ok(()), |summary| {
            self.result(&Measurement { subject, version, metric, unit, failures, summary })
        })
    }

    /// Appends the comparisons, and says where everything is.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(self, comparisons: &[Comparison<'_>]) -> Result<(), ResultsError> {
        comparisons.iter().try_for_each(|comparison| self.result(comparison))?;
        println!("results: {}\nsamples: {}", self.results.display(), self.samples.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run() -> Run {
        let host = Host { cpu: "A CPU".into(), kvm: "kvm_amd".into(), cpus: 2, load: 0.5, ..Host::default() };
        Run { bench: "cold_start", started: 1_700_000_000, seed: 7, commit: "abc-dirty".into(), host }
    }

    #[test]
    fn a_series_has_all_its_samples_and_a_summary_of_those_that_succeeded() {
        let directory = tempfile::tempdir().unwrap();
        let (run, lines) = (run(), |file: &str| -> Vec<Value> {
            let text = fs::read_to_string(directory.path().join(file)).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        });
        let files = Files::of(&run, directory.path());
        let (metric, unit) = ("spawn_to_ready", "ms");
        let samples = [Some(1.0), None, Some(3.0)];
        files.series(&Samples { subject: "mote", metric, unit, samples: &samples }, "1").unwrap();
        files.series(&Samples { subject: "floor", metric, unit, samples: &[None] }, "2").unwrap();
        files.finish(&[]).unwrap();
        let [result] = &lines("results.jsonl")[..] else { panic!("nothing has ever succeeded for floor") };
        assert_eq!(
            (&result["subject"], &result["n"], &result["failures"]),
            (&json!("mote"), &json!(2), &json!(1))
        );
        let kept = lines("cold_start-samples.jsonl");
        assert_eq!(
            kept.iter().map(|line| &line["samples"]).collect::<Vec<_>>(),
            [&json!([1.0, null, 3.0]), &json!([null])]
        );
    }

    #[test]
    fn a_result_is_one_flat_line() {
        let summary = Summary { n: 200, min: 1.5, p50: 2.0, p99: 3.0, mean: 2.25, outliers: 4 };
        let (subject, version, metric, unit) = ("mote", "mote 0.1.0", "spawn_to_ready", "ms");
        let line = run().line(&Measurement { subject, version, metric, unit, failures: 1, summary }).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let expected = json!({
            "bench": "cold_start", "subject": "mote", "version": "mote 0.1.0", "metric": "spawn_to_ready",
            "unit": "ms", "n": 200, "failures": 1, "min": 1.5, "p50": 2.0, "p99": 3.0, "mean": 2.25, "outliers": 4,
            "started": 1_700_000_000, "seed": 7, "commit": "abc-dirty",
            "host": {"cpu": "A CPU", "kernel": "", "kvm": "kvm_amd", "cpus": 2, "governor": "", "mitigations": "",
                     "memory_mib": 0, "thp": "",
                     "load": 0.5, "scheduling": ""},
        });
        let mut line = serde_json::from_str::<Value>(&line).unwrap();
        // It holds what this test was started with.
        let command = line.as_object_mut().unwrap().remove("command").unwrap();
        assert!(command.as_str().unwrap().contains("MOTE_BENCH_SEED=7 "), "{command}");
        assert_eq!(line, expected);
    }

    #[test]
    fn a_command_has_what_the_run_had() {
        let set = [("MOTE_BENCH_RUNS", "5".to_owned())].into_iter();
        let arguments = ["--at-most", "1000"].map(str::to_owned);
        let expected = "MOTE_BENCH_SEED=7 MOTE_BENCH_RUNS=5 cargo bench --bench density -- --at-most 1000";
        assert_eq!(command("density", 7, set, &arguments), expected);
        assert_eq!(command("exits", 7, [].into_iter(), &[]), "MOTE_BENCH_SEED=7 cargo bench --bench exits");
    }

    #[test]
    fn a_comparison_names_both_sides() {
        let ratio = Ratio { ratio: 1.1, low: 1.0, high: 1.2 };
        let (subject, metric, relative_to) = ("mote", "spawn_to_ready", "floor");
        let line =
            run().line(&Comparison { subject, metric, relative_to, unit: "ratio", n: 200, ratio }).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["relative_to"], &line["ratio"], &line["low"]),
            (&json!("floor"), &json!(1.1), &json!(1.0))
        );
    }

    #[test]
    fn who_was_absent_is_kept_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let run = run();
        let files = Files::of(&run, directory.path());
        files.absent(&[Absent { name: "crun", reason: "it is not on PATH".into() }]).unwrap();
        files.boundary("mote", Boundary::MACHINE).unwrap();
        let text = fs::read_to_string(directory.path().join("results.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            (&lines[0]["subject"], &lines[0]["reason"]),
            (&json!("crun"), &json!("it is not on PATH"))
        );
        assert_eq!(lines[1]["shares"], json!(Boundary::MACHINE.shares));
    }

    #[test]
    fn lines_are_appended() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bench/samples.jsonl");
        for _ in 0..2 {
            let samples = Samples { subject: "floor", metric: "m", unit: "ms", samples: &[Some(1.0), None] };
            run().append(&file, &samples).unwrap();
        }
        let text = fs::read_to_string(file).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert_eq!(
            serde_json::from_str::<Value>(text.lines().next().unwrap()).unwrap()["samples"],
            json!([1.0, null])
        );
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = run().append(Path::new("/dev/null/results.jsonl"), &json!({})).unwrap_err();
        assert!(error.to_string().starts_with("/dev/null/results.jsonl could not be written"), "{error}");
    }
}
