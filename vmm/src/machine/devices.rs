//! The virtio devices of a machine: the line where each of them comes in.

use ::devices::virtio::VirtioDevice;
use ::devices::virtio::balloon::{Balloon, BalloonOptions};
use ::devices::virtio::block::{Block, BlockError, BlockOptions, CacheMode};
use ::devices::virtio::io::HostPage;
use ::devices::virtio::net::{Net, NetError, NetOptions, TapSource};
use ::devices::virtio::rng::Rng;
use ::devices::virtio::vsock::{Vsock, VsockError, VsockOptions};

use super::Window;
use crate::config::{Cache, Disk, Nic, PageBacking, Tap, VmConfig};
use crate::{descriptors, inherited};

/// A device and its place.
pub(super) type Placed = (Window, Box<dyn VirtioDevice>);

/// A device cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There are more devices than places.
    #[error("a machine has at most {} devices: leave some out", Window::COUNT)]
    TooMany,
    /// A disk cannot be opened.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A network device cannot be connected.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The descriptor of a network device is not open.
    #[error("--net fd={number}: pass the open descriptor of a TAP device on to mote")]
    Descriptor {
        /// Its number.
        number: i32,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The socket device cannot listen.
    #[error(transparent)]
    Vsock(#[from] VsockError),
}

/// Opens what the devices stand for, in the order of their places. Files and interfaces that are missing show before
/// there is a VM. `prepared`: what needs system calls that are forbidden later is made now.
pub(super) fn open(config: &VmConfig, prepared: bool) -> Result<Vec<Placed>, OpenError> {
    let mut devices: Vec<Box<dyn VirtioDevice>> = Vec::new();
    for disk in &config.disks {
        let mut block = open_disk(disk)?;
        if prepared {
            block.prepare()?;
        }
        devices.push(Box::new(block));
    }
    for nic in &config.nics {
        devices.push(Box::new(open_nic(nic)?));
    }
    if let Some(vsock) = &config.vsock {
        descriptors::take_all();
        let options = VsockOptions { cid: vsock.cid.into(), uds: vsock.uds.clone() };
        devices.push(Box::new(Vsock::new(options)?));
    }
    if let Some(limits) = config.rng {
        devices.push(Box::new(Rng::new(limits)));
    }
    if let Some(balloon) = &config.balloon {
        devices.push(Box::new(Balloon::new(BalloonOptions {
            target: balloon.size,
            deflate_on_oom: balloon.deflate_on_oom,
            free_page_reporting: balloon.free_page_reporting,
            stats_interval: balloon.stats,
            page: match config.backing {
                PageBacking::HugeTlb => HostPage::Huge,
                PageBacking::Host | PageBacking::Transparent => HostPage::Small,
            },
        })));
    }
    let placed = devices.into_iter().enumerate();
    placed.map(|(index, device)| Ok((Window::new(index).ok_or(OpenError::TooMany)?, device))).collect()
}

fn open_disk(disk: &Disk) -> Result<Block, BlockError> {
    let block = Block::open(&BlockOptions {
        read_only: disk.read_only,
        direct: disk.direct,
        cache: match disk.cache {
            Cache::Writeback => CacheMode::Writeback,
            Cache::Unsafe => CacheMode::Unsafe,
        },
        queues: disk.queues,
        limits: disk.limits,
        id: disk.id.clone(),
        ..BlockOptions::new(&disk.path)
    })?;
    let tail = block.ignored_tail();
    if tail > 0 {
        log::warn!("the guest does not see the last {tail} bytes of {}: no whole block", disk.path.display());
    }
    Ok(block)
}

fn open_nic(nic: &Nic) -> Result<Net, OpenError> {
    let source = match &nic.tap {
        Tap::Name(name) => TapSource::Name(name.clone()),
        &Tap::Descriptor(number) => TapSource::Descriptor(
            inherited::duplicate(number).map_err(|source| OpenError::Descriptor { number, source })?,
        ),
    };
    Ok(Net::open(source, NetOptions { mac: nic.mac, mtu: nic.mtu, rx: nic.rx, tx: nic.tx })?)
}
