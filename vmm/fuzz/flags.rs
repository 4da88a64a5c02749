//! Any text at all as the value of a flag: what is accepted is within its limits.

use std::error::Error;
use std::str::FromStr;

use vmm::config::{Balloon, CpuCount, Disk, MAX_CPUS, MemorySize, Nic, PageBacking, Tap, Vsock};
use vmm::logger::Level;

/// Runs one input.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(size) = parse::<MemorySize>(text) {
        assert_eq!(size.regions().expect("it was accepted").total(), size.bytes());
        assert_eq!(MemorySize::try_from(size.bytes()), Ok(size));
    }
    if let Some(cpus) = parse::<CpuCount>(text) {
        assert!((1..=MAX_CPUS).contains(&cpus.get()));
        assert_eq!(CpuCount::try_from(u64::from(cpus.get())), Ok(cpus));
    }
    if parse::<PageBacking>(text).is_some() {
        assert!(["none", "thp", "2m"].contains(&text));
    }
    if let Some(disk) = parse::<Disk>(text) {
        assert!(disk.queues > 0 && !disk.path.as_os_str().is_empty());
    }
    if let Some(vsock) = parse::<Vsock>(text) {
        assert!((3..u32::MAX).contains(&vsock.cid));
    }
    if let Some(nic) = parse::<Nic>(text) {
        assert_ne!(nic.tap, Tap::Name(String::new()));
    }
    parse::<Balloon>(text);
    parse::<Level>(text);
}

/// The value, or an error of one line.
fn parse<T: FromStr<Err: Error>>(text: &str) -> Option<T> {
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            let line = vmm::error_line(&error);
            assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
            None
        }
    }
}
