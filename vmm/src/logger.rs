//! Log lines: `mote: LEVEL: text`, to stderr or to a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};
use serde::Deserialize;

/// The least important level that is written; Firecracker's names, in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Level(LevelFilter);

/// Not a level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a log level: off, error, warn, info, debug or trace")]
pub struct LevelError(String);

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        let name = if text.eq_ignore_ascii_case("warning") { "warn" } else { text };
        name.parse().map(Self).map_err(|_| LevelError(text.to_owned()))
    }
}

impl TryFrom<String> for Level {
    type Error = LevelError;

    fn try_from(text: String) -> Result<Self, LevelError> {
        text.parse()
    }
}

impl Default for Level {
    /// Warnings: a machine that does well says nothing.
    fn default() -> Self {
        Self(LevelFilter::Warn)
    }
}

struct Logger {
    file: Option<Mutex<File>>,
}

impl Log for Logger {
    /// Only mote's own lines, which are few: virtio-queue, for one, logs each mistake of a guest, which can make many.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let crate_name = metadata.target().split("::").next();
        metadata.level() <= log::max_level() && matches!(crate_name, Some("vmm" | "mote"))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = format!("mote: {}: {}\n", record.level().as_str().to_ascii_lowercase(), record.args());
        // A log that cannot be written must not stop the machine.
        match &self.file {
            Some(file) => {
                let _ = file.lock().map(|mut file| file.write_all(line.as_bytes()));
            }
            None => crate::console::tell(&line),
        }
    }

    fn flush(&self) {}
}

/// Starts logging. A second call in one process changes nothing but the level.
pub fn start(level: Level, path: Option<&Path>) -> io::Result<()> {
    let file = match path {
        Some(path) => Some(Mutex::new(OpenOptions::new().create(true).append(true).open(path)?)),
        None => None,
    };
    log::set_max_level(level.0);
    // The error says that a logger is there already: tests start many machines in one process.
    let _ = log::set_boxed_logger(Box::new(Logger { file }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_firecrackers_names_in_any_case() {
        for text in ["Off", "error", "WARN", "Warning", "Info", "debug", "Trace"] {
            assert!(text.parse::<Level>().is_ok(), "{text}");
        }
        assert_eq!("loud".parse::<Level>(), Err(LevelError("loud".to_owned())));
    }
}
