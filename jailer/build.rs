//! Compiles the seccomp filters to constants: at run time there is nothing to parse.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

#[path = "src/seccomp/index.rs"]
mod index;

/// Which system calls each thread may make.
const FILTERS: &str = "filters/mote.json";
/// Those that only a build with debug assertions makes.
const DEBUG: &str = "filters/debug.json";

fn main() {
    for input in [FILTERS, DEBUG, "src/seccomp/index.rs"] {
        println!("cargo::rerun-if-changed={input}");
    }
    let mut filters = read(FILTERS);
    if env::var_os("CARGO_CFG_DEBUG_ASSERTIONS").is_some() {
        add(&mut filters, read(DEBUG));
    }
    let target = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let architecture = target.as_str().try_into().expect("an architecture that seccompiler knows");
    let json = serde_json::to_vec(&filters).expect("what was read can be written");
    let programs = match seccompiler::compile_from_json(json.as_slice(), architecture) {
        Ok(programs) => BTreeMap::from_iter(programs),
        Err(error) => panic!("{FILTERS}: {error}"),
    };
    let mut source = String::new();
    for (thread, program) in programs {
        let program = index::indexed(&program);
        writeln!(source, "/// The filter of the {thread} threads.").expect("a string takes it");
        writeln!(source, "const {}: &[sock_filter] = &{program:?};", thread.to_uppercase())
            .expect("a string takes it");
    }
    let output = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&output).join("filters.rs"), source).expect("OUT_DIR can be written");
}

fn read(path: &str) -> Value {
    let json = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Adds the rules of `more` to the filters of the same names.
fn add(filters: &mut Value, more: Value) {
    let Value::Object(more) = more else { panic!("{DEBUG}: no object") };
    for (thread, mut filter) in more {
        let rules = filter["filter"].as_array_mut().expect("each filter has its rules");
        let all = filters[&thread]["filter"].as_array_mut();
        all.unwrap_or_else(|| panic!("{DEBUG}: no {thread} in {FILTERS}")).append(rules);
    }
}
