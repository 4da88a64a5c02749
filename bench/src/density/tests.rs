use std::fs;

use super::*;
use crate::subjects::Shell;

const ECHO: &str = r#"echo READY; while read -r line; do echo "ECHO $line"; done"#;

fn filled(script: &str, limits: Limits) -> Filling {
    let warden = Warden::start().unwrap();
    fill(&Shell::new(script), limits, &warden).unwrap()
}

const FEW: Limits = Limits { margin_mib: 0, at_most: 5 };

#[test]
fn all_that_live_answer() {
    let filling = filled(ECHO, FEW);
    assert_eq!((filling.available.len(), filling.answered), (5, Some(5)));
    assert_eq!(filling.stopped, "at most 5");
    assert!(filling.ends > 0.0 && filling.cost.is_some());
}

#[test]
fn a_wrong_answer_is_none() {
    let filling = filled("echo READY; while read -r line; do echo \"ECHO machine 3\"; done", FEW);
    assert_eq!(filling.answered, Some(0), "after three that are wrong nobody else is asked");
    let filling = filled("echo READY; read -r line; exit 1", FEW);
    assert_eq!(filling.answered, Some(0));
}

#[test]
fn the_margin_of_memory_is_kept() {
    let filling = filled(ECHO, Limits { margin_mib: u64::MAX / 2048, ..FEW });
    assert_eq!(filling.available.len(), 0);
    assert!(filling.stopped.starts_with("less than"), "{}", filling.stopped);
}

/// As where a limit of processes or of memory makes the next one fail.
#[test]
fn a_host_that_refuses_ends_the_filling_with_its_reason() {
    let marks = tempfile::tempdir().unwrap();
    let mark = marks.path().join("mark").display().to_string();
    let script = format!(
        r#"test "$(ls {mark}* 2>/dev/null | wc -l)" -lt 3 || {{ echo "no VM: EAGAIN" >&2; exit 1; }}; : >"{mark}$$"; {ECHO}"#
    );
    let filling = filled(&script, FEW);
    assert_eq!((filling.available.len(), filling.answered), (3, Some(3)));
    let expected = "the next did not start: ended before it was ready: exit status: 1, saying: no VM: EAGAIN";
    assert_eq!(filling.stopped, expected);
}

#[test]
fn nothing_is_left_of_a_filling() {
    let marks = tempfile::tempdir().unwrap();
    let mark = marks.path().join("mark").display().to_string();
    let filling = filled(&format!(r#": >"{mark}$$"; {ECHO}"#), FEW);
    assert_eq!(filling.available.len(), 5);
    let ids = fs::read_dir(marks.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().trim_start_matches("mark").to_owned());
    let ids: Vec<String> = ids.collect();
    assert_eq!(ids.len(), 5);
    assert!(ids.iter().all(|id| !fs::exists(format!("/proc/{id}")).unwrap()), "{ids:?}");
}

#[test]
fn a_rate_counts_what_failed() {
    let warden = Warden::start().unwrap();
    let subjects: Vec<Box<dyn Subject>> =
        vec![Box::new(Shell::new(ECHO)), Box::new(Shell::new("echo no; exit 1"))];
    let limits = Limits { margin_mib: 0, at_most: 2 };
    let measured = rate::measure(&subjects, 0, limits, 1, &mut Rng::with_seed(1), &warden).unwrap();
    assert!(measured.rates[0].iter().all(|level| level[0].is_some_and(|rate| rate > 0.0)));
    assert!(measured.again.iter().all(|level| level[0].is_some()));
    assert!(measured.rates[1].iter().all(|level| level == &[None]));
    let tallied = tally(measured.failures);
    let [(failure, count)] = tallied.iter().collect::<Vec<_>>()[..] else { panic!("{tallied:?}") };
    assert_eq!(*count, AT_A_TIME.len());
    assert!(failure.contains("it did not say what it should"), "{failure}");
}
