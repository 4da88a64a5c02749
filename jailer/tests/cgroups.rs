//! A jail's share of the host is what was asked for, under cgroups of version 1 and 2 (MOTE_JAIL_CGROUPS says which).

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::{Ended, Place};

const ROOT: &str = "/sys/fs/cgroup";

fn is_v2() -> bool {
    std::env::var("MOTE_JAIL_CGROUPS").is_ok_and(|version| version == "2")
}

/// A setting by its names in version 1 and 2.
fn setting(v1: &str, v2: &str) -> String {
    if is_v2() { v2.to_owned() } else { v1.to_owned() }
}

fn group(controller: &str, path: &str) -> PathBuf {
    let root = if is_v2() { PathBuf::from(ROOT) } else { Path::new(ROOT).join(controller) };
    root.join(path)
}

/// Runs a jail with these settings.
fn run(place: &Place, settings: &[String], arguments: &[&str]) -> Ended {
    let flags: Vec<&str> = settings.iter().flat_map(|setting| ["--cgroup", setting]).collect();
    place.run(&flags, arguments)
}

#[test]
fn memory_is_bounded_and_the_neighbour_undisturbed() {
    need_cgroups!();
    let place = Place::new();
    let mut neighbour =
        place.jailer("b").args(["--", "sleep"]).stdout(Stdio::null()).spawn().expect("it starts");
    let limit = setting("memory.limit_in_bytes=32M", "memory.max=32M");
    let swap = setting("memory.swappiness=0", "memory.swap.max=0");
    let ended = run(&place, &[limit, swap], &["hog"]);
    assert_eq!(ended.code, Some(137), "{ended:?}");
    let taken: u32 = ended.out.lines().last().and_then(|line| line.parse().ok()).expect("it took some");
    assert!((16..32).contains(&taken), "{taken} MiB");
    assert!(neighbour.try_wait().expect("a child").is_none(), "the neighbour has ended");
    end(&place, &mut neighbour, "b");
    place.assert_empty();
    support::assert_no_cgroup();
}

#[test]
fn processes_are_bounded() {
    need_cgroups!();
    let place = Place::new();
    run(&place, &["pids.max=10".to_owned()], &["fork"]).assert_said("9\n");
    support::assert_no_cgroup();
}

#[test]
fn cpu_time_is_bounded() {
    need_cgroups!();
    let place = Place::new();
    let ended = run(&place, &[setting("cpu.cfs_quota_us=20000", "cpu.max=20000 100000")], &["spin"]);
    let used: u32 = ended.out.trim().parse().expect("ms");
    // A fifth of 2 s, and what a period begins with.
    assert!((200..700).contains(&used), "{used} ms of 2000");
}

#[test]
fn disk_bandwidth_is_bounded() {
    need_cgroups!();
    let Some(disk) = std::env::var_os("MOTE_JAIL_DISK") else {
        support::skipped("disk_bandwidth_is_bounded", "MOTE_JAIL_DISK names no disk to write to");
        return;
    };
    let disk = disk.to_string_lossy();
    let number = rustix::fs::stat(&*disk).expect("a disk").st_rdev;
    let number = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let place = Place::new();
    let limit = setting(
        &format!("blkio.throttle.write_bps_device={number} 1048576"),
        &format!("io.max={number} wbps=1048576"),
    );
    let bind = format!("{disk}:/disk");
    let timed = |flags: &[&str]| {
        let begun = Instant::now();
        place.run(flags, &["write-direct", "/disk", "3"]).assert_said("written");
        begun.elapsed()
    };
    let free = timed(&["--bind", &bind]);
    let bound = timed(&["--bind", &bind, "--cgroup", &limit]);
    assert!(free < Duration::from_secs(2) && bound > Duration::from_millis(2500), "{free:?} and {bound:?}");
}

#[test]
fn parents_that_the_jailer_makes_go_and_others_stay() {
    need_cgroups!();
    let place = Place::new();
    let made = group("pids", "mote-made");
    let flags = ["--cgroup", "pids.max=20", "--parent-cgroup", "mote-made/below"];
    assert_eq!(place.run(&flags, &["exit", "3"]).code, Some(3));
    assert!(!made.exists());
    fs::create_dir(&made).expect("a cgroup");
    assert_eq!(place.run(&flags, &["exit", "3"]).code, Some(3));
    assert!(made.exists() && !made.join("below").exists());
    // A group that is there already is not a jail's own.
    fs::create_dir_all(made.join("below/a")).expect("a cgroup");
    place.run(&flags, &["exit", "3"]).assert_refused(1, "exists already");
    for name in ["below/a", "below", ""] {
        fs::remove_dir(made.join(name)).expect("it is empty");
    }
    place.assert_empty();
}

#[test]
fn cpusets_are_inherited() {
    need_cgroups!();
    let place = Place::new();
    assert_eq!(run(&place, &["cpuset.cpus=0".to_owned()], &["exit", "3"]).code, Some(3));
    support::assert_no_cgroup();
}

#[test]
fn what_still_runs_in_a_group_is_killed_by_clean() {
    need_cgroups!();
    let place = Place::new();
    let mut jail = place
        .jailer("a")
        .args(["--cgroup", "pids.max=20", "--", "sleep"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let procs = group("pids", "program/a/cgroup.procs");
    wait_until(|| place.home("a").join("root/program.pid").exists() && procs.exists());
    // Someone who is in the jail's group, and does not end with its keeper.
    let mut stray = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
    fs::write(&procs, stray.id().to_string()).expect("it can be moved");
    jail.kill().expect("a child");
    jail.wait().expect("a child");
    wait_until(|| place.clean("a").code == Some(0));
    assert!(!stray.wait().expect("a child").success());
    place.assert_empty();
    support::assert_no_cgroup();
}

#[test]
fn without_settings_there_is_no_group() {
    need_cgroups!();
    let place = Place::new();
    assert_eq!(place.run(&[], &["exit", "0"]).code, Some(0));
    support::assert_no_cgroup();
}

fn end(place: &Place, child: &mut Child, id: &str) {
    child.kill().expect("a child");
    child.wait().expect("a child");
    wait_until(|| place.clean(id).code == Some(0));
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}
