//! What a jail is asked to be: the values of the command line, checked one by one.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// One jail.
#[derive(Debug)]
pub(super) struct JailConfig {
    /// Its name.
    pub id: Id,
    /// The program.
    pub exec_file: PathBuf,
    /// The user that it runs as.
    pub uid: u32,
    /// The group that it runs as.
    pub gid: u32,
    /// Below which directory its own is made.
    pub base: PathBuf,
    /// The network namespace that it joins.
    pub netns: Option<PathBuf>,
    /// Whether nobody waits for it.
    pub daemonize: bool,
    /// Whether it sees no process but its own.
    pub new_pid_ns: bool,
    /// Its cgroups.
    pub cgroups: CgroupConfig,
    /// The files that it may create or grow, in bytes; `None`: any size.
    pub max_file_size: Option<u64>,
    /// How many descriptors it may have; `None`: [`DEFAULT_DESCRIPTORS`], or fewer where our own limit is lower.
    pub max_descriptors: Option<u64>,
    /// What of the host it has.
    pub binds: Vec<Bind>,
    /// The open descriptors that it has.
    pub kept: Vec<KeptDescriptor>,
    /// Whether it is made without root, by means of a user namespace.
    pub rootless: bool,
    /// What the program is told.
    pub arguments: Vec<OsString>,
}

/// Firecracker's jailer has the same.
pub(super) const DEFAULT_DESCRIPTORS: u64 = 2048;

/// Where a jail's share of the host is set.
#[derive(Debug)]
pub(super) struct CgroupConfig {
    /// 1 or 2; `None`: whichever has the controllers.
    pub version: Option<CgroupVersion>,
    /// Below which group its own is made, seen from the root of the hierarchy; `None`: the program's name.
    pub parent: Option<ParentCgroup>,
    /// What is written.
    pub settings: Vec<CgroupSetting>,
}

/// `--cgroup-version`'s value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum CgroupVersion {
    /// A hierarchy for each controller
    #[value(name = "1")]
    V1,
    /// One hierarchy
    #[value(name = "2")]
    V2,
}

/// A jail's name: letters, digits and hyphens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id(String);

impl Id {
    const MAX: usize = 64;

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = |character: char| character.is_ascii_alphanumeric() || character == '-';
        match text.len() {
            1..=Self::MAX if text.chars().all(good) => Ok(Self(text.to_owned())),
            1..=Self::MAX => Err("only letters, digits and '-' are accepted".to_owned()),
            length => Err(format!("{length} characters; 1 to {} are accepted", Self::MAX)),
        }
    }
}

/// `--cgroup`'s value: FILE=VALUE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CgroupSetting {
    /// As the kernel names it.
    pub file: String,
    /// As it is written.
    pub value: String,
}

impl CgroupSetting {
    /// What is before the first dot.
    pub(super) fn controller(&self) -> &str {
        self.file.split_once('.').map_or("", |(controller, _)| controller)
    }
}

impl FromStr for CgroupSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (file, value) = text.split_once('=').ok_or("expected FILE=VALUE, as in memory.max=256M")?;
        let good = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        match file.split_once('.') {
            // Of those files none limits a jail, and some undo it.
            Some(("cgroup", _)) => Err(format!("{file} is the jailer's own business")),
            _ if value.is_empty() => Err(format!("{file} has no value")),
            Some((controller, rest))
                if !controller.is_empty() && !rest.is_empty() && file.chars().all(good) =>
            {
                Ok(Self { file: file.to_owned(), value: value.to_owned() })
            }
            _ => Err(format!("'{file}' is no cgroup file: it is CONTROLLER.NAME")),
        }
    }
}

/// `--parent-cgroup`'s value: names, separated by slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParentCgroup(pub PathBuf);

impl FromStr for ParentCgroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        match !text.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_))) {
            true => Ok(Self(path.to_owned())),
            false => {
                Err("expected a path below the root of the hierarchy, without '/' at its begin and '..'"
                    .to_owned())
            }
        }
    }
}

/// `--resource-limit`'s value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResourceLimit {
    /// Bytes.
    FileSize(u64),
    /// Descriptors.
    Descriptors(u64),
}

impl FromStr for ResourceLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("expected fsize=BYTES or no-file=N")?;
        let value = value.parse().map_err(|_| format!("'{value}' is not a number"))?;
        match name {
            "fsize" => Ok(Self::FileSize(value)),
            "no-file" => Ok(Self::Descriptors(value)),
            _ => Err(format!("no such limit: '{name}'; there are fsize and no-file")),
        }
    }
}

/// `--bind`'s value: SRC:DST[,ro].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// In the jail, from its root on, without the slash at its begin.
    pub inside: PathBuf,
    /// Whether the jail can only read it.
    pub read_only: bool,
}

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, read_only) = text.strip_suffix(",ro").map_or((text, false), |text| (text, true));
        let (source, inside) = text.split_once(':').ok_or("expected SRC:DST or SRC:DST,ro")?;
        let inside = Path::new(inside);
        let plain = inside.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
        if source.is_empty() || !inside.is_absolute() || !plain || inside.components().count() < 2 {
            return Err(
                "DST is a path from the jail's root on, without '..', and not the root itself".to_owned()
            );
        }
        let inside = inside.components().skip(1).collect();
        Ok(Self { source: PathBuf::from(source), inside, read_only })
    }
}

/// `--keep-fd`'s value: NAME=N.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptDescriptor {
    /// What it is to people.
    pub name: String,
    /// Outside and inside.
    pub fd: RawFd,
}

impl FromStr for KeptDescriptor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = text.split_once('=').ok_or("expected NAME=N, as in tap=5")?;
        match number.parse() {
            Ok(fd) if fd > 2 && !name.is_empty() => Ok(Self { name: name.to_owned(), fd }),
            _ => Err("NAME is not empty, and N is 3 or more: 0 to 2 are kept anyway".to_owned()),
        }
    }
}
