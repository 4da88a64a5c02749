//! A search tree in front of a filter.
//!
//! seccompiler compares a call's number with that of one rule after the other. When the kernel takes a
//! filter, it runs it once for each system call that there is (`seccomp_cache_prepare` in kernel/seccomp.c):
//! the long way is gone some 400 times before a guest starts.

use seccompiler::sock_filter;

// linux/bpf_common.h: BPF_JMP with BPF_JEQ, BPF_JGE and BPF_JA, all with constants.
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const JUMP: u16 = 0x05;

/// Instructions before the first comparison with a number: they check the architecture and load the number.
const HEAD: usize = 4;
/// Instructions of a leaf of the tree, and of an inner node, which are one fewer than the leaves.
const LEAF: usize = 3;
const INNER: usize = 2;

/// The rules of one system call.
#[derive(Clone, Copy)]
struct Chain {
    number: u32,
    start: usize,
}

/// A filter that does what `program` does, which seccompiler has made, in fewer steps.
pub(crate) fn indexed(program: &[sock_filter]) -> Vec<sock_filter> {
    let chains = chains(program);
    let mut result = program.get(..HEAD).unwrap_or_default().to_vec();
    let rest = program.get(HEAD..).unwrap_or_default();
    // No system call's rules, or a form that is not known here: there is nothing to search.
    if !chains.is_empty() && chains.is_sorted_by_key(|chain| chain.number) {
        grow(&chains, tree_size(chains.len()), program.len() - 1, &mut result);
    }
    result.extend_from_slice(rest);
    result
}

/// Where the rules of each system call begin: with a comparison, from which a chain of jumps leads to the next.
fn chains(program: &[sock_filter]) -> Vec<Chain> {
    let mut chains = Vec::new();
    let mut place = HEAD;
    while let Some(&sock_filter { code: IF_EQUAL, k: number, .. }) = program.get(place) {
        chains.push(Chain { number, start: place });
        // Where the numbers differ, over the first jump, which leads into the rules.
        place += 2;
        while let Some(&sock_filter { code: JUMP, k, .. }) = program.get(place) {
            place += 1 + k as usize;
        }
    }
    chains
}

/// Appends the tree for some chains. All of it moves what comes after by `offset`; `otherwise` is where a
/// program ends that knows the number of none of them.
fn grow(chains: &[Chain], offset: usize, otherwise: usize, result: &mut Vec<sock_filter>) {
    match *chains {
        [] => {}
        [Chain { number, start }] => {
            result.push(sock_filter { code: IF_EQUAL, jt: 0, jf: 1, k: number });
            for target in [start, otherwise] {
                let distance = target + offset - result.len() - 1;
                result.push(jump(distance));
            }
        }
        _ => {
            let (low, high) = chains.split_at(chains.len() / 2);
            let middle = high.first().map_or(0, |chain| chain.number);
            result.push(sock_filter { code: IF_AT_LEAST, jt: 0, jf: 1, k: middle });
            result.push(jump(tree_size(low.len())));
            grow(low, offset, otherwise, result);
            grow(high, offset, otherwise, result);
        }
    }
}

/// The instructions of a tree for so many chains.
fn tree_size(leaves: usize) -> usize {
    leaves * LEAF + leaves.saturating_sub(1) * INNER
}

fn jump(distance: usize) -> sock_filter {
    // No program is longer than 4096 instructions (linux/bpf_common.h, BPF_MAXINSNS).
    sock_filter { code: JUMP, jt: 0, jf: 0, k: distance as u32 }
}
