//! `mote-bench report`: what the last run of each bench has left in `target/bench`, for people or for other programs.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use bench::binaries::results_directory;
use bench::page::{self, Format};
use bench::report::chain;
use clap::{Parser, Subcommand};

/// Tells of the results of mote's benches.
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
    },
}

fn main() -> ExitCode {
    let Command::Report { format, results, output } = Flags::parse().command;
    match report(format, results, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mote-bench: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn report(
    format: Format,
    results: Option<PathBuf>,
    output: Option<PathBuf>,
) -> Result<(), Box<dyn std::error::Error>> {
    let directory = results.map_or_else(results_directory, Ok)?;
    let text = page::render(&page::load(&directory)?, format)?;
    match output {
        Some(file) => fs::write(&file, text).map_err(|error| {
            io::Error::new(error.kind(), format!("{} could not be written: {error}", file.display()))
        })?,
        None => io::stdout().write_all(text.as_bytes())?,
    }
    Ok(())
}
