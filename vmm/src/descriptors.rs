//! How many descriptors this process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes all that the host allows: a socket device needs one for each connection, and the usual soft limit of 1024 is less than it serves. A host
/// that allows no more refuses connections, not the machine.
pub(crate) fn take_all() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
