//! Builds the guest program with a nested cargo: it is a package of its own, linked in its own way, for no operating system.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "mote-guest";
/// Stable Rust on Linux has this target at hand; no code of its operating system is linked.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let program = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("program");
    for part in ["src", "build.rs", "link.ld", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", program.join(part).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let target_dir = PathBuf::from(variable("OUT_DIR")).join("guest");
    build(&program, &target_dir);
    let elf = target_dir.join(TARGET).join("release").join(PROGRAM);
    println!("cargo::rustc-env=MOTE_GUEST_ELF={}", elf.display());
}

fn build(program: &Path, target_dir: &Path) {
    let mut cargo = Command::new(variable("CARGO"));
    cargo.current_dir(program).args(["build", "--release", "--locked", "--offline", "--target", TARGET]);
    // What the outer cargo, clippy, a coverage tool or the user has set is meant for the workspace. Of the CARGO_ variables
    // only the home stays, and the network settings do no harm.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        let is_profile = name_text.starts_with("CARGO_PROFILE_") || name_text.starts_with("CARGO_BUILD_");
        let is_compiler = name_text.starts_with("RUSTC") || name_text.contains("RUSTFLAGS");
        if is_profile || (is_compiler && name_text != "RUSTC") || name_text.starts_with("CLIPPY_") {
            cargo.env_remove(&name);
        }
    }
    cargo
        .env("CARGO_TARGET_DIR", target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Crelocation-model=static\u{1f}-Ctarget-feature=+crt-static");
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("building {} ended with {status}", program.display())),
        Err(error) => fail(&format!("cargo does not start for {}: {error}", program.display())),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| fail(&format!("{name}: {error}")))
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1);
}
