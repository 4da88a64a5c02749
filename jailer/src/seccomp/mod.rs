//! System call filters (seccomp(2)), one for each kind of thread.
//!
//! Which calls a thread may make, and with which arguments, stands in `filters/mote.json`, each with who
//! needs it; the build compiles it to BPF. A thread installs its filter as the last thing before guest code
//! runs, and can never take it off. Any other call does not happen: it raises SIGSYS, whose handler
//! ([`on_violation`]) says so and ends the process.

use std::borrow::Cow;

use seccompiler::sock_filter;

mod index;
mod violation;

#[cfg(test)]
mod tests;

pub use violation::{EXIT_CODE, on_violation};

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

/// A program is not longer than this, in instructions (linux/bpf_common.h, BPF_MAXINSNS).
const MAX_PROGRAM: usize = 4096;

/// A file of filters is not larger than this, in bytes.
pub const MAX_FILE: u64 = 1 << 20;

/// The kinds of threads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Thread {
    /// The event loop.
    Vmm,
    /// One that does nothing but serve devices.
    Io,
    /// One that runs a virtual CPU.
    Vcpu,
}

impl Thread {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Vmm, Self::Io, Self::Vcpu];

    /// Its name in a file of filters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmm => "vmm",
            Self::Io => "io",
            Self::Vcpu => "vcpu",
        }
    }
}

/// A file of filters cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It has more than [`MAX_FILE`] bytes.
    #[error("a file of seccomp filters has at most {} KiB", MAX_FILE >> 10)]
    TooLarge,
    /// It is not JSON, or no filters, or names a system call that there is none of.
    #[error("not a file of seccomp filters: {reason}")]
    Compile {
        /// What is wrong, and where.
        reason: String,
    },
    /// A filter would be longer than the kernel takes.
    #[error(
        "the filter of the '{0}' threads has more than {MAX_PROGRAM} instructions: name fewer calls and arguments"
    )]
    TooLong(&'static str),
    /// A thread has no filter.
    #[error("no filter for the '{0}' threads: a file has one each for vmm, io and vcpu")]
    Missing(&'static str),
    /// A filter is for no thread.
    #[error("a filter for '{0}', which is no thread: a file has one each for vmm, io and vcpu")]
    Unknown(String),
}

/// A filter cannot be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the seccomp filter of the {} thread; --no-seccomp goes without", thread.name())]
pub struct InstallError {
    thread: Thread,
    source: seccompiler::Error,
}

/// A filter for each kind of thread.
#[derive(Debug)]
pub struct Filters {
    vmm: Program,
    io: Program,
    vcpu: Program,
}

type Program = Cow<'static, [sock_filter]>;

impl Default for Filters {
    /// Those of `filters/mote.json`.
    fn default() -> Self {
        Self { vmm: Cow::Borrowed(VMM), io: Cow::Borrowed(IO), vcpu: Cow::Borrowed(VCPU) }
    }
}

impl Filters {
    /// The filters of a file like `filters/mote.json`.
    ///
    /// # Errors
    /// [`FilterError`]: what is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Self, FilterError> {
        if json.len() as u64 > MAX_FILE {
            return Err(FilterError::TooLarge);
        }
        let compiled = std::env::consts::ARCH
            .try_into()
            .map_err(seccompiler::Error::Backend)
            .and_then(|architecture| seccompiler::compile_from_json(json, architecture));
        let mut programs = compiled.map_err(|error| FilterError::Compile { reason: innermost(&error) })?;
        let mut take = |thread: Thread| -> Result<Program, FilterError> {
            let program = programs.remove(thread.name()).ok_or(FilterError::Missing(thread.name()))?;
            let program = index::indexed(&program);
            if program.len() > MAX_PROGRAM {
                return Err(FilterError::TooLong(thread.name()));
            }
            Ok(Cow::Owned(program))
        };
        let filters = Self { vmm: take(Thread::Vmm)?, io: take(Thread::Io)?, vcpu: take(Thread::Vcpu)? };
        match programs.into_keys().min() {
            Some(name) => Err(FilterError::Unknown(name)),
            None => Ok(filters),
        }
    }

    /// Leaves the calling thread, and those that it starts, only the system calls of a `thread`. For good.
    ///
    /// # Errors
    /// When the kernel has no seccomp filters, or refuses this one.
    pub fn install(&self, thread: Thread) -> Result<(), InstallError> {
        let program = match thread {
            Thread::Vmm => &self.vmm,
            Thread::Io => &self.io,
            Thread::Vcpu => &self.vcpu,
        };
        violation::name_thread(thread);
        seccompiler::apply_filter(program).map_err(|source| InstallError { thread, source })
    }
}

/// What is at the bottom of an error whose outer ones only repeat it.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}
