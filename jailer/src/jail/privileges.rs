//! What the jailed process may use, and what it may do: little, and nothing.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::config::{DEFAULT_DESCRIPTORS, JailConfig};
use super::error::{JailError, cannot};

/// A core dump would write the guest's memory to the host. 0 would still let a pipe of core_pattern have it; with 1 the
/// kernel dumps nothing at all (Linux's fs/coredump.c).
const NO_CORE_DUMP: u64 = 1;

/// Sets the limits that hold for a process whatever its cgroup.
pub(super) fn limit_resources(config: &JailConfig) -> Result<(), JailError> {
    let own = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let descriptors = config.max_descriptors.unwrap_or(DEFAULT_DESCRIPTORS.min(own));
    let limits = [
        (Resource::Core, Some(NO_CORE_DUMP), "core"),
        (Resource::Nofile, Some(descriptors), "no-file"),
        (Resource::Fsize, config.max_file_size, "fsize"),
    ];
    for (resource, limit, name) in limits {
        if limit.is_some() {
            let own = getrlimit(resource).maximum;
            // Our own limit on core dumps may be 0 already: lower still.
            let limit = if resource == Resource::Core { limit.min(own.or(limit)) } else { limit };
            setrlimit(resource, Rlimit { current: limit, maximum: limit })
                .map_err(cannot(format!("set the limit {name} to {}", limit.unwrap_or(0))))?;
        }
    }
    Ok(())
}

/// Becomes the jail's user, without a way back: no other user or group, no capability in any set, and none by exec.
pub(super) fn drop_all(config: &JailConfig) -> Result<(), JailError> {
    forget_capabilities().map_err(cannot("empty the bounding set of capabilities"))?;
    // In a user namespace that an ordinary user has made, the kernel keeps the groups as they are.
    if !config.rootless {
        set_thread_groups(&[]).map_err(cannot("leave the supplementary groups"))?;
    }
    let (uid, gid) = (Uid::from_raw(config.uid), Gid::from_raw(config.gid));
    set_thread_res_gid(gid, gid, gid).map_err(cannot(format!("become group {}", config.gid)))?;
    set_thread_res_uid(uid, uid, uid).map_err(cannot(format!("become user {}", config.uid)))?;
    clear_ambient_capability_set().map_err(cannot("clear the ambient capabilities"))?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(cannot("drop all capabilities"))?;
    set_no_new_privs(true).map_err(cannot("forbid new privileges"))
}

/// Those that this kernel knows; the first that it does not know ends the list (capabilities(7)).
fn forget_capabilities() -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(Errno::INVAL) if number > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
