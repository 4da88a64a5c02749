//! The virtio devices of a machine, as their user describes them.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use devices::rate_limiter::{Limit, RateLimits};
use devices::virtio::net::MacAddress;

use super::options::Options;
use super::{ValueError, parse_size};

#[cfg(test)]
mod tests;

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// A raw image file, or a block device of the host.
    pub path: PathBuf,
    /// The guest may not write.
    pub read_only: bool,
    /// The host's page cache is passed by (O_DIRECT).
    pub direct: bool,
    /// What a flush is worth.
    pub cache: Cache,
    /// Number of request queues: 1 or more.
    pub queues: u16,
    /// What the guest reads as the device's serial number.
    pub id: Option<String>,
    /// How much it may do.
    pub limits: RateLimits,
}

/// What a guest's flush does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// What was written before is on stable storage.
    Writeback,
    /// Nothing: a crash of the host may lose what the guest has flushed.
    Unsafe,
}

/// The most queues that a block device may have.
const MAX_DISK_QUEUES: u16 = 32;

impl Disk {
    /// A disk with nothing but its file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read_only: false,
            direct: false,
            cache: Cache::Writeback,
            queues: 1,
            id: None,
            limits: RateLimits::default(),
        }
    }
}

impl FromStr for Disk {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut options = Options::split("--disk", text);
        let path = options.first()?;
        let disk = Self {
            read_only: options.word("readonly"),
            direct: options.word("direct"),
            cache: match options.value("cache").as_deref() {
                None | Some("writeback") => Cache::Writeback,
                Some("unsafe") => Cache::Unsafe,
                Some(other) => return Err(options.error(format!("cache={other}: writeback or unsafe"))),
            },
            queues: options.parsed("queues")?.unwrap_or(1),
            id: options.value("id"),
            limits: limits(&mut options, "")?,
            ..Self::new(path)
        };
        options.end()?;
        if !(1..=MAX_DISK_QUEUES).contains(&disk.queues) {
            return Err(options.error(format!("queues={}: 1 to {MAX_DISK_QUEUES}", disk.queues)));
        }
        Ok(disk)
    }
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The host's end.
    pub tap: Tap,
    /// Its address; without one it gets a random one.
    pub mac: Option<MacAddress>,
    /// The largest packet that the guest is told to send.
    pub mtu: Option<u16>,
    /// How much may reach the guest.
    pub rx: RateLimits,
    /// How much the guest may send.
    pub tx: RateLimits,
}

/// The host's end of a network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tap {
    /// The TAP device of this name.
    Name(String),
    /// One that our parent has opened.
    Descriptor(i32),
}

impl FromStr for Nic {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut options = Options::split("--net", text);
        let tap = match (options.value("tap"), options.parsed::<u16>("fd")?) {
            (Some(name), None) if !name.is_empty() => Tap::Name(name),
            (None, Some(fd)) => Tap::Descriptor(fd.into()),
            _ => return Err(options.error("it needs tap=NAME or fd=N")),
        };
        let nic = Self {
            tap,
            mac: options.parsed("mac")?,
            mtu: options.parsed("mtu")?,
            rx: limits(&mut options, "rx-")?,
            tx: limits(&mut options, "tx-")?,
        };
        options.end()?;
        Ok(nic)
    }
}

/// A socket device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vsock {
    /// The guest's context identifier.
    pub cid: u32,
    /// Where the host's programs find the guest; beginning of the paths where the guest finds them.
    pub uds: PathBuf,
}

impl Vsock {
    /// 0 to 2 are the hypervisor, this machine and the host; the last one means any (virtio 1.2, section 5.10.4).
    pub(super) fn check_cid(cid: u64) -> Result<u32, String> {
        match u32::try_from(cid) {
            Ok(cid) if (3..u32::MAX).contains(&cid) => Ok(cid),
            _ => Err(format!("{cid} is not a guest's context identifier: 3 to 4294967294")),
        }
    }
}

impl FromStr for Vsock {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut options = Options::split("--vsock", text);
        let cid = options.parsed("cid")?.ok_or_else(|| options.error("cid= is missing"))?;
        let cid = Self::check_cid(cid).map_err(|why| options.error(why))?;
        let uds = PathBuf::from(options.needed("uds")?);
        options.end()?;
        Ok(Self { cid, uds })
    }
}

/// A memory balloon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balloon {
    /// How much the guest is asked to give back at first, in bytes.
    pub size: u64,
    /// The guest may take memory back when it has none left.
    pub deflate_on_oom: bool,
    /// The guest gives back what it does not use.
    pub free_page_reporting: bool,
    /// How often the guest is asked for its statistics.
    pub stats: Option<Duration>,
}

impl FromStr for Balloon {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut options = Options::split("--balloon", text);
        let size = options.first()?;
        let stats = options.parsed::<NonZeroU64>("stats")?;
        let balloon = Self {
            size: parse_size(&size)?,
            deflate_on_oom: options.word("deflate-on-oom"),
            free_page_reporting: options.word("free-page-reporting"),
            stats: stats.map(|seconds| Duration::from_secs(seconds.get())),
        };
        options.end()?;
        Ok(balloon)
    }
}

/// `bandwidth=SIZE` and `ops=NUMBER`, each a second and behind `prefix`.
fn limits(options: &mut Options<'_>, prefix: &str) -> Result<RateLimits, ValueError> {
    let a_second = |size| Limit { size, refill_ms: 1000, burst: 0 };
    let bandwidth = match options.value(&format!("{prefix}bandwidth")) {
        Some(text) => Some(parse_size(&text)?),
        None => None,
    };
    let operations = options.parsed(&format!("{prefix}ops"))?;
    Ok(RateLimits { bandwidth: bandwidth.map(a_second), operations: operations.map(a_second) })
}
