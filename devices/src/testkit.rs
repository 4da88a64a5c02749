//! What the unit tests share: a trigger that counts, and one that fails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Trigger;

/// Counts how often it was raised.
#[derive(Clone, Debug, Default)]
pub(crate) struct CountingTrigger(Arc<AtomicUsize>);

impl CountingTrigger {
    /// How often it was raised since the last call.
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Trigger for CountingTrigger {
    fn trigger(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A host that delivers nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BrokenTrigger;

impl Trigger for BrokenTrigger {
    fn trigger(&self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}
