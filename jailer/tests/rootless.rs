//! The same jail for an ordinary user. Skipped on a host that lets none make a user namespace.

mod support;

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Command;

use support::{Ended, JAILER, Place, UID, set_mode};

/// Somebody without any right.
const USER: u32 = 61_002;

/// A place that an ordinary user has, and the jailer where they can run it.
fn place() -> Place {
    let place = Place::new();
    set_mode(place.directory.path(), 0o755);
    chown(place.base(), Some(USER), Some(USER)).expect("we are root");
    std::fs::copy(JAILER, place.path("jailer")).expect("a copy");
    place
}

fn run(place: &Place, flags: &[&str], arguments: &[&str]) -> Ended {
    let mut command = Command::new(place.path("jailer"));
    command.args(place.jailer("a").get_args()).args(flags).arg("--").args(arguments);
    Ended::new(&command.uid(USER).gid(USER).output().expect("the jailer starts"))
}

fn user_namespaces() -> bool {
    let mut command = Command::new("unshare");
    let made = command.args(["-U", "true"]).uid(USER).gid(USER).output();
    let able = made.is_ok_and(|output| output.status.success());
    if !able {
        support::skipped(
            std::thread::current().name().unwrap_or("a test"),
            "users cannot make user namespaces here",
        );
    }
    able
}

#[test]
fn an_ordinary_user_has_the_same_room() {
    need_root!();
    if !user_namespaces() {
        return;
    }
    let place = place();
    let ended = run(&place, &["--rootless", "--new-pid-ns"], &["describe"]);
    for fact in [
        &format!("uid={UID} gid={UID} groups=[]"),
        "capabilities=0x0 bounding=0",
        "no_new_privs=true",
        "environment=0",
        "cwd=/",
        "pid=1\n",
        "root=dev program\n",
    ] {
        ended.assert_said(fact);
    }
    assert!(ended.err.contains(&format!("are you yourself, {USER} and {USER}")), "{ended:?}");
    assert!(ended.err.contains("no cgroup"), "{ended:?}");
    let ended = run(&place, &["--rootless", "--new-pid-ns"], &["escape"]);
    assert!(ended.code == Some(0) && !ended.out.contains("ESCAPED"), "{ended:?}");
    place.assert_empty();
}

#[test]
fn what_takes_root_says_so() {
    need_root!();
    let place = place();
    run(&place, &[], &["exit", "0"]).assert_refused(1, "a jail takes root, or --rootless");
    if !user_namespaces() {
        return;
    }
    let ended = run(&place, &["--rootless", "--netns", "/proc/1/ns/net"], &["exit", "0"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    place.assert_empty();
}
