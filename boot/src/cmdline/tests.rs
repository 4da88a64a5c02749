use proptest::prelude::*;

use super::*;
use crate::testkit::{MIB, bytes_at, machine};

#[test]
fn what_linux_takes_is_taken_as_it_is() {
    for line in ["", "console=ttyS0 panic=-1", "init=/bin/größe", "a=\"b c\" -- x"] {
        let cmdline = Cmdline::new(line).unwrap();
        assert_eq!((cmdline.as_str(), cmdline.len()), (line, line.len()));
        assert_eq!(cmdline.is_empty(), line.is_empty());
    }
    assert!(Cmdline::new(&"x".repeat(CMDLINE_MAX)).is_ok());
}

#[test]
fn what_linux_would_cut_or_misread_is_refused_with_its_place() {
    let error = |line: &str| Cmdline::new(line).unwrap_err();
    assert_eq!(error(&"x".repeat(2048)), CmdlineError::TooLong { length: 2048 });
    assert_eq!(error("ab\0c"), CmdlineError::Nul { position: 2 });
    assert_eq!(error("quiet\n"), CmdlineError::Control { position: 5, code: 0x0a });
    assert_eq!(error("ü\u{85}"), CmdlineError::Control { position: 2, code: 0x85 });
    assert_eq!(
        error("ab\0c").to_string(),
        "the kernel command line has a NUL at byte 2: remove it, the kernel would stop reading there"
    );
}

proptest! {
    /// "The kernel command line is a null-terminated string" of at most `cmdline_size` bytes (boot.rst, "The Kernel
    /// Command Line"): whatever is accepted arrives in guest memory whole, with one NUL, in its room.
    #[test]
    fn accepted_lines_arrive_whole(line in "\\PC{0,40}|[ -~\\x00-\\x1f]{0,8}|[a-z]{2040,2060}") {
        let refused = line.len() > 2047 || line.chars().any(char::is_control);
        match Cmdline::new(&line) {
            Err(_) => prop_assert!(refused),
            Ok(cmdline) => {
                prop_assert!(!refused);
                let (mem, _) = machine(16 * MIB);
                cmdline.write(&mem).unwrap();
                let room = bytes_at(&mem, layout::CMDLINE_START, layout::CMDLINE_ROOM as usize);
                let end = room.iter().position(|byte| *byte == 0).unwrap();
                prop_assert_eq!(&room[..end], line.as_bytes());
                prop_assert!(room[end..].iter().all(|byte| *byte == 0));
            }
        }
    }
}

#[test]
fn an_argument_goes_before_those_for_init() {
    let with =
        |line: &str| Cmdline::new(line).unwrap().with("root=/dev/vda").map(|line| line.as_str().to_owned());
    assert_eq!(with("").as_deref(), Ok("root=/dev/vda"));
    assert_eq!(with("quiet ").as_deref(), Ok("quiet root=/dev/vda"));
    assert_eq!(with("quiet -- -c true").as_deref(), Ok("quiet root=/dev/vda -- -c true"));
    assert_eq!(with("-- -c true").as_deref(), Ok("root=/dev/vda -- -c true"));
    assert_eq!(with("a=b-- -- c").as_deref(), Ok("a=b-- root=/dev/vda -- c"));
    assert_eq!(with("a=b-- c").as_deref(), Ok("a=b-- c root=/dev/vda"), "no word of its own");
    assert!(matches!(with(&"x".repeat(CMDLINE_MAX)), Err(CmdlineError::TooLong { .. })));
}
