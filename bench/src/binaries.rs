//! The binaries that are timed: built first, so that none is stale.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, io};

use serde::Deserialize;
use thiserror::Error;

/// Why there is nothing to time.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Cargo was not started.
    #[error("cargo could not be started: run this with `cargo bench`")]
    Cargo(#[source] io::Error),
    /// Cargo failed, and said why.
    #[error("`cargo {0}` failed: its messages are above")]
    Failed(String),
    /// Cargo answered without what was asked for.
    #[error("`cargo {command}` did not say where {missing} is: is this cargo too old?")]
    Answer {
        /// What cargo was asked.
        command: String,
        /// What its answer lacks.
        missing: String,
    },
}

/// Builds the binary `name` of `package` in release and returns where it is.
///
/// # Errors
/// When cargo cannot.
pub fn build(package: &str, name: &str) -> Result<PathBuf, BuildError> {
    build_by(&["--release", "-p", package], name)
}

/// The same for a binary of this package that needs a feature, and takes too long to be linked as a release is: `cargo bench` has
/// built all that it needs in its own profile.
///
/// # Errors
/// As for [`build`].
pub fn build_with(feature: &str, name: &str) -> Result<PathBuf, BuildError> {
    build_by(&["--profile", "bench", "-p", "bench", "--features", feature], name)
}

fn build_by(which: &[&str], name: &str) -> Result<PathBuf, BuildError> {
    if let Some(directory) = prebuilt() {
        return Ok(directory.join(name));
    }
    let mut arguments = vec!["build", "--message-format=json-render-diagnostics", "--bin", name];
    arguments.extend(which);
    executable(&cargo(&arguments)?, name)
        .ok_or_else(|| BuildError::Answer { command: arguments.join(" "), missing: name.to_owned() })
}

/// Where everything is that would be built, on a host that has no cargo.
fn prebuilt() -> Option<PathBuf> {
    env::var_os("MOTE_BENCH_BINARIES").map(PathBuf::from)
}

/// The directory for results, below cargo's target directory.
///
/// # Errors
/// When cargo does not say where that is.
pub fn results_directory() -> Result<PathBuf, BuildError> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }

    if let Some(directory) = prebuilt() {
        return Ok(directory);
    }
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let metadata: Metadata = serde_json::from_str(&cargo(&arguments)?).map_err(|_| BuildError::Answer {
        command: arguments.join(" "),
        missing: "the target directory".into(),
    })?;
    Ok(metadata.target_directory.join("bench"))
}

/// The commit that the sources are at.
#[must_use]
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    let clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    if clean { hash } else { hash + "-dirty" }
}

/// Runs cargo in this package and returns what it writes to stdout.
fn cargo(arguments: &[&str]) -> Result<String, BuildError> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .map_err(BuildError::Cargo)?;
    if !output.status.success() {
        return Err(BuildError::Failed(arguments.join(" ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Finds the executable `name` among cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Artifact {
        executable: Option<PathBuf>,
        target: Target,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }

    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .filter(|artifact| artifact.target.name == name)
        .find_map(|artifact| artifact.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_is_found_among_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"floor","kind":["lib"]},"executable":null}"#,
            "\nnot JSON\n",
            r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"floor","kind":["bin"]},"executable":"/t/floor"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages, "floor"), Some("/t/floor".into()));
        assert_eq!(executable(messages, "mote"), None);
    }
}
