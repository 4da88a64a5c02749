//! `mote-bench report`: what the last run of each bench has left in `target/bench`, for people or for other programs.
//! `mote-bench compare`: whether one build of mote starts slower than another.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bench::binaries::results_directory;
use bench::compare::{self, Verdict};
use bench::options::Options;
use bench::page::{self, Format};
use bench::report::chain;
use clap::{Parser, Subcommand};

/// Tells of the results of mote's benches, and compares builds.
#[derive(Parser)]
#[command(name = "mote-bench")]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write one page about the last run of each bench
    Report {
        /// html, markdown, json or csv
        #[arg(long, default_value = "html")]
        format: Format,
        /// Read the files *.jsonl of this directory [default: target/bench]
        #[arg(long, value_name = "DIRECTORY")]
        results: Option<PathBuf>,
        /// Write to this file instead of stdout
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// What earlier commits came to [default: bench/history.jsonl of the sources]
        #[arg(long, value_name = "FILE")]
        history: Option<PathBuf>,
    },
    /// Keep what the last runs found of their commit: one line, to be committed
    Record {
        /// Read the files *.jsonl of this directory [default: target/bench]
        #[arg(long, value_name = "DIRECTORY")]
        results: Option<PathBuf>,
        /// Add the line to this file [default: bench/history.jsonl of the sources]
        #[arg(long, value_name = "FILE")]
        history: Option<PathBuf>,
    },
    /// Start two builds of mote up to READY, interleaved, each twice a round. Exit status 3 where the second is slower: p < 0.01 by a permutation
    /// test, and its median more than 5 % larger. MOTE_BENCH_RUNS (300) and MOTE_BENCH_SEED as for the benches
    Compare {
        /// The program to compare with
        base: PathBuf,
        /// The program in question
        head: PathBuf,
    },
}

/// Rounds of a comparison, unless MOTE_BENCH_RUNS says otherwise.
const RUNS: usize = 300;
const SLOWER: u8 = 3;

fn main() -> ExitCode {
    let outcome = match Flags::parse().command {
        Command::Report { format, results, output, history } => {
            report(format, results, output, history).map(|()| ExitCode::SUCCESS)
        }
        Command::Record { results, history } => record(results, history).map(|()| ExitCode::SUCCESS),
        Command::Compare { base, head } => compare(&base, &head),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("mote-bench: {}", chain(&*error));
        ExitCode::FAILURE
    })
}

fn compare(base: &Path, head: &Path) -> Result<ExitCode, Box<dyn Error>> {
    Ok(match compare::run(base, head, &Options::from_environment(RUNS)?)? {
        Verdict::NotSlower => ExitCode::SUCCESS,
        Verdict::Slower => ExitCode::from(SLOWER),
    })
}

fn report(
    format: Format,
    results: Option<PathBuf>,
    output: Option<PathBuf>,
    history: Option<PathBuf>,
) -> Result<(), Box<dyn Error>> {
    let directory = results.map_or_else(results_directory, Ok)?;
    let history = page::history::read(&history.unwrap_or_else(history_file))?;
    let text = page::render(&page::load(&directory)?.with_history(history), format)?;
    match output {
        Some(file) => fs::write(&file, text).map_err(|error| {
            io::Error::new(error.kind(), format!("{} could not be written: {error}", file.display()))
        })?,
        None => io::stdout().write_all(text.as_bytes())?,
    }
    Ok(())
}

fn record(results: Option<PathBuf>, history: Option<PathBuf>) -> Result<(), Box<dyn Error>> {
    let directory = results.map_or_else(results_directory, Ok)?;
    let file = history.unwrap_or_else(history_file);
    let (commit, others) = page::history::record(&page::load(&directory)?, &file)?;
    println!("{commit}: its line is in {}", file.display());
    for bench in others {
        println!("left out: {bench}: its last run was of another commit, or interrupted");
    }
    Ok(())
}

fn history_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("history.jsonl")
}
