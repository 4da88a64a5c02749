//! The recipe: how a program comes into its jail.
//!
//! The order matters. Nothing is made before everything that was given is checked. What is made on the host (5, 6) is
//! written down before, so that it can be found when this process is killed at any point. From step 7 on it is the
//! future program that works on itself; each step takes something away from it, and none gives anything back.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{fchdir, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::cgroup::{Cgroups, Plan};
use super::config::JailConfig;
use super::error::{JailError, PathFault, cannot};
use super::executable::Executable;
use super::home::Home;
use super::keeper::{self, News, Signals, Teller};
use super::room::{Room, Source};
use super::rootless::Outside;
use super::sys::{self, Cloned};
use super::{kernel_lock, netns, privileges};

/// Everything of the command line, checked.
struct Checked<'a> {
    config: &'a JailConfig,
    program: Executable,
    sources: Vec<Source>,
    netns: Option<OwnedFd>,
    null: OwnedFd,
    outside: Option<Outside>,
}

/// Runs the program in its jail, to its end; gives its exit code.
pub(super) fn run(config: &JailConfig) -> Result<u8, JailError> {
    // 1. Close every descriptor that nobody has named.
    let kept: Vec<_> = config.kept.iter().map(|kept| kept.fd).collect();
    sys::close_all_but(&kept).map_err(cannot("close the inherited descriptors"))?;
    for kept in &config.kept {
        sys::let_through(kept.fd)
            .map_err(cannot(format!("keep descriptor {} ('{}')", kept.fd, kept.name)))?;
    }

    // 2. The environment: nothing of it is read here, and step 17 passes on none of it. Nor does the caller's umask count.
    umask(Mode::WGRP | Mode::WOTH);

    // 3. Check every path; what is checked is held by a descriptor, or recognised when it is used.
    let checked = Checked::new(config)?;
    let plan = Plan::new(&config.cgroups, &checked.program.name, &config.id)?;

    // 4. With --daemonize, a copy of this process does the rest, in a session of its own.
    if config.daemonize { detach(&checked, &plan) } else { keep(&checked, &plan, &mut None) }
}

impl<'a> Checked<'a> {
    fn new(config: &'a JailConfig) -> Result<Self, JailError> {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        Ok(Self {
            config,
            program: Executable::check(&config.exec_file)?,
            sources: config.binds.iter().map(Source::check).collect::<Result<_, _>>()?,
            netns: config.netns.as_deref().map(netns::open).transpose()?,
            null: null.map_err(cannot("open /dev/null"))?,
            outside: config.rootless.then(|| Outside::announce(config)),
        })
    }
}

/// Lets a copy of this process keep the jail, and returns when the program runs.
fn detach(checked: &Checked, plan: &Plan) -> Result<u8, JailError> {
    let news = News::new()?;
    match sys::clone(0, None).map_err(cannot("make the keeper's process"))? {
        Cloned::Parent(keeper) => {
            news.listen()?;
            keeper::check_alive(&keeper).map(|()| 0)
        }
        Cloned::Child => {
            let mut caller = Some(news.teller());
            let ended =
                setsid().map_err(cannot("make a session")).and_then(|_| keep(checked, plan, &mut caller));
            let code = ended.unwrap_or_else(|error| {
                caller.into_iter().for_each(|caller| caller.fail(&error));
                1
            });
            std::process::exit(code.into())
        }
    }
}

/// Makes what a jail has on the host, and removes it at the end.
fn keep(checked: &Checked, plan: &Plan, caller: &mut Option<Teller>) -> Result<u8, JailError> {
    // 5. The jail's directory, which is its lock. The list of its cgroups is written before they are made.
    let home = Home::create(&checked.config.base, &checked.program.name, &checked.config.id)?;
    let ended = home
        .record_cgroups(&plan.record())
        .map_err(cannot("write down the jail's cgroups"))
        // 6. Its cgroups, with their limits.
        .and_then(|()| plan.create())
        .and_then(|cgroups| {
            let ended = jail(checked, &home, &cgroups, caller);
            cgroups.remove().and(ended)
        });
    home.remove().and(ended)
}

/// Makes the process that will be the program, and waits for its end.
fn jail(
    checked: &Checked,
    home: &Home,
    cgroups: &Cgroups,
    caller: &mut Option<Teller>,
) -> Result<u8, JailError> {
    let signals = Signals::take_over()?;
    let root = home.root().map_err(cannot("open the jail's root"))?;
    fchdir(&root).map_err(cannot("enter the jail's root"))?;
    let news = News::new()?;

    // 7. A new process, born in the cgroup (version 2) and in namespaces of its own.
    let mut namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if checked.config.new_pid_ns {
        namespaces |= libc::CLONE_NEWPID;
    }
    if checked.config.rootless {
        namespaces |= libc::CLONE_NEWUSER;
    }
    let child =
        match sys::clone(namespaces, cgroups.birthplace()).map_err(cannot("make the jail's process"))? {
            Cloned::Parent(child) => child,
            Cloned::Child => {
                let teller = news.teller();
                let Err(error) = signals.give_back().and_then(|()| enter(checked, cgroups, &teller));
                teller.fail(&error);
                std::process::exit(1)
            }
        };
    let lives = home.record_pid(child.pid).map_err(cannot("write the PID file")).and_then(|()| news.listen());
    if let Err(error) = lives {
        keeper::end(&child);
        return Err(error);
    }
    if let Some(caller) = caller.take() {
        to_null(&checked.null)?;
        drop(caller);
    }
    signals.wait_for(&child).map_err(cannot("wait for the jail's end"))
}

/// The new process: locks itself in and becomes the program.
fn enter(checked: &Checked, cgroups: &Cgroups, teller: &Teller) -> Result<Infallible, JailError> {
    let Checked { config, program, .. } = checked;
    teller.end_with_keeper()?;
    if let Some(outside) = &checked.outside {
        outside.map_into(config)?;
    }

    // 8. Its cgroups, where it could not be born in them (version 1).
    cgroups.enter()?;

    // 9. Its limits.
    privileges::limit_resources(config)?;

    // 10. Its network.
    if let Some(netns) = &checked.netns {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| {
            let path = config.netns.clone().unwrap_or_default();
            let fault = if error == Errno::INVAL { PathFault::NoNetns } else { error.into() };
            JailError::Path { flag: "--netns", path, fault }
        })?;
    }

    // 11. The room, and what is in it: devices, the program, and what the command line names.
    let room = Room::build(config)?;
    room.add_devices()?;
    room.add_program(program)?;
    checked.sources.iter().try_for_each(|source| room.add(source))?;

    // 12. The door: the room becomes the root, and the host's mounts are gone.
    room.close()?;

    // 13. Groups, group, user, capabilities; and no exec gives any back.
    privileges::drop_all(config)?;
    teller.end_with_keeper()?;

    // 14. What was asked for has to be of use to the one who is left.
    checked.sources.iter().try_for_each(Source::check_access)?;

    // 15. Landlock, where the kernel has it.
    kernel_lock::lock(config, program)?;

    // 16. With --daemonize, no terminal and no one else's files.
    if config.daemonize {
        to_null(&checked.null)?;
    }

    // 17. The program, with an empty environment. All descriptors of ours close here, the lock included.
    let error = Command::new(program.inside()).args(&config.arguments).env_clear().exec();
    Err(JailError::Path { flag: "--exec-file", path: config.exec_file.clone(), fault: error.into() })
}

fn to_null(null: &OwnedFd) -> Result<(), JailError> {
    dup2_stdin(null)
        .and_then(|()| dup2_stdout(null))
        .and_then(|()| dup2_stderr(null))
        .map_err(cannot("redirect the standard streams to /dev/null"))
}
