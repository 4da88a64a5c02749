//! `mote-jailer`: starts a program, meant to be `mote`, in an empty room.
//!
//! [`recipe::run`] is the whole of it, a numbered list of steps; each other module is what one or two steps are made
//! of. There are two processes: a keeper, which stays outside, waits, passes on signals and cleans up; and the one that
//! locks itself in and becomes the program.
//!
//! Nothing is ever mounted where the host sees it. What a jail leaves on the host, should it be killed at any moment,
//! is a directory ([`home`]) and its cgroups, both of which [`clean`] finds again.

mod cgroup;
mod clean;
mod cli;
mod config;
mod error;
mod executable;
mod home;
mod keeper;
mod kernel_lock;
mod netns;
mod path;
mod privileges;
mod recipe;
mod room;
mod rootless;
mod sys;

pub use cli::main;
