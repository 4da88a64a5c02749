//! A program to be jailed in mote's place: does what its arguments say, and tells what it finds.

mod escapes;

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, getgid, getgroups, getrlimit, getuid, umask};
use rustix::thread::{capabilities, capability_is_in_bounding_set, no_new_privs};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["exit", code] => ExitCode::from(code.parse::<u8>().unwrap_or(99)),
        ["sleep"] => sleep(),
        ["describe"] => answer(describe()),
        ["read", path] => answer(fs::read_to_string(path)),
        ["write", path, text] => answer(fs::write(path, text).map(|()| "written".to_owned())),
        ["list", path] => answer(list(path)),
        ["echo", ref words @ ..] => answer(Ok(words.join("|"))),
        ["descriptors"] => answer(Ok(descriptors())),
        ["write-direct", path, mib] => answer(write_direct(path, mib.parse().unwrap_or(0))),
        ["escape", ref which @ ..] => escapes::try_all(which.contains(&"--all")),
        ["hog"] => hog(),
        ["spin"] => spin(),
        ["fork"] => answer(fork_many()),
        _ => ExitCode::from(98),
    }
}

fn answer(result: io::Result<String>) -> ExitCode {
    match result {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn sleep() -> ! {
    println!("ready");
    let _ = io::stdout().flush();
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

fn list(path: &str) -> io::Result<String> {
    let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names.join(" "))
}

/// Which of these names are there. Landlock lets nobody list the directory.
fn present(directory: &str, names: &[&str]) -> String {
    let there = |name: &&&str| fs::symlink_metadata(format!("{directory}/{name}")).is_ok();
    names.iter().filter(there).copied().collect::<Vec<_>>().join(" ")
}

/// One fact a line.
fn describe() -> io::Result<String> {
    let sets = capabilities(None)?;
    let all = sets.effective | sets.permitted | sets.inheritable;
    let bounding = (0..64).filter(|n| {
        let one = rustix::thread::CapabilitySet::from_bits_retain(1 << n);
        capability_is_in_bounding_set(one).unwrap_or(false)
    });
    let core = getrlimit(Resource::Core);
    let files = getrlimit(Resource::Nofile);
    let groups: Vec<u32> = getgroups()?.iter().map(|gid| gid.as_raw()).collect();
    Ok([
        format!("uid={} gid={} groups={groups:?}", getuid().as_raw(), getgid().as_raw()),
        format!("capabilities={:#x} bounding={}", all.bits(), bounding.count()),
        format!("no_new_privs={}", no_new_privs()?),
        format!("environment={}", std::env::vars_os().count()),
        format!("cwd={}", std::env::current_dir()?.display()),
        format!("core={:?} no-file={:?}", core.maximum, files.maximum),
        format!("umask={:o}", umask(rustix::fs::Mode::empty()).bits()),
        format!("pid={}", std::process::id()),
        format!(
            "root={}",
            present(
                "/",
                &["dev", "disk", "etc", "home", "lib", "proc", "program", "root", "sys", "tmp", "usr"]
            )
        ),
        format!(
            "dev={}",
            present("/dev", &["kvm", "mem", "net", "null", "sda", "shm", "tty", "urandom", "vda"])
        ),
    ]
    .join("\n"))
}

/// The numbers of all that are open.
fn descriptors() -> String {
    let open = (0..4096).filter(|&fd| {
        // A duplicate of one that is not open is an error.
        fs::metadata(format!("/dev/fd/{fd}")).is_ok() || is_open(fd)
    });
    open.map(|fd| fd.to_string()).collect::<Vec<_>>().join(" ")
}

#[expect(unsafe_code, reason = "looks whether a number is an open descriptor")]
fn is_open(fd: i32) -> bool {
    // SAFETY: reads a descriptor's flags, or fails.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Past the page cache, a page at a time would take too long: 64 KiB.
fn write_direct(path: &str, mib: usize) -> io::Result<String> {
    use std::os::unix::fs::OpenOptionsExt;
    const CHUNK: usize = 64 << 10;
    let memory = vec![7u8; CHUNK + 4096];
    let begin = memory.as_ptr().align_offset(4096);
    let chunk = memory.get(begin..begin + CHUNK).ok_or(io::ErrorKind::Other)?;
    let mut file = fs::OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
    (0..(mib << 20) / CHUNK).try_for_each(|_| file.write_all(chunk))?;
    Ok("written".to_owned())
}

/// Takes memory until it is stopped.
fn hog() -> ExitCode {
    let mut taken = Vec::new();
    for mib in 0..1024u32 {
        taken.push(vec![1u8; 1 << 20]);
        println!("{mib}");
    }
    ExitCode::SUCCESS
}

/// Uses the CPU for 2 s of real time, and tells how many ms of its time it got.
fn spin() -> ExitCode {
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {}
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    println!("{}", used.tv_sec * 1000 + used.tv_nsec / 1_000_000);
    ExitCode::SUCCESS
}

/// How many threads it can have, up to 200.
fn fork_many() -> io::Result<String> {
    let mut count = 0;
    while count < 200
        && std::thread::Builder::new().spawn(|| std::thread::sleep(Duration::from_secs(60))).is_ok()
    {
        count += 1;
    }
    Ok(count.to_string())
}
