//! The kernel command line, checked once.

use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError};

use crate::layout;

/// The longest command line in bytes, without its NUL: `COMMAND_LINE_SIZE` of Linux on x86 is 2048.
pub const CMDLINE_MAX: usize = layout::CMDLINE_ROOM as usize - 1;

/// Why a command line is refused.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum CmdlineError {
    /// More than [`CMDLINE_MAX`] bytes.
    #[error("the kernel command line is {length} bytes long: Linux takes {CMDLINE_MAX} at most, shorten it")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The kernel would see the end of the line there.
    #[error(
        "the kernel command line has a NUL at byte {position}: remove it, the kernel would stop reading there"
    )]
    Nul {
        /// Byte offset.
        position: usize,
    },
    /// Neither the kernel's parser nor its log expects one.
    #[error(
        "the kernel command line has the control character {code:#04x} at byte {position}: use a space instead"
    )]
    Control {
        /// Byte offset.
        position: usize,
        /// The character.
        code: u32,
    },
}

/// A command line that every Linux kernel can take: at most 2047 bytes, no NUL, no other control character. Text
/// beyond ASCII is passed through as UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cmdline(String);

impl Cmdline {
    /// Checks `line`.
    ///
    /// # Errors
    /// [`CmdlineError`] names the length, or the first byte that cannot stand in a command line.
    pub fn new(line: &str) -> Result<Self, CmdlineError> {
        // The length first: it bounds the search.
        if line.len() > CMDLINE_MAX {
            return Err(CmdlineError::TooLong { length: line.len() });
        }
        match line.char_indices().find(|(_, c)| c.is_control()) {
            None => Ok(Self(line.to_owned())),
            Some((position, '\0')) => Err(CmdlineError::Nul { position }),
            Some((position, c)) => Err(CmdlineError::Control { position, code: u32::from(c) }),
        }
    }

    /// The line with one more argument for the kernel: behind the others, before those for init.
    ///
    /// # Errors
    /// As for [`new`](Self::new), of the whole.
    pub fn with(&self, argument: &str) -> Result<Self, CmdlineError> {
        // Linux gives init everything behind a lone "--".
        let alone = |&(at, _): &(usize, &str)| at == 0 || self.0[..at].ends_with(' ');
        let (kernel, init) = match self.0.match_indices("-- ").find(alone).map(|(at, _)| at) {
            Some(at) => self.0.split_at(at),
            None => (self.0.as_str(), ""),
        };
        let words = [kernel.trim_end(), argument, init];
        let words: Vec<&str> = words.into_iter().filter(|words| !words.is_empty()).collect();
        Self::new(&words.join(" "))
    }

    /// The line, without a NUL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its length in bytes, without a NUL.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts the line and its NUL where both boot protocols point.
    pub(crate) fn write<M: GuestMemory>(&self, mem: &M) -> Result<(), GuestMemoryError> {
        let mut bytes = [0; CMDLINE_MAX + 1];
        bytes[..self.len()].copy_from_slice(self.0.as_bytes());
        mem.write_slice(&bytes[..=self.len()], GuestAddress(layout::CMDLINE_START))
    }
}

#[cfg(test)]
mod tests;
