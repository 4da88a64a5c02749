//! Who does the I/O: system calls one by one, or an io_uring.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

use super::Engine;
use crate::virtio::Segment;
use crate::virtio::io::{Completion, Operation, Ring, Vectors};

/// How many requests are in flight at most. The rings of 128 entries take 16 KiB.
pub(super) const DEPTH: u16 = 128;

pub(super) enum Backend {
    Calls(Vectors),
    Ring(Box<Ring>),
}

impl Backend {
    /// What `engine` says. `waits_apart`: whether the host can begin an operation on the file without waiting for its end.
    pub(super) fn new(engine: Engine, waits_apart: bool) -> io::Result<Self> {
        match engine {
            Engine::Auto if !waits_apart => Self::new(Engine::Sync, waits_apart),
            Engine::Sync => Ok(Self::Calls(Vectors::new())),
            Engine::IoUring => Ok(Self::Ring(Box::new(Ring::new(DEPTH)?))),
            Engine::Auto => {
                let ring = Ring::new(DEPTH).map(|ring| Self::Ring(Box::new(ring)));
                Ok(ring.unwrap_or_else(|_| Self::Calls(Vectors::new())))
            }
        }
    }

    pub(super) fn engine(&self) -> Engine {
        match self {
            Self::Calls(_) => Engine::Sync,
            Self::Ring(_) => Engine::IoUring,
        }
    }

    pub(super) fn ring(&self) -> Option<&Ring> {
        match self {
            Self::Calls(_) => None,
            Self::Ring(ring) => Some(ring),
        }
    }

    /// What the calls are made with, if an operation is over when its call returns.
    pub(super) fn vectors(&mut self) -> Option<&mut Vectors> {
        match self {
            Self::Calls(vectors) => Some(vectors),
            Self::Ring(_) => None,
        }
    }

    /// The memory that is worked on; `false` while that cannot be changed.
    pub(super) fn set_memory(&mut self, memory: Option<GuestMemoryMmap>) -> bool {
        match self {
            Self::Calls(_) => true,
            Self::Ring(ring) => ring.set_memory(memory),
        }
    }

    /// Starts an operation; returns it if it is over already.
    pub(super) fn start(
        &mut self,
        tag: u16,
        file: Arc<File>,
        memory: &GuestMemoryMmap,
        (operation, segments): (Operation, &[Segment]),
    ) -> Option<Completion> {
        match self {
            Self::Calls(vectors) => {
                let result = vectors.perform(memory, segments, file.as_fd(), operation);
                Some(Completion { tag, file, result })
            }
            Self::Ring(ring) => ring.start(tag, file, operation, segments).err(),
        }
    }

    /// Sees to it that what was started is done. `false` if the host does not take it just now.
    pub(super) fn submit(&mut self) -> bool {
        match self {
            Self::Calls(_) => true,
            Self::Ring(ring) => ring.submit().is_ok(),
        }
    }

    pub(super) fn next_completion(&mut self) -> Option<Completion> {
        match self {
            Self::Calls(_) => None,
            Self::Ring(ring) => ring.next_completion(),
        }
    }
}
