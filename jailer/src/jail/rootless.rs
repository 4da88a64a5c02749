//! A jail that an ordinary user makes: the same steps, in a user namespace that this process is the root of until it
//! drops that too.

use std::fs;
use std::io;

use rustix::process::{getgid, getgroups, getuid};

use super::cli::say;
use super::config::JailConfig;
use super::error::{JailError, cannot};

/// What the namespace's IDs are outside. To be read before it is entered.
pub(super) struct Outside {
    uid: u32,
    gid: u32,
}

impl Outside {
    /// Says what is not to be had without root.
    pub(super) fn announce(config: &JailConfig) -> Self {
        let outside = Self { uid: getuid().as_raw(), gid: getgid().as_raw() };
        let groups: Vec<String> =
            getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw().to_string()).collect();
        say(&format!(
            "without root: to the host, the jail's user {} and group {} are you yourself, {} and {}",
            config.uid, config.gid, outside.uid, outside.gid
        ));
        if !groups.is_empty() {
            say(&format!("without root: your supplementary groups stay: {}", groups.join(" ")));
        }
        say("without root: devices are the host's own, with the host's permissions");
        if config.cgroups.settings.is_empty() {
            say(
                "without root: no cgroup, so no bound on memory, CPU time and processes, unless yours has one",
            );
        }
        outside
    }

    /// Maps the jail's user and group to the ones outside (user_namespaces(7)). Full capabilities in the new namespace
    /// end with the jail's other steps.
    pub(super) fn map_into(&self, config: &JailConfig) -> Result<(), JailError> {
        let write =
            |file: &str, text: String| -> io::Result<()> { fs::write(format!("/proc/self/{file}"), text) };
        write("setgroups", "deny".to_owned())
            .and_then(|()| write("gid_map", format!("{} {} 1", config.gid, self.gid)))
            .and_then(|()| write("uid_map", format!("{} {} 1", config.uid, self.uid)))
            .map_err(cannot("set up the user namespace (--rootless)"))
    }
}
