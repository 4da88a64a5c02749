//! The filters are run here as the kernel would, on all system calls.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

const JSON: &str = include_str!("../../filters/mote.json");

const ALLOW: u32 = 0x7fff_0000;
const TRAP: u32 = 0x0003_0000;
const KILL: u32 = 0x8000_0000;
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

/// What a program says to a call (struct seccomp_data), and how many steps it took.
fn verdict(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let mut data = [number, architecture, 0, 0].to_vec();
    data.extend(arguments.into_iter().flat_map(|argument| [argument as u32, (argument >> 32) as u32]));
    let (mut place, mut accumulator) = (0, 0);
    for step in 1.. {
        let sock_filter { code, jt, jf, k } = program[place];
        place += 1;
        let branch = |met: bool| usize::from(if met { jt } else { jf });
        match code {
            0x20 => accumulator = data[k as usize / 4],
            0x54 => accumulator &= k,
            0x05 => place += k as usize,
            0x15 => place += branch(accumulator == k),
            0x25 => place += branch(accumulator > k),
            0x35 => place += branch(accumulator >= k),
            0x06 => return (k, step),
            _ => panic!("{code:#x}"),
        }
    }
    unreachable!()
}

fn programs() -> [(Thread, Program); 3] {
    let filters = Filters::from_json(JSON.as_bytes()).unwrap();
    [(Thread::Vmm, filters.vmm), (Thread::Io, filters.io), (Thread::Vcpu, filters.vcpu)]
}

fn rules(thread: Thread) -> Vec<Value> {
    let filters: Value = serde_json::from_str(JSON).unwrap();
    filters[thread.name()]["filter"].as_array().unwrap().clone()
}

fn number(rule: &Value) -> u32 {
    let call: syscalls::Sysno = rule["syscall"].as_str().unwrap().parse().unwrap();
    call.id().cast_unsigned()
}

/// The arguments that a rule asks for, and which those are.
fn arguments(rule: &Value) -> ([u64; 6], Vec<usize>) {
    let conditions = rule["args"].as_array().cloned().unwrap_or_default();
    let mut values = [0; 6];
    let mut named = Vec::new();
    for condition in conditions {
        let index = condition["index"].as_u64().unwrap() as usize;
        values[index] = condition["val"].as_u64().unwrap();
        named.push(index);
    }
    (values, named)
}

#[test]
fn there_are_no_more_system_calls_than_promised() {
    for (thread, most) in [(Thread::Vmm, 35), (Thread::Io, 35), (Thread::Vcpu, 12)] {
        let calls: BTreeSet<u32> = rules(thread).iter().map(number).collect();
        assert!(calls.len() <= most, "{thread:?}: {}", calls.len());
    }
}

#[test]
fn every_rule_says_who_needs_it_and_what_its_numbers_mean() {
    for rule in Thread::ALL.into_iter().flat_map(rules) {
        assert!(rule["comment"].as_str().is_some_and(|comment| !comment.is_empty()), "{rule}");
        let conditions = rule["args"].as_array().cloned().unwrap_or_default();
        assert!(conditions.iter().all(|condition| condition["comment"].is_string()), "{rule}");
    }
}

#[test]
fn what_a_rule_allows_is_allowed_and_nothing_else() {
    for (thread, program) in programs() {
        let rules = rules(thread);
        for rule in &rules {
            let (values, named) = arguments(rule);
            assert_eq!(verdict(&program, X86_64, number(rule), values).0, ALLOW, "{rule}");
            assert_eq!(verdict(&program, I386, number(rule), values).0, KILL, "{rule}");
            // What x32 calls have in their numbers (asm/unistd.h, __X32_SYSCALL_BIT).
            assert_eq!(verdict(&program, X86_64, number(rule) | 0x4000_0000, values).0, TRAP, "{rule}");
            for index in named {
                let mut other = values;
                other[index] ^= 0x4000;
                assert_eq!(verdict(&program, X86_64, number(rule), other).0, TRAP, "{rule}");
            }
        }
        let allowed: BTreeSet<u32> = rules.iter().map(number).collect();
        for number in (0..1024).filter(|number| !allowed.contains(number)) {
            // Arguments that other calls are allowed with.
            for rule in &rules {
                assert_eq!(verdict(&program, X86_64, number, arguments(rule).0).0, TRAP, "{number}");
            }
        }
    }
}

#[test]
fn no_memory_becomes_code() {
    for (thread, program) in programs() {
        for flags in [0, 0x22] {
            let executable = [0, 4096, 7, flags, u64::MAX, 0];
            for call in [syscalls::Sysno::mmap, syscalls::Sysno::mprotect] {
                let number = call.id().cast_unsigned();
                assert_eq!(verdict(&program, X86_64, number, executable).0, TRAP, "{thread:?} {call}");
            }
        }
    }
}

#[test]
fn the_search_tree_changes_no_verdict_and_shortens_the_way() {
    let plain = seccompiler::compile_from_json(JSON.as_bytes(), seccompiler::TargetArch::x86_64).unwrap();
    for (thread, program) in programs() {
        let plain = &plain[thread.name()];
        let arguments: Vec<[u64; 6]> = rules(thread).iter().map(|rule| arguments(rule).0).collect();
        for number in (0..600).chain([0x4000_0000, u32::MAX]) {
            for &arguments in arguments.iter().chain(&[[0; 6], [u64::MAX; 6]]) {
                let expected = verdict(plain, X86_64, number, arguments).0;
                assert_eq!(verdict(&program, X86_64, number, arguments).0, expected, "{thread:?} {number}");
            }
        }
        let steps = |program: &[sock_filter]| -> usize {
            (0..450).map(|number| verdict(program, X86_64, number, [0; 6]).1).sum()
        };
        assert!(steps(&program) * 2 < steps(plain), "{} {}", steps(&program), steps(plain));
    }
}

#[test]
fn a_tree_stands_before_any_filter() {
    for calls in [&[][..], &["read"], &["read", "write"], &["futex", "write", "exit_group"]] {
        let rules: Vec<Value> = calls.iter().map(|call| json!({ "syscall": call })).collect();
        let filter = json!({ "mismatch_action": "trap", "match_action": "allow", "filter": rules });
        let json = json!({ "vmm": filter, "io": filter, "vcpu": filter }).to_string();
        let program = Filters::from_json(json.as_bytes()).unwrap().vmm;
        for number in 0..600 {
            let name = syscalls::Sysno::new(number as usize).map(|call| call.name());
            let expected = if name.is_some_and(|name| calls.contains(&name)) { ALLOW } else { TRAP };
            assert_eq!(verdict(&program, X86_64, number, [0; 6]).0, expected, "{calls:?} {number}");
        }
    }
}

#[test]
fn a_bad_file_is_refused_with_what_is_wrong() {
    let filter =
        |rules: Value| json!({ "mismatch_action": "trap", "match_action": "allow", "filter": rules });
    let all = |rules: Value| json!({ "vmm": filter(rules.clone()), "io": filter(rules.clone()), "vcpu": filter(rules) });
    let long: Vec<Value> = (0..900)
        .map(|value| json!({ "syscall": "ioctl", "args": [{ "index": 1, "type": "qword", "op": "eq", "val": value }] }))
        .collect();
    let seventh = json!({ "index": 6, "type": "dword", "op": "eq", "val": 0 });
    let mut missing = all(json!([]));
    missing.as_object_mut().unwrap().remove("vcpu");
    let mut unknown = all(json!([]));
    unknown["api"] = filter(json!([]));
    let cases = [
        (String::new(), "EOF while parsing a value at line 1 column 0"),
        ("{".repeat(1000), "line 1"),
        ("[]".to_owned(), "a map of filters"),
        (" ".repeat(MAX_FILE as usize + 1), "at most 1024 KiB"),
        (all(json!([{ "syscall": "open_sesame" }])).to_string(), "open_sesame"),
        (all(json!([{ "syscall": "read", "args": [seventh] }])).to_string(), "argument index"),
        (all(json!([{ "syscall": "read", "arg": [] }])).to_string(), "unknown field `arg`"),
        (all(json!(long)).to_string(), "4096"),
        (missing.to_string(), "no filter for the 'vcpu' threads"),
        (unknown.to_string(), "a filter for 'api', which is no thread"),
    ];
    for (json, says) in cases {
        let error = Filters::from_json(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(says), "'{error}' does not say '{says}'");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_built_in_filter_is_that_of_the_file() {
    let built_in = Filters::default();
    for (program, (thread, from_file)) in [built_in.vmm, built_in.io, built_in.vcpu].iter().zip(programs()) {
        for rule in rules(thread) {
            let (values, _) = arguments(&rule);
            assert_eq!(verdict(program, X86_64, number(&rule), values).0, ALLOW, "{rule}");
        }
        let more = program.len() - from_file.len();
        assert_eq!(more > 0, cfg!(debug_assertions) && thread != Thread::Vcpu, "{thread:?}");
    }
}
