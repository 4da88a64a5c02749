//! Why there is no jail.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

/// Each is one line that names the thing and, where there is one, the cure.
#[derive(Debug, thiserror::Error)]
pub(super) enum JailError {
    /// A path of the command line that is not what it has to be.
    #[error("{flag} {}: {fault}", path.display())]
    Path { flag: &'static str, path: PathBuf, fault: PathFault },
    /// A value of the command line that does not fit together with the others, or with this host.
    #[error("{0}")]
    Refused(String),
    /// The kernel refused something.
    #[error("cannot {what}")]
    Kernel {
        what: String,
        #[source]
        source: io::Error,
    },
    /// The process that was to be jailed has failed; its own words.
    #[error("{0}")]
    Inside(String),
}

/// What is wrong with a path.
#[derive(Debug, thiserror::Error)]
pub(super) enum PathFault {
    /// Neither follows a link nor guesses what a `..` behind one means.
    #[error("{} is a symbolic link: give the path it leads to", .0.display())]
    Link(PathBuf),
    /// `..` in a path.
    #[error("'..' is not accepted: give the path without it")]
    Upwards,
    /// Someone else could exchange what is checked here for something else.
    #[error("{} can be changed by other users (owner {uid}, mode {mode:o}): make it root's or your own, and writable by its owner only", path.display())]
    NotTrusted { path: PathBuf, uid: u32, mode: u32 },
    /// Something else than what was asked for.
    #[error("it is {found}, not {wanted}")]
    Kind { found: &'static str, wanted: &'static str },
    /// A dynamic executable finds no libraries in an empty room.
    #[error("it needs a dynamic linker, and there is none in a jail: build it static")]
    Dynamic,
    /// Not for this machine.
    #[error("it is no ELF executable for x86-64")]
    NotElf,
    /// What setns(2) would refuse, or take for another kind of namespace.
    #[error("it is no network namespace: ip netns add NAME makes one, /run/netns/NAME")]
    NoNetns,
    /// Changed between the check and its use.
    #[error("it was exchanged while the jail was being built")]
    Exchanged,
    /// Whatever else.
    #[error(transparent)]
    Kernel(#[from] io::Error),
}

impl From<Errno> for PathFault {
    fn from(error: Errno) -> Self {
        Self::Kernel(error.into())
    }
}

/// `result.map_err(cannot("do this"))`.
pub(super) fn cannot<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> JailError {
    move |source| JailError::Kernel { what: what.into(), source: source.into() }
}

/// An error and its causes in one line; control characters of what it quotes are escaped.
pub(super) fn error_line(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let line = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let escape = |character: char| match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    line.chars().map(escape).collect()
}
