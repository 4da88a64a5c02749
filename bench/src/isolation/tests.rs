//! What happens to a bench whose subjects misbehave: shell scripts stand in for them.

use std::fs;
use std::time::Instant;

use super::*;
use crate::subjects::{Shell, Subject};

const ECHO: &str = r#"echo READY; while read -r line; do echo "ECHO $line"; done"#;

/// The findings of the scripts' starts, each in two rounds.
fn started(scripts: &[&str], limit: Duration) -> Vec<Findings> {
    let warden = Warden::start().unwrap();
    let stock = Stock { program: Path::new("/bin/sh"), data: Path::new("/dev/null"), warden: &warden, limit };
    let contenders: Vec<_> =
        scripts.iter().map(|script| Contender::new(Box::new(Shell::new(script)), stock)).collect();
    let mut all: Vec<Findings> = contenders.iter().map(|one| Findings::new(&*one.subject)).collect();
    time_starts(&contenders, &mut all, 2, &mut Rng::with_seed(1)).unwrap();
    all
}

const PATIENT: Duration = Duration::from_secs(20);

#[test]
fn a_crash_is_counted_and_does_not_stop_the_others() {
    let all = started(&["echo no /dev/kvm >&2; exit 3", "echo READY"], PATIENT);
    let said = "shell never started: ended before it was ready: exit status: 3, saying: no /dev/kvm";
    assert_eq!(all[0].failures, [said]);
    assert!(!all[0].works() && all[1].works() && all[1].failures.is_empty());
}

#[test]
fn what_hangs_is_killed_in_time() {
    let begun = Instant::now();
    let all = started(&["sleep 1000"], Duration::from_millis(100));
    assert_eq!(all[0].failures, ["shell never started: nothing came, or not enough, within 100ms"]);
    assert!(begun.elapsed() < PATIENT);
}

#[test]
fn ready_twice_is_no_start() {
    let all = started(&["echo READY; echo READY"], PATIENT);
    assert!(!all[0].works());
    assert!(
        all[0].failures[0].contains(r#"it did not say what it should, but "READY\n""#),
        "{:?}",
        all[0].failures
    );
}

#[test]
fn what_is_left_behind_ends_with_the_bench() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("id");
    let script = format!("sleep 1000 >/dev/null & echo $! >{}; echo READY", file.display());
    assert!(started(&[&script], PATIENT)[0].works());
    let id = fs::read_to_string(file).unwrap().trim().to_owned();
    let begun = Instant::now();
    let lives = || fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while lives() {
        assert!(begun.elapsed() < PATIENT, "process {id} lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn jobs_are_timed_and_wrong_answers_are_failures() {
    let warden = Warden::start().unwrap();
    let data = warden.directory().join("data");
    fs::write(&data, "data").unwrap();
    let stock = Stock { program: Path::new("/bin/sh"), data: &data, warden: &warden, limit: PATIENT };
    let good = format!(
        r#"case "$1" in mode=read) echo READY; echo bytes=67108864 notifications=7;; *) {ECHO};; esac"#
    );
    let bad = "echo READY; test \"$1\" != mode=read || exit 1; while read -r line; do echo ECHO; done";
    let contenders =
        [&*good, bad].map(|script| Contender::new(Box::new(Shell::new(script)) as Box<dyn Subject>, stock));
    let mut all: Vec<Findings> = contenders.iter().map(|one| Findings::new(&*one.subject)).collect();
    time_starts(&contenders, &mut all, 1, &mut Rng::with_seed(1)).unwrap();
    for (contender, findings) in contenders.iter().zip(&mut all) {
        tasks::ask(contender, findings);
    }
    tasks::read(&contenders, &mut all, &mut Rng::with_seed(1));
    assert!(all[0].answers() && !all[1].answers());
    assert_eq!(all[0].failures, [""; 0]);
    assert_eq!(all[0].count(Metric::Read), 5);
    assert_eq!(all[1].count(Metric::Read), 0);
    let failures = all[1].failures.join("\n");
    assert!(
        failures.contains(r#"to answer a line: it did not say what it should, but "ECHO""#),
        "{failures}"
    );
    assert!(failures.contains("to read: ended before"), "{failures}");
}

/// One process that holds all, as that for WebAssembly does.
#[test]
fn a_host_of_many_is_asked_for_each() {
    const HOST: &str = r#"echo READY; while read -r verb number line; do case "$verb" in
        start) echo READY;; ask) echo "ECHO $line";; read) echo bytes=67108864;; end) echo ENDED;; esac; done"#;
    let warden = Warden::start().unwrap();
    let stock = Stock {
        program: Path::new("/bin/sh"),
        data: Path::new("/dev/null"),
        warden: &warden,
        limit: PATIENT,
    };
    let contender = Contender::new(Box::new(Shell::host(HOST)), stock);
    let mut findings = Findings::new(&*contender.subject);
    tasks::look(&contender, &mut findings);
    tasks::ask(&contender, &mut findings);
    assert!(findings.answers(), "{:?}", findings.failures);
    assert_eq!((findings.live, findings.count(Metric::Private)), (LIVE, 1));
    let broken = Contender::new(Box::new(Shell::host("echo READY; read -r line; echo no")), stock);
    let job = broken.job("mode=ready").unwrap();
    for _ in 0..2 {
        let failure = broken.start(&job).map(|_| ()).unwrap_err();
        assert!(matches!(failure, Failure::Output(_)), "each start gets a new host: {failure}");
    }
}
