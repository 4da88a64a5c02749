//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::clean;
use super::config::{
    Bind, CgroupConfig, CgroupSetting, CgroupVersion, Id, JailConfig, KeptDescriptor, ParentCgroup,
    ResourceLimit,
};
use super::error::{JailError, error_line};
use super::recipe;

/// The host, the files or the values are wrong; nothing runs.
const EXIT_ERROR: u8 = 1;
/// The command line makes no sense.
const EXIT_USAGE: u8 = 2;
/// IDs that do not exist: -1 means "no change" to the kernel.
const NO_ID: u32 = u32::MAX;

/// Starts a VMM in an empty room: as its own user, with no capability, and with a bounded share of the host.
#[derive(Parser)]
#[command(name = "mote-jailer", version, max_term_width = 100, after_help = HELP)]
struct Cli {
    /// Name of the jail: 1 to 64 letters, digits and hyphens
    #[arg(long, value_name = "ID", required_unless_present = "clean")]
    id: Option<Id>,
    /// The program: a static executable that only root, or you, can change
    #[arg(long, value_name = "FILE", required_unless_present = "clean")]
    exec_file: Option<PathBuf>,
    /// User that it runs as
    #[arg(long, value_name = "N", required_unless_present = "clean")]
    uid: Option<u32>,
    /// Group that it runs as
    #[arg(long, value_name = "N", required_unless_present = "clean")]
    gid: Option<u32>,
    /// Accept 0 for --uid and --gid
    #[arg(long)]
    allow_root: bool,
    /// The jail's directory on the host is DIR/<name of the program>/<ID>
    #[arg(long, value_name = "DIR", default_value = "/srv/jailer")]
    chroot_base_dir: PathBuf,
    /// Network namespace to join, as in /run/netns/NAME [default: the one we are in]
    #[arg(long, value_name = "FILE")]
    netns: Option<PathBuf>,
    /// Return as soon as the program runs; its standard streams are /dev/null
    #[arg(long)]
    daemonize: bool,
    /// Put the program into a PID namespace of its own
    #[arg(long)]
    new_pid_ns: bool,
    /// Write VALUE to FILE of the jail's own cgroup, as in memory.max=256M or cpu.max=50000
    #[arg(long = "cgroup", value_name = "FILE=VALUE")]
    cgroups: Vec<CgroupSetting>,
    /// Version of the cgroups [default: the one whose hierarchy has the controllers]
    #[arg(long, value_name = "VERSION")]
    cgroup_version: Option<CgroupVersion>,
    /// Cgroup below which the jail's own is made [default: the name of the program]
    #[arg(long, value_name = "PATH")]
    parent_cgroup: Option<ParentCgroup>,
    /// fsize=BYTES: the size of files it may write; no-file=N: how many descriptors it may have [default: 2048]
    #[arg(long = "resource-limit", value_name = "NAME=N")]
    resource_limits: Vec<ResourceLimit>,
    /// Let it have a file, directory or device of the host, at DST; with ',ro', only to read
    #[arg(long = "bind", value_name = "SRC:DST[,ro]")]
    binds: Vec<Bind>,
    /// Let it have an open descriptor of ours, under the same number; NAME is for messages
    #[arg(long = "keep-fd", value_name = "NAME=N")]
    kept: Vec<KeptDescriptor>,
    /// Make the jail as an ordinary user, by means of a user namespace
    #[arg(long)]
    rootless: bool,
    /// Remove what a jail of this name has left: directory and cgroups. Kills what still runs in them
    #[arg(long, value_name = "ID", conflicts_with_all = ["id", "exec_file", "uid", "gid"])]
    clean: Option<Id>,
    /// What the program is told
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

const HELP: &str = "\
Exit codes: the program's own; 128 + n when signal n ended it; 1 when there is no jail, and why is on stderr; 2 bad
  command line. SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on.

Example: mote-jailer --id vm1 --exec-file /usr/bin/mote --uid 1001 --gid 1001 --new-pid-ns --cgroup memory.max=256M
  --bind /srv/vm/vmlinux:/vmlinux,ro --bind /srv/vm/disk1:/disk -- run --kernel /vmlinux --disk /disk";

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stderr or stdout leaves nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let done = match &cli.clean {
        Some(id) => clean::run(&cli.chroot_base_dir, id).map(|()| 0),
        None => configure(cli).and_then(|config| recipe::run(&config)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("error: {}", error_line(&error)));
            ExitCode::from(EXIT_ERROR)
        }
    }
}

/// Says one line on stderr.
pub(super) fn say(line: &str) {
    use std::io::Write;
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "mote-jailer: {line}");
}

fn configure(cli: Cli) -> Result<JailConfig, JailError> {
    let missing = || JailError::Refused("--id, --exec-file, --uid and --gid are needed".to_owned());
    let config = JailConfig {
        id: cli.id.ok_or_else(missing)?,
        exec_file: cli.exec_file.ok_or_else(missing)?,
        uid: check_id("--uid", cli.uid.ok_or_else(missing)?, cli.allow_root)?,
        gid: check_id("--gid", cli.gid.ok_or_else(missing)?, cli.allow_root)?,
        base: cli.chroot_base_dir,
        netns: cli.netns,
        daemonize: cli.daemonize,
        new_pid_ns: cli.new_pid_ns,
        cgroups: CgroupConfig {
            version: cli.cgroup_version,
            parent: cli.parent_cgroup,
            settings: cli.cgroups,
        },
        max_file_size: cli.resource_limits.iter().rev().find_map(|limit| match limit {
            ResourceLimit::FileSize(bytes) => Some(*bytes),
            ResourceLimit::Descriptors(_) => None,
        }),
        max_descriptors: cli.resource_limits.iter().rev().find_map(|limit| match limit {
            ResourceLimit::Descriptors(count) => Some(*count),
            ResourceLimit::FileSize(_) => None,
        }),
        binds: cli.binds,
        kept: cli.kept,
        rootless: cli.rootless,
        arguments: cli.arguments,
    };
    check_places(&config)?;
    if !config.rootless && !rustix::process::geteuid().is_root() {
        return Err(JailError::Refused("a jail takes root, or --rootless".to_owned()));
    }
    Ok(config)
}

fn check_id(flag: &str, id: u32, allow_root: bool) -> Result<u32, JailError> {
    match id {
        0 if !allow_root => Err(JailError::Refused(format!(
            "{flag} 0 is root, which no jail should be: give another, or --allow-root"
        ))),
        NO_ID => Err(JailError::Refused(format!("{flag} {id} is no ID: it means 'none' to the kernel"))),
        id => Ok(id),
    }
}

/// No two things may be in one place of the jail, nor one inside the other.
fn check_places(config: &JailConfig) -> Result<(), JailError> {
    let own = [Some(PathBuf::from("dev")), config.exec_file.file_name().map(PathBuf::from)];
    let mut places: Vec<PathBuf> = own.into_iter().flatten().collect();
    if places.len() > 1 && places[0] == places[1] {
        return Err(JailError::Refused(
            "a program cannot be called 'dev': that is a directory of every jail".to_owned(),
        ));
    }
    for bind in &config.binds {
        if let Some(other) =
            places.iter().find(|place| place.starts_with(&bind.inside) || bind.inside.starts_with(place))
        {
            let (this, other) = (bind.inside.display(), other.display());
            return Err(JailError::Refused(format!("--bind: /{this} and /{other} overlap in the jail")));
        }
        places.push(bind.inside.clone());
    }
    for (index, kept) in config.kept.iter().enumerate() {
        if config.kept[..index].iter().any(|other| other.fd == kept.fd) {
            return Err(JailError::Refused(format!("--keep-fd: descriptor {} is named twice", kept.fd)));
        }
    }
    Ok(())
}
