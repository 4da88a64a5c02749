//! Everything that can be wrong with what the jailer is given: refused, with words, and nothing is left.

mod support;

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::process::Command;

use support::{Ended, JAILER, Place, UID, set_mode};

const USAGE: i32 = 2;
const ERROR: i32 = 1;

/// Runs a jail with some of the usual flags replaced; the last of each counts.
fn run_with(place: &Place, replaced: &[(&str, &str)]) -> Ended {
    let flags = [
        ("--id", "a".to_owned()),
        ("--exec-file", place.program().display().to_string()),
        ("--chroot-base-dir", place.base().display().to_string()),
        ("--uid", UID.to_string()),
        ("--gid", UID.to_string()),
    ];
    let mut command = Command::new(JAILER);
    for (flag, usual) in flags {
        let value =
            replaced.iter().find(|(name, _)| *name == flag).map_or(usual.as_str(), |(_, value)| value);
        command.arg(format!("{flag}={value}"));
    }
    command.args(["--", "exit", "0"]);
    let ended = Ended::new(&command.output().expect("the jailer starts"));
    place.assert_empty();
    ended
}

#[test]
fn ids() {
    let place = Place::new();
    for (id, words) in [
        ("", "0 characters"),
        ("/", "only letters"),
        ("a/b", "only letters"),
        ("..", "only letters"),
        ("a b", "only letters"),
        ("a\n", "only letters"),
        ("ä", "only letters"),
        (&"x".repeat(65), "65 characters"),
    ] {
        run_with(&place, &[("--id", id)]).assert_refused(USAGE, words);
    }
}

#[test]
fn an_id_may_have_64_characters() {
    need_root!();
    assert_eq!(run_with(&Place::new(), &[("--id", &"x".repeat(64))]).code, Some(0));
}

#[test]
fn programs() {
    need_root!();
    let place = Place::new();
    let refused = |path: &str, words: &str| {
        run_with(&place, &[("--exec-file", path)]).assert_refused(ERROR, words);
    };
    let path = |name: &str| place.path(name).display().to_string();
    refused(&path("missing"), "No such file");
    symlink(place.program(), place.path("link")).expect("a link");
    refused(&path("link"), "is a symbolic link");
    symlink(place.directory.path(), place.path("way")).expect("a link");
    refused(&format!("{}/program", path("way")), "/way is a symbolic link");
    refused(&format!("{}/../{}/program", path("x"), "x"), "'..' is not accepted");
    refused(&path("base"), "it is a directory, not a program");
    refused("/", "it is a directory, not a program");

    fs::write(place.path("text"), "#!/bin/sh\n").expect("a file");
    set_mode(&place.path("text"), 0o755);
    refused(&path("text"), "no ELF executable");
    fs::write(place.path("dynamic"), dynamic_elf()).expect("a file");
    set_mode(&place.path("dynamic"), 0o755);
    refused(&path("dynamic"), "needs a dynamic linker");
    fs::copy(place.program(), place.path("data")).expect("a file");
    set_mode(&place.path("data"), 0o644);
    refused(&path("data"), "not executable");
    for (name, mode) in [("others", 0o757), ("group", 0o775)] {
        fs::copy(place.program(), place.path(name)).expect("a file");
        set_mode(&place.path(name), mode);
        refused(&path(name), "can be changed by other users");
    }
    fs::copy(place.program(), place.path("foreign")).expect("a file");
    chown(place.path("foreign"), Some(UID), None).expect("we are root");
    refused(&path("foreign"), "can be changed by other users");
    fs::create_dir(place.path("open")).expect("a directory");
    fs::copy(place.program(), place.path("open/program")).expect("a file");
    set_mode(&place.path("open"), 0o777);
    refused(&path("open/program"), "/open can be changed by other users");
    fs::copy(place.program(), place.path("dev")).expect("a file");
    refused(&path("dev"), "cannot be called 'dev'");
}

/// An ELF header and one program header, PT_INTERP.
fn dynamic_elf() -> Vec<u8> {
    let mut bytes = vec![0u8; 64 + 56];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    for (offset, value) in [(16, 3u8), (18, 62), (32, 64), (54, 56), (56, 1), (64, 3)] {
        bytes[offset] = value;
    }
    bytes
}

#[test]
fn base_directories() {
    need_root!();
    let place = Place::new();
    let refused = |name: &str, words: &str| {
        let path = place.path(name).display().to_string();
        run_with(&place, &[("--chroot-base-dir", &path)]).assert_refused(ERROR, words);
    };
    refused("missing", "No such file");
    symlink(place.base(), place.path("link")).expect("a link");
    refused("link", "is a symbolic link");
    refused("program", "it is a file, not a directory");
    fs::create_dir(place.path("open")).expect("a directory");
    set_mode(&place.path("open"), 0o777);
    refused("open", "can be changed by other users");
    fs::create_dir(place.path("foreign")).expect("a directory");
    chown(place.path("foreign"), Some(UID), None).expect("we are root");
    refused("foreign", "can be changed by other users");
    // Someone has been faster in a directory that everyone may write to.
    fs::create_dir(place.path("sticky")).expect("a directory");
    set_mode(&place.path("sticky"), 0o1777);
    fs::create_dir(place.path("sticky/program")).expect("a directory");
    chown(place.path("sticky/program"), Some(UID), None).expect("we are root");
    refused("sticky", "can be changed by other users");
}

#[test]
fn users_and_groups() {
    need_root!();
    let place = Place::new();
    for flag in ["--uid", "--gid"] {
        for value in ["4294967296", "-1", "", "root"] {
            run_with(&place, &[(flag, value)]).assert_refused(USAGE, "invalid");
        }
        run_with(&place, &[(flag, "4294967295")]).assert_refused(ERROR, "is no ID");
        run_with(&place, &[(flag, "0")]).assert_refused(ERROR, "--allow-root");
    }
    let ended = place.run(&["--allow-root"], &["exit", "0"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn cgroup_flags() {
    let place = Place::new();
    for (value, words) in [
        ("memory.max", "FILE=VALUE"),
        ("memory.max=", "no value"),
        ("=3", "no cgroup file"),
        ("memory=3", "no cgroup file"),
        (".max=3", "no cgroup file"),
        ("memory.=3", "no cgroup file"),
        ("../memory.max=3", "no cgroup file"),
        ("memory.max/x=3", "no cgroup file"),
        ("cgroup.procs=1", "jailer's own business"),
        ("cgroup.subtree_control=+pids", "jailer's own business"),
    ] {
        place.run(&["--cgroup", value], &["exit", "0"]).assert_refused(USAGE, words);
    }
    for value in ["", "/", "/a", "a/../b", "..", "."] {
        place.run(&["--parent-cgroup", value], &["exit", "0"]).assert_refused(USAGE, "expected a path");
    }
    place.run(&["--cgroup-version", "3"], &["exit", "0"]).assert_refused(USAGE, "invalid value '3'");
    place.assert_empty();
}

#[test]
fn controllers_and_values_that_the_kernel_refuses() {
    need_root!();
    let place = Place::new();
    place.run(&["--cgroup", "peas.max=1"], &["exit", "0"]).assert_refused(ERROR, "has the controller 'peas'");
    place.assert_empty();
    need_cgroups!();
    place.run(&["--cgroup", "pids.most=1"], &["exit", "0"]).assert_refused(ERROR, "has no file pids.most");
    place
        .run(&["--cgroup", "pids.max=pears"], &["exit", "0"])
        .assert_refused(ERROR, "cannot write 'pears' to pids.max");
    place.assert_empty();
}

#[test]
fn network_namespaces() {
    need_root!();
    let place = Place::new();
    let refused = |path: &str, words: &str| {
        place.run(&["--netns", path], &["exit", "0"]).assert_refused(ERROR, words);
        place.assert_empty();
    };
    refused("/run/netns/missing", "No such file");
    refused(place.file("text", "").to_str().expect("plain"), "it is no network namespace");
    refused(&format!("{}/x", place.path("text").display()), "Not a directory");
    refused("/proc/self", "it is no network namespace");
    refused("/proc/self/ns/uts", "it is no network namespace");
    refused("/dev/null", "it is no network namespace");
    // Links are followed, if nobody else could make them lead elsewhere.
    let link = |name: &str, target: &str| {
        symlink(target, place.path(name)).expect("a link");
        place.path(name).display().to_string()
    };
    refused(&link("ours", "/proc/self/ns/uts"), "it is no network namespace");
    refused(&format!("{}/ns/uts", link("way", "../../../../proc/self")), "it is no network namespace");
    refused(&link("circle", "circle"), "Too many levels");
    refused("/proc/self/root/run/netns/x", "/root is a symbolic link");
    let theirs = link("theirs", "/proc/self/ns/net");
    std::os::unix::fs::lchown(&theirs, Some(UID), None).expect("we are root");
    refused(&theirs, "can be changed by other users");
    fs::create_dir(place.path("open")).expect("a directory");
    set_mode(&place.path("open"), 0o777);
    refused(&link("open/ours", "/proc/self/ns/net"), "/open can be changed by other users");
}

#[test]
fn a_network_namespace_may_be_behind_links() {
    need_root!();
    let place = Place::new();
    symlink("/proc/self/ns", place.path("way")).expect("a link");
    symlink("way/net", place.path("link")).expect("a link");
    let path = place.path("link").display().to_string();
    assert_eq!(place.run(&["--netns", &path], &["exit", "7"]).code, Some(7));
}

#[test]
fn binds() {
    need_root!();
    let place = Place::new();
    let file = place.file("file", "x").display().to_string();
    for value in [
        "",
        "x",
        ":/x",
        &format!("{file}:x"),
        &format!("{file}:/"),
        &format!("{file}:/a/../b"),
        &format!("{file}:"),
    ] {
        place.run(&["--bind", value], &["exit", "0"]).assert_refused(USAGE, "invalid value");
    }
    let refused = |value: &str, words: &str| {
        place
            .run(&["--bind", &format!("{file}:/x"), "--bind", value], &["exit", "0"])
            .assert_refused(ERROR, words);
        place.assert_empty();
    };
    refused(&format!("{file}:/x"), "overlap");
    refused(&format!("{file}:/x/y"), "overlap");
    refused(&format!("{file}:/dev/kvm"), "overlap");
    refused(&format!("{file}:/program"), "overlap");
    refused(&format!("{file}x:/y"), "No such file");
    symlink(&file, place.path("link")).expect("a link");
    refused(&format!("{}:/y", place.path("link").display()), "is a symbolic link");
    fs::write(place.path("ours"), "x").expect("a file");
    set_mode(&place.path("ours"), 0o600);
    refused(&format!("{}:/y,ro", place.path("ours").display()), "the jail's user cannot read it");
    set_mode(&place.path("ours"), 0o644);
    refused(&format!("{}:/y", place.path("ours").display()), "or bind it with ',ro'");
}

#[test]
fn descriptors_and_limits() {
    need_root!();
    let place = Place::new();
    for value in ["x", "x=", "x=2", "=5", "x=-1", "x=99999999999"] {
        place.run(&["--keep-fd", value], &["exit", "0"]).assert_refused(USAGE, "invalid value");
    }
    place
        .run(&["--keep-fd", "tap=77"], &["exit", "0"])
        .assert_refused(ERROR, "cannot keep descriptor 77 ('tap')");
    place
        .run(&["--keep-fd", "a=77", "--keep-fd", "b=77"], &["exit", "0"])
        .assert_refused(ERROR, "named twice");
    for value in ["x", "fsize", "fsize=x", "fsize=-1", "stack=1"] {
        place.run(&["--resource-limit", value], &["exit", "0"]).assert_refused(USAGE, "invalid value");
    }
    place.assert_empty();
}

#[test]
fn what_is_needed() {
    let ended = Ended::new(&Command::new(JAILER).output().expect("the jailer starts"));
    ended.assert_refused(USAGE, "--exec-file");
    let ended =
        Ended::new(&Command::new(JAILER).args(["--clean", "../x"]).output().expect("the jailer starts"));
    ended.assert_refused(USAGE, "only letters");
}
