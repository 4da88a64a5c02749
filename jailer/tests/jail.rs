//! What a jail is, seen from inside and from outside.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::{Ended, JAILER, Place, UID};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A keeper whose jail does not outlive a test that fails: it would hold the test's output open.
struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        // Most have ended, and been waited for. The program ends with its keeper.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a jail whose program sleeps, and waits until it does.
fn start_sleeper(place: &Place, id: &str, flags: &[&str]) -> Keeper {
    let mut command = place.jailer(id);
    command.args(flags).args(["--", "sleep"]).stdout(Stdio::piped());
    let mut keeper = Keeper(command.spawn().expect("the jailer starts"));
    let mut line = String::new();
    let out = keeper.0.stdout.take().expect("piped");
    BufReader::new(out).read_line(&mut line).expect("it speaks");
    assert_eq!(line, "ready\n");
    keeper
}

/// The program may speak before its keeper has written its PID.
fn pid_of(place: &Place, id: &str) -> i32 {
    let file = place.home(id).join("root/program.pid");
    let read = || fs::read_to_string(&file).ok()?.parse().ok();
    let mut pid = read();
    wait_until("a PID file", || {
        pid = pid.or_else(read);
        pid.is_some()
    });
    pid.expect("a number")
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Its exit code. A jail that does not end is killed, and is a failure.
fn end_of(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        if begun.elapsed() > PATIENCE {
            child.kill().expect("a child");
            panic!("the jail does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a PID"), signal).expect("it lives");
}

#[test]
fn an_empty_room() {
    need_root!();
    let place = Place::new();
    let ended = place.run(&["--new-pid-ns"], &["describe"]);
    ended.assert_said(&format!("uid={UID} gid={UID} groups=[]"));
    for fact in [
        "capabilities=0x0 bounding=0",
        "no_new_privs=true",
        "environment=0",
        "cwd=/",
        "core=Some(1) no-file=Some(2048)",
        "umask=22",
        "pid=1\n",
        "root=dev program\n",
    ] {
        ended.assert_said(fact);
    }
    place.assert_empty();
}

#[test]
fn arguments_and_exit_codes_pass_unchanged() {
    need_root!();
    let place = Place::new();
    place.run(&[], &["echo", "a b", "", "--id", "*"]).assert_said("a b||--id|*");
    assert_eq!(place.run(&[], &["exit", "42"]).code, Some(42));
    let mut child = start_sleeper(&place, "a", &[]);
    signal(pid_of(&place, "a"), Signal::KILL);
    assert_eq!(end_of(&mut child.0), Some(137));
    place.assert_empty();
}

#[test]
fn nothing_can_be_written_but_what_is_bound() {
    need_root!();
    let place = Place::new();
    let file = place.file("disk", "old");
    let directory = place.directory("sockets");
    let bind = |source: &Path, rest: &str| format!("{}:{rest}", source.display());
    for path in ["/x", "/dev/x", "/program", "/dev/net/x"] {
        let ended = place.run(&[], &["write", path, "new"]);
        assert_eq!(ended.code, Some(1), "{path}: {ended:?}");
    }
    let ended = place.run(&["--bind", &bind(&file, "/disk,ro")], &["write", "/disk", "new"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    place.run(&["--bind", &bind(&file, "/disk,ro")], &["read", "/disk"]).assert_said("old");
    place
        .run(&["--bind", &bind(&file, "/deep/er/disk")], &["write", "/deep/er/disk", "new"])
        .assert_said("written");
    assert_eq!(fs::read_to_string(&file).expect("readable"), "new");
    place.run(&["--bind", &bind(&directory, "/run")], &["write", "/run/new", "x"]).assert_said("written");
    assert!(directory.join("new").exists());
    place.run(&["--bind", &bind(&directory, "/run,ro")], &["list", "/run"]).assert_said("new");
    place.assert_empty();
}

#[test]
fn landlock_allows_what_is_named_and_nothing_else() {
    need_root!();
    if !has_landlock() {
        support::skipped("landlock_allows_what_is_named_and_nothing_else", "this kernel has no Landlock");
        return;
    }
    let place = Place::new();
    let directory = place.directory("sockets");
    let bind = format!("{}:/run", directory.display());
    place.run(&["--bind", &bind], &["list", "/run"]).assert_said("\n");
    // Its mode would let everyone list it.
    for path in ["/", "/dev"] {
        let ended = place.run(&["--bind", &bind], &["list", path]);
        assert!(ended.code == Some(1) && ended.out.contains("Permission denied"), "{path}: {ended:?}");
    }
}

fn has_landlock() -> bool {
    use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    rules.handle_access(AccessFs::from_all(ABI::V1)).is_ok_and(|rules| rules.create().is_ok())
}

#[test]
fn devices_get_nodes_of_the_jails_user() {
    need_root!();
    let place = Place::new();
    let ended = place.run(&["--bind", "/dev/zero:/disk,ro"], &["describe"]);
    ended.assert_said("urandom");
    ended.assert_said("root=dev disk program");
    let ended = place.run(&["--bind", "/dev/null:/disk,ro"], &["write", "/disk", "x"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    place.run(&["--bind", "/dev/null:/disk"], &["write", "/disk", "x"]).assert_said("written");
}

#[test]
fn descriptors_are_closed_but_those_that_are_named() {
    need_root!();
    let place = Place::new();
    // The shell opens two, one of them to be kept.
    let words = r#"exec 5</dev/null 6</dev/null; exec "$@""#;
    let jailer = place.jailer("a");
    let mut command = Command::new("sh");
    command.args(["-c", words, "sh"]).arg(JAILER).args(jailer.get_args());
    let ended = command.args(["--keep-fd", "file=6", "--", "descriptors"]).output().expect("a shell");
    Ended::new(&ended).assert_said("0 1 2 6\n");
}

#[test]
fn signals_reach_the_program() {
    need_root!();
    let place = Place::new();
    for (name, number) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129), (Signal::USR1, 138)] {
        let mut child = start_sleeper(&place, "a", &[]);
        signal(child.0.id().cast_signed(), name);
        assert_eq!(end_of(&mut child.0), Some(number));
    }
    place.assert_empty();
}

#[test]
fn one_jail_of_a_name_at_a_time() {
    need_root!();
    let place = Place::new();
    let mut first = start_sleeper(&place, "a", &[]);
    place.run(&[], &["exit", "0"]).assert_refused(1, "jail 'a' is running");
    place.clean("a").assert_refused(1, "jail 'a' is running");
    let mut second = start_sleeper(&place, "b", &[]);
    for child in [&mut first, &mut second] {
        signal(child.0.id().cast_signed(), Signal::TERM);
        end_of(&mut child.0);
    }
    place.assert_empty();
}

#[test]
fn what_a_killed_keeper_leaves_is_refused_and_cleaned() {
    need_root!();
    let place = Place::new();
    let mut child = start_sleeper(&place, "a", &["--new-pid-ns"]);
    let inside = pid_of(&place, "a");
    signal(child.0.id().cast_signed(), Signal::KILL);
    end_of(&mut child.0);
    wait_until("the program ends with its keeper", || {
        !Path::new(&format!("/proc/{inside}/root/dev")).exists()
    });
    place.run(&[], &["exit", "0"]).assert_refused(1, "mote-jailer --clean a");
    assert_eq!(place.clean("a").code, Some(0));
    assert_eq!(place.clean("a").code, Some(0), "there is nothing left to clean");
    place.assert_empty();
    assert_eq!(place.run(&[], &["exit", "0"]).code, Some(0));
}

#[test]
fn what_no_jail_has_made_is_not_removed() {
    need_root!();
    let place = Place::new();
    fs::create_dir_all(place.home("a")).expect("a directory");
    fs::write(place.home("a").join("diary"), "dear").expect("a file");
    place.run(&[], &["exit", "0"]).assert_refused(1, "mote-jailer --clean a");
    place.clean("a").assert_refused(1, "it holds what no jail puts there");
    assert!(place.home("a").join("diary").exists());
}

#[test]
fn daemonized() {
    need_root!();
    let place = Place::new();
    let started = place.run(&["--daemonize"], &["sleep"]);
    assert_eq!((started.code, started.out.as_str()), (Some(0), ""), "{started:?}");
    let inside = pid_of(&place, "a");
    let target = fs::read_link(format!("/proc/{inside}/fd/1")).expect("it runs");
    assert_eq!(target, Path::new("/dev/null"));
    signal(inside, Signal::TERM);
    wait_until("its keeper cleans up", || !place.base().join("program").exists());
    place.assert_empty();
    // What is wrong is said before anyone is left alone with it.
    let file = place.path("ours");
    fs::write(&file, "").expect("a file");
    support::set_mode(&file, 0o600);
    let ended = place.run(&["--daemonize", "--bind", &format!("{}:/x", file.display())], &["sleep"]);
    ended.assert_refused(1, "the jail's user cannot write it");
    place.assert_empty();
}

#[test]
fn limits_hold() {
    need_root!();
    let place = Place::new();
    place.run(&["--resource-limit", "no-file=64"], &["describe"]).assert_said("no-file=Some(64)");
    let file = place.file("disk", "");
    let bind = format!("{}:/disk", file.display());
    let ended = place.run(&["--resource-limit", "fsize=2", "--bind", &bind], &["write", "/disk", "four"]);
    // SIGXFSZ, or EFBIG where it is ignored.
    assert!(matches!(ended.code, Some(1 | 153)), "{ended:?}");
    assert_eq!(fs::metadata(&file).expect("there").len(), 2);
}

#[test]
fn many_at_once() {
    need_root!();
    let place = Place::new();
    let before = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted").lines().count();
    let start = |index: usize| {
        let mut command = place.jailer(&format!("jail-{index}"));
        command.args(["--new-pid-ns", "--", "exit", "7"]).spawn().expect("the jailer starts")
    };
    for round in 0..4 {
        let children: Vec<Child> = (0..50).map(|index| start(50 * round + index)).collect();
        for mut child in children {
            assert_eq!(end_of(&mut child), Some(7));
        }
    }
    place.assert_empty();
    let after = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted").lines().count();
    assert_eq!(before, after);
}
