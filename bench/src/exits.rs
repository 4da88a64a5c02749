//! How often the guests of a VMM have left them for KVM: KVM counts for each VM, in debugfs.
//!
//! KVM names a VM by its process's number outside of all PID namespaces, which is not known in one. So a VM is known by when
//! it came and went.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where debugfs is mounted, if it is.
const DIRECTORY: &str = "/sys/kernel/debug/kvm";

/// KVM's counters.
pub(crate) struct Counters(PathBuf);

/// The VMs at some moment.
pub(crate) type Machines = BTreeSet<String>;

impl Counters {
    /// This host's, if they can be read.
    pub(crate) fn find() -> Option<Self> {
        Path::new(DIRECTORY).is_dir().then(|| Self(DIRECTORY.into()))
    }

    /// The VMs that live.
    pub(crate) fn machines(&self) -> Machines {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// The exits so far of each VM that was not there `before`.
    pub(crate) fn of_others_than(&self, before: &Machines) -> Vec<(String, u64)> {
        let count = |machine: &String| {
            fs::read_to_string(self.0.join(machine).join("exits")).ok()?.trim().parse().ok()
        };
        let new = self.machines().into_iter().filter(|machine| !before.contains(machine));
        new.filter_map(|machine| count(&machine).map(|count| (machine, count))).collect()
    }

    /// Of what was counted, that of the one VM which has gone since; `None` if none has, or more than one.
    pub(crate) fn of_the_one_that_went(&self, counted: Vec<(String, u64)>) -> Option<u64> {
        let now = self.machines();
        let mut gone = counted.into_iter().filter(|(machine, _)| !now.contains(machine));
        let (_, count) = gone.next()?;
        gone.next().is_none().then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_its_coming_and_going() {
        let directory = tempfile::tempdir().unwrap();
        let counters = Counters(directory.path().into());
        let add = |machine: &str, exits: &str| {
            fs::create_dir(directory.path().join(machine)).unwrap();
            fs::write(directory.path().join(machine).join("exits"), exits).unwrap();
        };
        fs::write(directory.path().join("exits"), "99\n").unwrap();
        add("1-10", "5\n");
        let before = counters.machines();
        add("2-11", "37\n");
        add("3-9", "8\n");
        let counted = counters.of_others_than(&before);
        assert_eq!(counted, [("2-11".to_owned(), 37), ("3-9".to_owned(), 8)]);
        assert_eq!(counters.of_the_one_that_went(counted.clone()), None, "both are there");
        fs::remove_dir_all(directory.path().join("2-11")).unwrap();
        assert_eq!(counters.of_the_one_that_went(counted.clone()), Some(37));
        fs::remove_dir_all(directory.path().join("3-9")).unwrap();
        assert_eq!(counters.of_the_one_that_went(counted), None, "whose are they?");
    }
}
