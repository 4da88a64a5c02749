//! What this host is: facts that messages and `mote doctor` name.

pub mod doctor;

use std::fs;
use std::path::Path;

/// The kernel module behind `/dev/kvm`: `kvm_intel`, `kvm_amd`, or another.
pub fn kvm_backend() -> Option<String> {
    let mut others = fs::read_dir("/sys/module")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("kvm_"));
    others.find(|name| users("kvm").iter().any(|user| user == name)).or_else(built_in_backend)
}

/// The back end where it emulates the guest's kernel code: neither `kvm_intel` nor `kvm_amd` is there, and this one is.
/// Takes a few microseconds, unlike [`kvm_backend`].
pub(crate) fn emulating_backend() -> Option<&'static str> {
    let there = |name: &&str| Path::new("/sys/module").join(name).exists();
    Some("kvm_pvm").filter(there).filter(|_| !["kvm_intel", "kvm_amd"].iter().any(there))
}

/// Modules that hold a module, from `/sys/module/NAME/holders`.
fn users(module: &str) -> Vec<String> {
    fs::read_dir(Path::new("/sys/module").join(module).join("holders"))
        .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        .unwrap_or_default()
}

/// A back end that is built into the kernel has no holders; its parameters show that it is there.
fn built_in_backend() -> Option<String> {
    ["kvm_intel", "kvm_amd", "kvm_pvm"]
        .into_iter()
        .find(|name| Path::new("/sys/module").join(name).exists())
        .map(str::to_owned)
}
