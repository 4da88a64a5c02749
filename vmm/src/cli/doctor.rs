//! `mote doctor`: what this host can do, and the cure for what it cannot.

use std::io::Write;
use std::process::ExitCode;

use crate::host::doctor::{Check, Verdict, examine};
use crate::outcome::EXIT_ERROR;

/// Prints one line a check. Exit code 1 if mote cannot run here.
pub(super) fn run() -> ExitCode {
    let checks = examine();
    let mut text = String::new();
    for Check { name, verdict, fact } in &checks {
        let (mark, cure) = match verdict {
            Verdict::Good => ("ok  ", None),
            Verdict::Limited(cure) => ("note", Some(cure)),
            Verdict::Missing(cure) => ("FAIL", Some(cure)),
        };
        text.push_str(&format!("{mark}  {name:<18} {fact}\n"));
        if let Some(cure) = cure {
            text.push_str(&format!("      {:<18} -> {cure}\n", ""));
        }
    }
    let able = !checks.iter().any(|check| matches!(check.verdict, Verdict::Missing(_)));
    text.push_str(if able { "mote can run here.\n" } else { "mote cannot run here yet: see FAIL above.\n" });
    // A closed stdout leaves nobody to tell.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if able { ExitCode::SUCCESS } else { ExitCode::from(EXIT_ERROR) }
}
