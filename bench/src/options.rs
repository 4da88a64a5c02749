//! What the environment says about a run.

use std::str::FromStr;

use thiserror::Error;

/// A variable that does not say what it should.
#[derive(Debug, Error, Eq, PartialEq)]
#[error("{variable}={value} is not {expected}")]
pub struct OptionError {
    variable: &'static str,
    value: String,
    expected: String,
}

/// The options of all runners.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// How many times each subject is timed. 0 leaves the interleaved run out.
    pub runs: usize,
    /// What orders are drawn from.
    pub seed: u64,
    /// How many idle machines live at once.
    pub machines: usize,
    /// The names of the subjects to run; all, if empty.
    pub subjects: Vec<String>,
}

impl Options {
    /// Reads the process's environment, where nothing need be said of `runs`.
    ///
    /// # Errors
    /// When a variable is set to what it cannot mean.
    pub fn from_environment(runs: usize) -> Result<Self, OptionError> {
        let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::read(runs, variable)
    }

    fn read(runs: usize, variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, OptionError> {
        let subjects = variable("MOTE_BENCH_SUBJECTS").unwrap_or_default();
        let options = Self {
            runs: number(&variable, "MOTE_BENCH_RUNS", "a number of runs")?.unwrap_or(runs),
            seed: number(&variable, "MOTE_BENCH_SEED", "a number of 64 bits")?
                .unwrap_or_else(|| fastrand::u64(..)),
            machines: number(&variable, "MOTE_BENCH_MACHINES", "a number of machines")?.unwrap_or(50),
            subjects: subjects
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(Into::into)
                .collect(),
        };
        let known = crate::subjects::names();
        match options.subjects.iter().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(OptionError {
                variable: "MOTE_BENCH_SUBJECTS",
                value: name.clone(),
                expected: format!("a list of {}", known.join(", ")),
            }),
            None => Ok(options),
        }
    }

    /// Whether the subject of this name was asked for.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.subjects.is_empty() || self.subjects.iter().any(|wanted| wanted == name)
    }
}

fn number<N: FromStr>(
    variable: impl Fn(&'static str) -> Option<String>,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<N>, OptionError> {
    let Some(value) = variable(name) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| OptionError { variable: name, value, expected: expected.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Options, OptionError> {
        Options::read(200, |name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn without_variables_everything_runs() {
        let options = read(&[]).unwrap();
        assert_eq!((options.runs, options.machines), (200, 50));
        assert!(crate::subjects::names().into_iter().all(|name| options.wants(name)));
    }

    #[test]
    fn variables_change_the_run() {
        let options = read(&[
            ("MOTE_BENCH_RUNS", "7"),
            ("MOTE_BENCH_SEED", "18446744073709551615"),
            ("MOTE_BENCH_MACHINES", "3"),
            ("MOTE_BENCH_SUBJECTS", "floor, mote"),
        ])
        .unwrap();
        assert_eq!((options.runs, options.seed, options.machines), (7, u64::MAX, 3));
        assert!(options.wants("floor") && options.wants("mote") && !options.wants("firecracker"));
    }

    #[test]
    fn nonsense_is_named() {
        let error = read(&[("MOTE_BENCH_RUNS", "many")]).unwrap_err();
        assert_eq!(error.to_string(), "MOTE_BENCH_RUNS=many is not a number of runs");
        let error = read(&[("MOTE_BENCH_SUBJECTS", "floor,moat")]).unwrap_err();
        assert!(error.to_string().starts_with("MOTE_BENCH_SUBJECTS=moat is not a list of"), "{error}");
    }
}
