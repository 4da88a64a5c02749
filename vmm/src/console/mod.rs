//! The console: the guest's serial port on this process's stdin and stdout.
//!
//! [`ConsoleOutput`] is the bounded buffer between the guest and stdout, [`ConsoleInput`] the way from stdin to the
//! serial port, [`RawTerminal`] the terminal's state that must be put back. None of them ever waits: a reader that is
//! slow or gone holds up neither the guest's other work nor a timer.

mod input;
mod output;
mod sink;
mod terminal;

pub use input::{ConsoleInput, Key};
pub use output::{ConsoleOutput, Flushed, SerialOutput};
pub(crate) use sink::prepare_to_tell;
pub use sink::{Sink, tell};
pub(crate) use terminal::restore_in_handler;
pub use terminal::{RawTerminal, is_ours};
