//! What mote costs, beside the KVM calls that it is made of and beside other VMMs.
//!
//! Seven runners, each a cargo bench of its own:
//!
//! - `cargo bench --bench cold_start`: how long until a guest runs ([`cold_start`]);
//! - `cargo bench --bench idle_memory`: what a machine costs that waits ([`idle_memory`]);
//! - `cargo bench --bench jail`: what a jail adds to a start ([`jail`]);
//! - `cargo bench --bench devices`: what an operation of a virtio device costs ([`devices`]);
//! - `cargo bench --bench isolation`: what stands between a process and a whole PC, and what each of them costs ([`isolation`]);
//! - `cargo bench --bench density`: how many machines a host holds, and how fast it makes them ([`density`]);
//! - `cargo bench --bench exits`: what an exit costs a guest ([`exits`]).
//!
//! All start released binaries as a user would, all with the one guest that mote embeds, 128 MiB, one vCPU and no devices but
//! the one that is measured. The [`subjects`] are the floor (`src/bin/floor.rs`: the bare KVM calls), mote, and those peers that are found: `firecracker`,
//! `cloud-hypervisor` and `qemu-system-x86_64` on PATH, or where MOTE_PEER_FIRECRACKER, MOTE_PEER_CLOUD_HYPERVISOR and
//! MOTE_PEER_QEMU say. A peer that is absent is named as absent.
//!
//! Machines differ and are shared with others, so a figure alone says little: what counts are ratios between subjects
//! that ran interleaved in one run. Every result is also appended to `target/bench/results.jsonl` ([`results`]), with the
//! host and the commit, and every sample to a file beside it.
//!
//! The environment changes a run: MOTE_BENCH_RUNS (200; 20 for devices, 40 for isolation, 20 for exits, 5 for density), MOTE_BENCH_SEED (random), MOTE_BENCH_MACHINES (50) and
//! MOTE_BENCH_SUBJECTS (all; a list like `floor,mote`).
//!
//! Where there is no cargo (in the testbed), MOTE_BENCH_BINARIES names a directory that holds what would be built, and takes the
//! results.
//!
//! On a machine that others use, root may say `chrt -f 10 cargo bench --bench cold_start`: every subject inherits the real-time
//! priority, and the others do not widen the intervals. The results name the scheduling policy.
//!
//! What this crate refuses to do: it judges nothing by a stored figure, and it leaves no process behind
//! ([`process::Warden`], and [`containment`] for what leaves its process group).

pub mod binaries;
pub mod cold_start;
pub mod compare;
pub mod containment;
pub mod density;
pub mod devices;
pub mod entry;
mod exit_count;
pub mod exits;
pub mod footprint;
mod headroom;
pub mod host;
pub mod idle_memory;
pub mod isolation;
pub mod jail;
mod mounts;
pub mod options;
pub mod page;
pub mod phases;
pub mod process;
pub mod processes;
pub mod progress;
pub mod report;
pub mod results;
pub mod rounds;
pub mod statistics;
pub mod subjects;
pub mod syscalls;
mod tap;
