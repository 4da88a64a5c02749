//! The guest's counterpart for everything that is a process on the host, in a container or not: the same jobs under the same
//! words, `mode=ready`, `mode=idle` and `mode=echo` (see the crate guest-kernel), spoken on stdin and stdout; and `mode=read` instead of a disk.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;
use std::thread;

/// The guest's own arithmetic: what is compared has to be the same.
#[path = "../../../guest-kernel/program/src/work.rs"]
mod work;

use work::work;

/// Bytes read at once.
const PIECE: usize = 128 << 10;

fn main() -> io::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
    match value("mode=").unwrap_or("ready") {
        "ready" => say("READY")?,
        "idle" => idle()?,
        "echo" => echo(value("n=").and_then(|steps| steps.parse().ok()).unwrap_or(0))?,
        "read" => read(value("data=").unwrap_or("/data"))?,
        other => {
            say(&format!("error=unknown-mode detail={other}"))?;
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn idle() -> io::Result<()> {
    say("READY")?;
    loop {
        thread::park();
    }
}

/// Sends back each line after so many steps of arithmetic, until `exit` or the end.
fn echo(steps: u64) -> io::Result<()> {
    say("READY")?;
    for line in io::stdin().lock().lines() {
        match &*line? {
            "exit" => break,
            line => {
                work(steps);
                say(&format!("ECHO {line}"))?;
            }
        }
    }
    Ok(())
}

/// Reads a file to its end, as much at once as the guest reads of its disk.
fn read(path: &str) -> io::Result<()> {
    say("READY")?;
    let (mut file, mut buffer, mut bytes) = (File::open(path)?, vec![0; PIECE], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => bytes += count,
        }
    }
    say(&format!("bytes={bytes}"))
}

/// One line in one write, at once.
fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes())?;
    stdout.flush()
}
