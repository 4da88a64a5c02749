//! What stands between a guest that has broken the VMM and the host.
//!
//! [`seccomp`] leaves the VMM's threads only the system calls that they need while a guest runs.
//!
//! What this crate refuses to do: know what runs inside. It imports neither `vmm` nor `boot` nor `devices`.

pub mod seccomp;
