use std::process::{Command, Stdio};

use jailer::seccomp::{Filters, Thread};

use super::*;

const CHILD: &str = "MOTE_TEST_PANICS";

/// What the process of the other test does.
#[test]
fn in_a_process_of_its_own() {
    if let Ok(result) = std::env::var(CHILD) {
        let result = File::create(result).unwrap();
        prepare(Some(&result)).unwrap();
        Filters::default().install(Thread::Vcpu).unwrap();
        panic!("on purpose,\n\"so\"");
    }
}

#[test]
fn a_panic_of_a_confined_thread_is_one_line_and_a_result() {
    let result = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "cli::last_words::tests::in_a_process_of_its_own", "--nocapture"]);
    let output = command.env(CHILD, result.path()).stdout(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(EXIT_ERROR.into()), "{stderr}");
    assert!(stderr.starts_with("mote: error: mote has a bug, please report it: panicked at "), "{stderr}");
    assert!(stderr.ends_with(" on purpose, \"so\"\n") && stderr.lines().count() == 1, "{stderr}");
    let result: serde_json::Value = serde_json::from_slice(&std::fs::read(result.path()).unwrap()).unwrap();
    assert_eq!(result["outcome"], "error");
    assert!(result["reason"].as_str().unwrap().ends_with("on purpose, \"so\""), "{result}");
}
