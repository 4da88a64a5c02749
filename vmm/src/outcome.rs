//! How a machine ended, as an exit code and as a JSON object.

use serde::Serialize;

/// Exit code of a host or configuration error.
pub const EXIT_ERROR: u8 = 1;
/// Exit code of a bad command line.
pub const EXIT_USAGE: u8 = 2;
/// Exit code of a guest that crashed.
const EXIT_CRASH: u8 = 3;
/// Exit code of a guest that reported a non-zero status before it powered off.
const EXIT_STATUS: u8 = 5;
/// Exit code of a machine that ran into `--timeout`.
const EXIT_TIMEOUT: u8 = 6;
/// Exit code of a machine ended by signal n: this plus n, as shells do.
const EXIT_SIGNAL: u8 = 128;

/// Why the machine is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The guest switched the machine off.
    PowerOff,
    /// The guest asked for a reset; mote ends instead of starting over.
    Reset,
    /// The guest's kernel reported its panic through pvpanic.
    Panic,
    /// Triple fault, failed entry, or a guest that KVM gave up on.
    Crash,
    /// `--timeout` passed.
    Timeout,
    /// A thread made a system call outside its seccomp filter. Its signal handler writes it: see `cli::last_words`.
    Seccomp,
    /// A signal, or Ctrl-A x on the console.
    Signal,
    /// The host failed.
    Error,
}

/// The end of a machine: the object that `--result` writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// What happened.
    pub outcome: Outcome,
    /// The last byte the guest wrote to the debug port's status register, if any.
    pub guest_status: Option<u8>,
    /// The signal's number where `outcome` is [`Outcome::Signal`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// One line for people.
    pub reason: String,
}

impl Ending {
    /// An ending without a status or a signal.
    pub fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome, guest_status: None, signal: None, reason: reason.into() }
    }

    /// The machine was ended by `signal`.
    pub fn signal(signal: u8, reason: impl Into<String>) -> Self {
        Self { signal: Some(signal), ..Self::new(Outcome::Signal, reason) }
    }

    /// The short form: the process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self.outcome {
            Outcome::PowerOff | Outcome::Reset if self.guest_status.unwrap_or(0) != 0 => EXIT_STATUS,
            Outcome::PowerOff | Outcome::Reset => 0,
            Outcome::Panic | Outcome::Crash => EXIT_CRASH,
            Outcome::Seccomp => jailer::seccomp::EXIT_CODE,
            Outcome::Timeout => EXIT_TIMEOUT,
            Outcome::Signal => EXIT_SIGNAL.saturating_add(self.signal.unwrap_or(0)),
            Outcome::Error => EXIT_ERROR,
        }
    }

    /// What to tell the user on stderr; `None` where all went as the guest wished.
    pub fn message(&self) -> Option<String> {
        match (self.outcome, self.guest_status) {
            (Outcome::PowerOff | Outcome::Reset, Some(status)) if status != 0 => {
                Some(format!("the guest reported status {status}"))
            }
            (Outcome::PowerOff | Outcome::Reset, _) => None,
            _ => Some(self.reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_manual() {
        let mut ending = Ending::new(Outcome::PowerOff, "");
        assert_eq!(ending.exit_code(), 0);
        ending.guest_status = Some(0);
        assert_eq!(ending.exit_code(), 0);
        ending.guest_status = Some(7);
        assert_eq!(ending.exit_code(), 5);
        assert_eq!(ending.message().as_deref(), Some("the guest reported status 7"));
        assert_eq!(
            Ending { outcome: Outcome::Panic, ..ending.clone() }.exit_code(),
            3,
            "a panic outranks a status"
        );
        for (outcome, code) in [
            (Outcome::Reset, 0),
            (Outcome::Crash, 3),
            (Outcome::Seccomp, 4),
            (Outcome::Timeout, 6),
            (Outcome::Error, 1),
        ] {
            assert_eq!(Ending::new(outcome, "").exit_code(), code);
        }
        assert_eq!(Ending::signal(15, "").exit_code(), 143);
    }

    #[test]
    fn the_result_is_one_json_object() {
        let json = serde_json::to_string(&Ending::new(Outcome::PowerOff, "powered off")).unwrap();
        assert_eq!(json, r#"{"outcome":"power-off","guest_status":null,"reason":"powered off"}"#);
    }
}
