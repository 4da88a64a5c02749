//! How far a bench is, on a terminal, and an end before the end: Ctrl-C leaves what has been measured so far, marked as
//! partial; a second one ends the bench at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::SIGINT;
use signal_hook::flag;

/// As a shell tells of it.
const EXIT_CODE: i32 = 128 + SIGINT;

fn flag() -> &'static Arc<AtomicBool> {
    static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    INTERRUPTED.get_or_init(Arc::default)
}

/// From now on Ctrl-C ends what goes [`over`] its turns, not the process.
///
/// # Errors
/// When signals cannot be handled.
pub fn catch_interrupts() -> io::Result<()> {
    // In this order: what the first finds set was set by an earlier signal.
    flag::register_conditional_shutdown(SIGINT, EXIT_CODE, Arc::clone(flag()))?;
    flag::register(SIGINT, Arc::clone(flag()))?;
    Ok(())
}

/// Whether there was a Ctrl-C.
#[must_use]
pub fn is_interrupted() -> bool {
    flag().load(Ordering::Relaxed)
}

/// All of `turns`, or those until a Ctrl-C. A bar on stderr tells how far they are, if that is a terminal.
pub fn over<T>(what: &'static str, turns: Vec<T>) -> impl Iterator<Item = T> {
    let bar = ProgressBar::new(turns.len() as u64).with_message(what);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left");
    // The template is right, as a test shows; without it the bar would only look otherwise.
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    Turns { left: turns.into_iter(), bar }
}

struct Turns<I> {
    left: I,
    bar: ProgressBar,
}

impl<I: Iterator> Iterator for Turns<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let turn = if is_interrupted() { None } else { self.left.next() };
        match turn {
            Some(_) => self.bar.inc(1),
            None => self.bar.finish_and_clear(),
        }
        turn
    }
}

impl<I> Drop for Turns<I> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_is_taken() {
        assert_eq!(over("test", vec![1, 2, 3]).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left").is_ok());
    }
}
