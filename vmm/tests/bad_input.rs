//! Wrong flags, files and hosts: one clear line, exit code 1 or 2, nothing left behind. Most of it needs no KVM.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[macro_use]
mod support;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{MOTE, skipped};

fn mote(arguments: &[&str]) -> Output {
    Command::new(MOTE).args(arguments).output().unwrap()
}

#[track_caller]
fn refused(output: &Output, code: i32, says: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(says), "'{stderr}' does not say '{says}'");
    assert!(!stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"), "{stderr}");
    if code == 1 {
        assert_eq!(stderr.lines().count(), 1, "more than one line: {stderr}");
    }
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

#[track_caller]
fn kernel_refused(kernel: &Path, says: &str) {
    let output = mote(&["run", "--kernel", kernel.to_str().unwrap()]);
    refused(&output, 1, says);
    refused(&output, 1, kernel.to_str().unwrap());
}

#[test]
fn wrong_flags_exit_with_2() {
    for (arguments, says) in [
        (&["run", "--cpu", "1"][..], "--cpu"),
        (&["run", "--cpus", "0"], "1 to 32 vCPUs"),
        (&["run", "--cpus", "33"], "1 to 32 vCPUs"),
        (&["run", "--memory", "0"], "at least 16 MiB"),
        (&["run", "--memory", "1M"], "at least 16 MiB"),
        (&["run", "--memory", "999999999T"], "511 GiB"),
        (&["run", "--memory", "much"], "not a size"),
        (&["run", "--timeout=-1"], "--timeout"),
        (&["run", "--timeout", "soon"], "not a number of seconds"),
        (&["run", "--result", "fd:x"], "open descriptor"),
        (&["run", "--config-file", "a", "--kernel", "b"], "cannot be used with"),
        (&["run", "--no-seccomp", "--seccomp-filter", "f"], "cannot be used with"),
        (&["start"], "start"),
        (&[], "Usage"),
    ] {
        refused(&mote(arguments), 2, says);
    }
}

#[test]
fn a_wrong_kernel_is_named_with_what_is_wrong() {
    let files = Files::new();
    let guest = files.write("guest.elf", guest_kernel::ELF);
    let elf = std::fs::read(&guest).unwrap();
    let patched = |name: &str, offset: usize, bytes: &[u8]| {
        let mut elf = elf.clone();
        elf[offset..offset + bytes.len()].copy_from_slice(bytes);
        files.write(name, elf)
    };
    kernel_refused(Path::new("/nowhere/vmlinux"), "No such file");
    kernel_refused(files.0.path(), "not a regular file");
    kernel_refused(Path::new("/dev/zero"), "not a regular file");
    kernel_refused(&files.write("empty", ""), "empty");
    kernel_refused(
        &files.write("text", "#!/bin/sh\necho a kernel is not a script\n".repeat(100)),
        "text file",
    );
    kernel_refused(&files.write("truncated", &elf[..elf.len() / 2]), "truncated");
    kernel_refused(&files.write("header", &elf[..40]), "truncated");
    // e_ident[EI_CLASS] = ELFCLASS32, e_machine = EM_AARCH64.
    kernel_refused(&patched("32-bit", 4, &[1]), "32-bit");
    kernel_refused(&patched("aarch64", 18, &[183, 0]), "machine");
}

#[test]
fn a_kernel_larger_than_the_memory_is_refused() {
    need_kvm!();
    let files = Files::new();
    // The first program header's p_memsz: 1 GiB in a machine of 128 MiB.
    let mut elf = guest_kernel::ELF.to_vec();
    let header = usize::try_from(u64::from_le_bytes(*elf[32..].first_chunk().unwrap())).unwrap();
    let load =
        (0..8).map(|index| header + index * 56).find(|&at| elf[at..at + 4] == 1u32.to_le_bytes()).unwrap();
    elf[load + 40..load + 48].copy_from_slice(&(1u64 << 30).to_le_bytes());
    kernel_refused(&files.write("huge", elf), "RAM");
}

#[test]
fn an_initrd_that_does_not_fit_is_refused() {
    need_kvm!();
    let files = Files::new();
    let initrd = files.write("initrd", "");
    std::fs::File::options().write(true).open(&initrd).unwrap().set_len(20 << 20).unwrap();
    let run = |initrd: &Path| mote(&["run", "--memory", "16M", "--initrd", initrd.to_str().unwrap()]);
    refused(&run(&initrd), 1, initrd.to_str().unwrap());
    refused(&run(&files.write("empty", "")), 1, "empty");
    refused(&run(Path::new("/nowhere/initrd")), 1, "/nowhere/initrd");
}

#[test]
fn a_command_line_that_no_kernel_takes_is_refused() {
    refused(&mote(&["run", "--cmdline", &"x".repeat(4096)]), 1, "--cmdline");
    let files = Files::new();
    let config = files
        .write("config.json", r#"{"boot-source": {"kernel_image_path": "/k", "boot_args": "a\u0000b"}}"#);
    refused(&mote(&["run", "--config-file", config.to_str().unwrap()]), 1, "boot-source.boot_args");
}

#[test]
fn a_wrong_configuration_is_named_with_its_field() {
    let files = Files::new();
    for (content, says) in [
        (&br#"{"boot-source": {"kernel_image_path": "/k", "initrd": "/i"}}"#[..], "initrd"),
        (br#"{"machine-config": {"vcpu_count": "two", "mem_size_mib": 128}}"#, "vcpu_count"),
        (br#"{"machine-config": {"vcpu_count": 1, "mem_size_mib": 1}}"#, "machine-config.mem_size_mib"),
        (br#"{"drives": [{"drive_id": "a"}]}"#, "drives"),
        (b"{\"logger\": \xff}", "line 1"),
        (b"", "EOF"),
    ] {
        let config = files.write("config.json", content);
        let output = mote(&["run", "--config-file", config.to_str().unwrap()]);
        refused(&output, 1, says);
        refused(&output, 1, "config.json");
    }
    refused(&mote(&["run", "--config-file", "/nowhere.json"]), 1, "/nowhere.json");
}

#[test]
fn outputs_that_cannot_be_written_cost_no_run() {
    refused(&mote(&["run", "--result", "/nowhere/result"]), 1, "/nowhere/result");
    refused(&mote(&["run", "--timeline", "/nowhere/timeline"]), 1, "/nowhere/timeline");
    refused(&mote(&["run", "--result", "fd:99"]), 1, "descriptor 99");
    refused(&mote(&["guest", "--output", "/nowhere/guest"]), 1, "/nowhere/guest");
}

/// As another user, if we are root: the device belongs to root, or to a group that `nobody` is not in.
#[test]
fn without_permission_the_cure_is_named() {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/kvm").exists() {
        return skipped("without_permission_the_cure_is_named", "not root, or no /dev/kvm to be kept from");
    }
    if std::os::unix::fs::MetadataExt::mode(&std::fs::metadata("/dev/kvm").unwrap()) & 0o006 != 0 {
        return skipped("without_permission_the_cure_is_named", "everybody may open /dev/kvm here");
    }
    use std::os::unix::fs::PermissionsExt;
    // The build directory may be closed to others: a copy is not. Not our own copy: what another test starts meanwhile
    // would have it open for writing, and then it cannot be executed.
    let files = Files::new();
    std::fs::set_permissions(files.0.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = files.0.path().join("mote");
    assert!(Command::new("cp").args([MOTE.as_ref(), copy.as_path()]).status().unwrap().success());
    let output = Command::new(copy).arg("run").uid(65534).gid(65534).output().unwrap();
    refused(&output, 1, "no permission to open /dev/kvm");
    refused(&output, 1, "usermod -aG kvm");
}

/// In mount namespaces of their own, where /dev is empty or /dev/kvm is another device.
#[test]
fn without_kvm_the_cure_is_named() {
    let hidden =
        |script: &str| Command::new("unshare").args(["--mount", "sh", "-c", script, "sh", MOTE]).output();
    match hidden("mount -t tmpfs none /dev && exec \"$1\" run") {
        Ok(output) if !String::from_utf8_lossy(&output.stderr).contains("mote") => {
            skipped("without_kvm_the_cure_is_named", "mount namespaces are not allowed here");
        }
        Err(_) => skipped("without_kvm_the_cure_is_named", "no unshare on this host"),
        Ok(output) => {
            refused(&output, 1, "/dev/kvm does not exist");
            refused(&output, 1, "modprobe kvm_intel");
            let output = hidden("mount -t tmpfs none /dev && touch /dev/kvm && exec \"$1\" run").unwrap();
            refused(&output, 1, "is it really KVM");
            let output = hidden("mount -t tmpfs none /dev && exec \"$1\" doctor").unwrap();
            assert_eq!(output.status.code(), Some(1));
            assert!(String::from_utf8_lossy(&output.stdout).contains("mote cannot run here yet"));
        }
    }
}

#[test]
fn a_wrong_seccomp_filter_is_named_with_what_is_wrong() {
    let files = Files::new();
    let filter = |rules: &str| {
        let filter =
            format!("{{\"mismatch_action\":\"trap\",\"match_action\":\"allow\",\"filter\":[{rules}]}}");
        format!("{{\"vmm\":{filter},\"io\":{filter},\"vcpu\":{filter}}}")
    };
    for (name, content, says) in [
        ("empty", String::new(), "EOF while parsing a value at line 1"),
        ("list", "[]".to_owned(), "a map of filters"),
        ("elf", "\u{7f}ELF".to_owned(), "expected value at line 1"),
        ("large", " ".repeat(2 << 20), "at most 1024 KiB"),
        ("unknown", filter("{\"syscall\":\"open_sesame\"}"), "open_sesame"),
        ("thread", "{}".to_owned(), "no filter for the 'vmm' threads"),
    ] {
        let path = files.write(name, content);
        let output = mote(&["run", "--seccomp-filter", path.to_str().unwrap()]);
        refused(&output, 1, says);
        refused(&output, 1, path.to_str().unwrap());
    }
    let nowhere = files.0.path().join("nowhere");
    refused(&mote(&["run", "--seccomp-filter", nowhere.to_str().unwrap()]), 1, "No such file");
    refused(&mote(&["run", "--seccomp-filter", "/"]), 1, "Is a directory");
}

/// A static binary has no interpreter; RUSTFLAGS in the environment would silently make it dynamic.
#[test]
fn mote_is_one_static_binary() {
    const PT_DYNAMIC: u32 = 2;
    const PT_INTERP: u32 = 3;
    let elf = std::fs::read(MOTE).unwrap();
    let header = usize::try_from(u64::from_le_bytes(*elf[32..].first_chunk().unwrap())).unwrap();
    let count = u16::from_le_bytes(*elf[56..].first_chunk().unwrap());
    for index in 0..usize::from(count) {
        let kind = u32::from_le_bytes(*elf[header + index * 56..].first_chunk().unwrap());
        assert!(kind != PT_INTERP && kind != PT_DYNAMIC, "program header {index} is of type {kind}");
    }
}
