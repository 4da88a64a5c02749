//! What stands between a guest that has broken the VMM and the host.
//!
//! [`seccomp`] leaves the VMM's threads only the system calls that they need while a guest runs.
//!
//! [`jail`] is the `mote-jailer` program: it starts a VMM in a place that holds nothing but what that needs, as a user
//! of its own, with no capability, and with a bounded share of the host.
//!
//! What this crate refuses to do: know what runs inside. It imports neither `vmm` nor `boot` nor `devices`.

pub mod jail;
pub mod seccomp;
