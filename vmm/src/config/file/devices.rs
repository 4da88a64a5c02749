//! The sections of Firecracker's format that describe devices.

use std::path::PathBuf;
use std::time::Duration;

use ::devices::rate_limiter::{Limit, RateLimits};
use ::devices::virtio::net::MacError;
use serde::Deserialize;
use serde_json::Value;

use super::super::ValueError;
use super::super::device::{Balloon, Cache, Disk, Nic, Tap, Vsock};
use super::FileError;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drive {
    drive_id: String,
    is_root_device: bool,
    partuuid: Option<String>,
    #[serde(default)]
    cache_type: CacheType,
    #[serde(default)]
    is_read_only: bool,
    path_on_host: Option<PathBuf>,
    rate_limiter: Option<Limiter>,
    /// How the host does the work is for mote to choose; both give the same disk.
    #[serde(rename = "io_engine")]
    _io_engine: Option<IoEngine>,
    pub(super) socket: Option<Value>,
}

/// Firecracker's default: its guests see no FLUSH.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
enum CacheType {
    #[default]
    Unsafe,
    Writeback,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum IoEngine {
    Sync,
    Async,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkInterface {
    /// How its API names it.
    #[serde(rename = "iface_id")]
    _iface_id: String,
    host_dev_name: String,
    guest_mac: Option<String>,
    mtu: Option<u16>,
    rx_rate_limiter: Option<Limiter>,
    tx_rate_limiter: Option<Limiter>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VsockSection {
    guest_cid: u64,
    uds_path: PathBuf,
    /// Deprecated there, and without a meaning.
    #[serde(rename = "vsock_id")]
    _vsock_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BalloonSection {
    amount_mib: u64,
    deflate_on_oom: bool,
    #[serde(default)]
    stats_polling_interval_s: u64,
    #[serde(default)]
    pub(super) free_page_hinting: bool,
    #[serde(default)]
    free_page_reporting: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntropySection {
    rate_limiter: Option<Limiter>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limiter {
    bandwidth: Option<TokenBucket>,
    ops: Option<TokenBucket>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBucket {
    size: u64,
    refill_time: u64,
    #[serde(default)]
    one_time_burst: Option<u64>,
}

impl From<TokenBucket> for Limit {
    fn from(bucket: TokenBucket) -> Self {
        let burst = bucket.one_time_burst.unwrap_or(0);
        Self { size: bucket.size, refill_ms: bucket.refill_time, burst }
    }
}

/// The limits that a section states; none, where it states none.
pub(super) fn limits(limiter: Option<Limiter>) -> RateLimits {
    limiter
        .map(|limiter| RateLimits {
            bandwidth: limiter.bandwidth.map(Limit::from),
            operations: limiter.ops.map(Limit::from),
        })
        .unwrap_or_default()
}

/// The disks, that with the root file system first: guests name them by their order. Its kernel argument is the second result.
pub(super) fn disks(drives: Vec<Drive>) -> Result<(Vec<Disk>, Option<String>), FileError> {
    let wrong = |why: &str| FileError::Value {
        field: "drives",
        source: ValueError::Option { flag: "a drive".to_owned(), why: why.to_owned() },
    };
    let mut root = None;
    let mut disks = Vec::with_capacity(drives.len());
    for drive in drives {
        let path = drive.path_on_host.ok_or_else(|| wrong("path_on_host is missing"))?;
        let disk = Disk {
            read_only: drive.is_read_only,
            cache: match drive.cache_type {
                CacheType::Unsafe => Cache::Unsafe,
                CacheType::Writeback => Cache::Writeback,
            },
            id: Some(drive.drive_id),
            limits: limits(drive.rate_limiter),
            ..Disk::new(path)
        };
        if drive.is_root_device {
            let device = drive.partuuid.map_or("/dev/vda".to_owned(), |uuid| format!("PARTUUID={uuid}"));
            let access = if disk.read_only { "ro" } else { "rw" };
            if root.replace(format!("root={device} {access}")).is_some() {
                return Err(wrong("only one can be the root device"));
            }
            disks.insert(0, disk);
        } else {
            disks.push(disk);
        }
    }
    Ok((disks, root))
}

impl NetworkInterface {
    pub(super) fn into_nic(self) -> Result<Nic, FileError> {
        let wrong = |error: MacError| FileError::Value {
            field: "network-interfaces.guest_mac",
            source: ValueError::Option { flag: "an interface".to_owned(), why: error.to_string() },
        };
        Ok(Nic {
            tap: Tap::Name(self.host_dev_name),
            mac: self.guest_mac.map(|mac| mac.parse()).transpose().map_err(wrong)?,
            mtu: self.mtu,
            rx: limits(self.rx_rate_limiter),
            tx: limits(self.tx_rate_limiter),
        })
    }
}

impl VsockSection {
    pub(super) fn into_vsock(self) -> Result<Vsock, FileError> {
        let cid = Vsock::check_cid(self.guest_cid).map_err(|why| FileError::Value {
            field: "vsock.guest_cid",
            source: ValueError::Option { flag: "a socket device".to_owned(), why },
        })?;
        Ok(Vsock { cid, uds: self.uds_path })
    }
}

impl From<BalloonSection> for Balloon {
    fn from(section: BalloonSection) -> Self {
        let seconds = section.stats_polling_interval_s;
        Self {
            size: section.amount_mib.saturating_mul(1 << 20),
            deflate_on_oom: section.deflate_on_oom,
            free_page_reporting: section.free_page_reporting,
            stats: (seconds > 0).then(|| Duration::from_secs(seconds)),
        }
    }
}

impl EntropySection {
    pub(super) fn limits(&self) -> RateLimits {
        limits(self.rate_limiter)
    }
}
