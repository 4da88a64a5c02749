//! mote's virtual machine monitor: from a configuration to a running microVM, and to its end.
//!
//! [`config::VmConfig`] says what a machine is; [`machine::build`] makes a [`machine::Machine`] of it, out of `boot`'s
//! plans, `devices`' state machines and the ioctls in [`kvm`]; a [`session::Session`] drives it, with its console,
//! signals and time limits, until there is an [`outcome::Ending`].
//!
//! Two kinds of threads: one event loop, and one per virtual CPU. A vCPU thread does little else than KVM_RUN and the
//! dispatch to a device; the event loop never runs guest code.
//!
//! What this crate refuses to do: parse kernels or build tables (that is `boot`), emulate registers (that is `devices`),
//! or ignore what a configuration asks for.

pub mod cli;
pub mod config;
pub mod console;
mod crash;
mod descriptors;
pub mod device_host;
pub mod event_loop;
pub mod host;
mod inherited;
mod io_threads;
pub mod kernel;
pub mod kvm;
pub mod logger;
pub mod machine;
pub mod memory;
pub mod outcome;
pub mod session;
pub mod signals;
pub mod timeline;
pub mod vcpu_thread;

/// An error and its causes in one line, for a terminal: control characters of what they quote are escaped.
pub fn error_line(error: &dyn std::error::Error) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if !line.is_empty() {
            line.push_str(": ");
        }
        for character in error.to_string().chars() {
            if character.is_control() {
                line.extend(character.escape_default());
            } else {
                line.push(character);
            }
        }
        next = error.source();
    }
    line
}
