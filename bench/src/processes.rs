//! A process and all that descend from it, and the memory that they hold.

use std::collections::HashMap;
use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// `root` and its descendants, parents before children. Those that end meanwhile may be missing.
#[must_use]
pub fn tree(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| {
        let process: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((process, parent(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
    });
    descendants(root, stats)
}

/// Kills the processes.
pub fn kill(processes: &[u32]) {
    let pids = processes.iter().filter_map(|&process| Pid::from_raw(process.try_into().ok()?));
    for pid in pids {
        // It may be gone already.
        let _gone = kill_process(pid, Signal::KILL);
    }
}

/// Memory that processes hold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// Pages that one of the processes alone maps, in KiB.
    pub private_kib: u64,
    /// The proportional set size, in KiB: each page by the number of processes on the host that map it.
    pub pss_kib: u64,
}

/// What `processes` hold together; a process that is gone holds nothing.
#[must_use]
pub fn memory(processes: &[u32]) -> Memory {
    let rollups = processes
        .iter()
        .filter_map(|process| fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok());
    rollups.map(|rollup| rolled_up(&rollup)).fold(Memory::default(), |sum, one| Memory {
        private_kib: sum.private_kib + one.private_kib,
        pss_kib: sum.pss_kib + one.pss_kib,
    })
}

fn descendants(root: u32, parents: impl Iterator<Item = (u32, u32)>) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (process, parent) in parents {
        children.entry(parent).or_default().push(process);
    }
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(process) = tree.get(next) {
        tree.extend(children.remove(process).unwrap_or_default());
        next += 1;
    }
    tree
}

/// The parent in a process's `stat` line: field 4, where the name, which may hold anything, is the second.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn rolled_up(rollup: &str) -> Memory {
    let kib = |key: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|size| size.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0)
    };
    Memory { private_kib: kib("Private_Clean") + kib("Private_Dirty"), pss_kib: kib("Pss") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_holds_children_of_children_and_no_others() {
        let parents = [(2, 1), (3, 2), (4, 3), (5, 1), (6, 4), (7, 3)];
        assert_eq!(descendants(3, parents.into_iter()), [3, 4, 7, 6]);
        assert_eq!(descendants(9, parents.into_iter()), [9]);
    }

    #[test]
    fn this_process_is_a_child_of_its_parent() {
        let parent = std::os::unix::process::parent_id();
        assert!(tree(parent).contains(&std::process::id()));
    }

    #[test]
    fn a_name_may_hold_parentheses() {
        assert_eq!(parent("7 (a) b) R 1 7 7 0"), Some(1));
        assert_eq!(parent("7"), None);
    }

    #[test]
    fn memory_is_added_up() {
        let rollup = "00400000-7fff [rollup]\nRss: 9 kB\nPss:        5 kB\nPss_Dirty: 1 kB\nPrivate_Clean: 2 kB\nPrivate_Dirty:  3 kB\n";
        assert_eq!(rolled_up(rollup), Memory { private_kib: 5, pss_kib: 5 });
        let own = memory(&[std::process::id()]);
        assert!(own.private_kib > 0 && own.pss_kib >= own.private_kib / 2, "{own:?}");
        assert_eq!(memory(&[u32::MAX]), Memory::default());
    }
}
