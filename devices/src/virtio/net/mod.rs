//! Network device (virtio 1.2, section 5.1) on a TAP device.
//!
//! A frame goes from the guest's memory to the kernel, or back, in one system call and without a copy: the
//! buffers that the driver posted are the operands of writev(2) and readv(2). Checksums and segmentation are
//! left to whoever can do them best: the header in front of each frame says what was left out, and is passed
//! on by both sides.
//!
//! Work comes in batches: one interrupt for each, and other devices have their turn after it. Nothing is
//! tried in a loop: without buffers of the driver, frames stay in the TAP device until the driver posts some;
//! without room in the TAP device, frames stay in the queue until there is.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::rx::Receiver;
use self::spec::{config, feature, queue};
use self::tx::Transmitter;
use super::{
    Activation, ConfigSpace, DeviceError, DeviceKind, Identity, Interest, Link, Progress, Queue, QueueError,
    Reactor, TIMER, VirtioDevice,
};
use crate::RestoreError;
use crate::rate_limiter::{RateLimiter, RateLimiterState, RateLimits};

mod mac;
mod rx;
pub mod spec;
mod tap;
#[cfg(test)]
mod tests;
mod tx;

pub use mac::{MacAddress, MacError};
pub use tap::{NetError, Tap, TapSource, Wire};

const NAME: &str = "network device";
const VERSION: u16 = 1;

const QUEUE_SIZE: u16 = 256;

/// The token of the wire.
const WIRE: u32 = 0;

/// The longest frame with its header: an IP packet of 64 KiB, as segmentation makes them.
const MAX_FRAME: usize = spec::header::LENGTH + spec::ETHERNET_HEADER + spec::VLAN_TAG + (64 << 10);
/// The shortest.
const MIN_FRAME: usize = spec::header::LENGTH + spec::ETHERNET_HEADER;

/// How many frames, and how many bytes, are moved before other devices have their turn.
const BATCH_FRAMES: usize = 64;
const BATCH_BYTES: usize = 1 << 20;

/// How long a wire that fails is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// What the user decides about a network device.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetOptions {
    /// Its address. Without one it gets a random, locally administered one, another in each run.
    pub mac: Option<MacAddress>,
    /// The MTU that the driver is told, 68 at least. It is up to the user to set the same for the TAP device.
    pub mtu: Option<u16>,
    /// Limits on frames to the guest. Their bytes count with Ethernet header; a large segment is one operation.
    pub rx: RateLimits,
    /// Limits on frames from the guest.
    pub tx: RateLimits,
}

/// What a network device did since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NetCounters {
    /// To the guest.
    pub rx: FrameCounters,
    /// From the guest.
    pub tx: FrameCounters,
}

/// What became of the frames of one direction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FrameCounters {
    /// Frames that arrived.
    pub frames: u64,
    /// Their bytes, from Ethernet header on.
    pub bytes: u64,
    /// Frames that were thrown away: malformed, too long for the driver's buffers, or refused by the host.
    pub dropped: u64,
    /// How often the host failed.
    pub errors: u64,
}

/// What a snapshot holds of a [`Net`] beyond its transport's state. All else that a driver can see is there:
/// the MAC address and MTU are in the configuration space, offloads follow from the negotiated features. A
/// frame on its way may be lost, as on any wire.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NetState {
    version: u16,
    rx: RateLimiterState,
    tx: RateLimiterState,
}

/// The device.
pub struct Net {
    // Configuration.
    mac: MacAddress,
    mtu: Option<u16>,
    config: ConfigSpace,
    // Wiring.
    wire: Box<dyn Wire>,
    rx: Flow,
    tx: Flow,
    // Wiring and guest-visible state, while it is active.
    active: Option<Active>,
}

/// One direction, as far as it outlives a reset.
struct Flow {
    limiter: RateLimiter,
    counters: FrameCounters,
}

struct Active {
    queues: Vec<Queue>,
    link: Link,
    reactor: Box<dyn Reactor>,
    rx: Receiver,
    tx: Transmitter,
    /// Why each direction has stopped.
    rx_stop: Stop,
    tx_stop: Stop,
    /// What the event loop was told last.
    interest: Interest,
    deadline: Option<Instant>,
}

/// Why one direction does not go on, and what makes it go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stop {
    /// There are no frames.
    Idle,
    /// The driver has to post buffers.
    Starved,
    /// The wire has to become writable.
    Blocked,
    /// Time has to pass.
    Until(Instant),
    /// Others have their turn.
    Batch,
}

/// What serves one direction.
struct Side<'a> {
    queue: &'a mut Queue,
    wire: &'a dyn Wire,
    link: &'a Link,
    flow: &'a mut Flow,
}

/// How much of a batch is done.
#[derive(Default)]
struct Batch {
    turns: usize,
    bytes: usize,
}

impl Net {
    /// A device on the TAP device that `source` names.
    ///
    /// # Errors
    /// When there is no such TAP device for this user, or `options` make no sense.
    pub fn open(source: TapSource, options: NetOptions) -> Result<Self, NetError> {
        Self::on(Box::new(Tap::open(source)?), options)
    }

    /// A device on `wire`.
    ///
    /// # Errors
    /// When `options` make no sense.
    pub fn on(wire: Box<dyn Wire>, options: NetOptions) -> Result<Self, NetError> {
        let NetOptions { mac, mtu, rx, tx } = options;
        if let Some(mtu) = mtu.filter(|&mtu| mtu < spec::MIN_MTU) {
            return Err(NetError::Mtu(mtu));
        }
        let mac = mac.map_or_else(MacAddress::random, Ok).map_err(NetError::Random)?;
        let config = ConfigSpace::read_only(vec![0; config::LENGTH]);
        config.update(config::MAC, &mac.bytes());
        config.update(config::MTU, &mtu.unwrap_or(0).to_le_bytes());
        Ok(Self { mac, mtu, config, wire, rx: Flow::new(rx), tx: Flow::new(tx), active: None })
    }

    /// Its address.
    #[must_use]
    pub fn mac(&self) -> MacAddress {
        self.mac
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> NetCounters {
        NetCounters { rx: self.rx.counters, tx: self.tx.counters }
    }

    /// Changes the limits on frames to the guest, `rx`, and from it, `tx`.
    pub fn set_limits(&mut self, rx: RateLimits, tx: RateLimits) {
        self.rx.limiter = RateLimiter::new(rx);
        self.tx.limiter = RateLimiter::new(tx);
        self.serve(true, true);
    }

    /// What is to be saved beside the transport's state.
    #[must_use]
    pub fn save(&self) -> NetState {
        NetState { version: VERSION, rx: self.rx.limiter.save(), tx: self.tx.limiter.save() }
    }

    /// Takes on a saved state, before the transport does.
    ///
    /// # Errors
    /// When the state's version is unknown.
    pub fn restore(&mut self, state: &NetState) -> Result<(), RestoreError> {
        RestoreError::check_version(NAME, state.version, VERSION)?;
        self.rx.limiter = RateLimiter::restore(&state.rx);
        self.tx.limiter = RateLimiter::restore(&state.tx);
        Ok(())
    }

    /// Moves frames, to the guest if `rx`, from it if `tx`, and says to the event loop what the device waits for now.
    fn serve(&mut self, rx: bool, tx: bool) {
        let Some(active) = self.active.as_mut().filter(|active| !active.link.failed()) else {
            return;
        };
        if rx && active.receive(&*self.wire, &mut self.rx).is_err() {
            active.link.fail();
        }
        if tx && active.transmit(&*self.wire, &mut self.tx).is_err() {
            active.link.fail();
        }
        active.wait(&*self.wire);
    }
}

impl VirtioDevice for Net {
    fn identity(&self) -> Identity {
        let mut features = feature::MAC | feature::MRG_RXBUF;
        features |= feature::CSUM | feature::HOST_TSO4 | feature::HOST_TSO6 | feature::HOST_ECN;
        features |= feature::HOST_UFO | feature::GUEST_CSUM | feature::GUEST_TSO4 | feature::GUEST_TSO6;
        features |= feature::GUEST_ECN | feature::GUEST_UFO;
        if self.mtu.is_some() {
            features |= feature::MTU;
        }
        Identity {
            kind: DeviceKind::Network,
            features,
            queue_sizes: vec![QUEUE_SIZE; 2],
            config: self.config.clone(),
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { features, queues, link, mut reactor, .. } = activation;
        let refused = |what: &str, source| DeviceError { what: what.to_owned(), source };
        self.wire
            .set_features(features)
            .map_err(|error| refused("the TAP device does not take the driver's offloads", error))?;
        reactor
            .watch(self.wire.as_fd(), WIRE, Interest::ReadEdge)
            .map_err(|error| refused("the TAP device cannot be waited for", error))?;
        self.active = Some(Active {
            queues,
            link,
            reactor,
            rx: Receiver::new(features, self.mtu),
            tx: Transmitter::default(),
            rx_stop: Stop::Idle,
            tx_stop: Stop::Idle,
            interest: Interest::ReadEdge,
            deadline: None,
        });
        Ok(())
    }

    fn queue_event(&mut self, queue: usize) {
        self.serve(queue == queue::RECEIVE, queue == queue::TRANSMIT);
    }

    fn backend_event(&mut self, token: u32) {
        let Some(active) = &mut self.active else {
            return;
        };
        let blocked = active.tx_stop == Stop::Blocked;
        match token {
            WIRE => self.serve(true, blocked),
            TIMER => {
                active.deadline = None;
                self.serve(true, true);
            }
            _ => {}
        }
    }

    fn reset(&mut self) -> Progress {
        if let Some(mut active) = self.active.take() {
            active.reactor.unwatch(self.wire.as_fd());
            active.reactor.set_timer(None);
        }
        Progress::Done
    }

    fn queues(&self) -> &[Queue] {
        self.active.as_ref().map(|active| active.queues.as_slice()).unwrap_or_default()
    }
}

impl Active {
    fn receive(&mut self, wire: &dyn Wire, flow: &mut Flow) -> Result<(), QueueError> {
        let Some(queue) = self.queues.get_mut(queue::RECEIVE) else {
            return Ok(());
        };
        let stop = self.rx.serve(&mut Side { queue, wire, link: &self.link, flow });
        self.rx_stop = finish(&self.link, queue, queue::RECEIVE, stop)?;
        Ok(())
    }

    fn transmit(&mut self, wire: &dyn Wire, flow: &mut Flow) -> Result<(), QueueError> {
        let Some(queue) = self.queues.get_mut(queue::TRANSMIT) else {
            return Ok(());
        };
        let stop = self.tx.serve(&mut Side { queue, wire, link: &self.link, flow });
        self.tx_stop = finish(&self.link, queue, queue::TRANSMIT, stop)?;
        Ok(())
    }

    /// Tells the event loop what the device waits for, where that has changed.
    fn wait(&mut self, wire: &dyn Wire) {
        let until = |stop| if let Stop::Until(deadline) = stop { Some(deadline) } else { None };
        let deadline = until(self.rx_stop).into_iter().chain(until(self.tx_stop)).min();
        if deadline != self.deadline {
            self.deadline = deadline;
            self.reactor.set_timer(deadline);
        }
        // Frames that arrive are announced once each, so those that must stay where they are do no harm.
        // Waiting for room is waiting for a state: then they are not to be announced while nobody would take
        // them.
        let interest = match (self.tx_stop, self.rx_stop) {
            (Stop::Blocked, Stop::Idle | Stop::Batch) => Interest::Both,
            (Stop::Blocked, _) => Interest::Write,
            _ => Interest::ReadEdge,
        };
        // The descriptor is watched already: the host has no reason to refuse.
        if interest != self.interest && self.reactor.watch(wire.as_fd(), WIRE, interest).is_ok() {
            self.interest = interest;
        }
    }
}

/// The end of a batch: the driver learns what was done in it.
fn finish(
    link: &Link,
    queue: &mut Queue,
    index: usize,
    stop: Result<Stop, QueueError>,
) -> Result<Stop, QueueError> {
    if queue.needs_interrupt() {
        link.used();
    }
    if stop == Ok(Stop::Batch) {
        link.look_again(index);
    }
    stop
}

impl Flow {
    fn new(limits: RateLimits) -> Self {
        Self { limiter: RateLimiter::new(limits), counters: FrameCounters::default() }
    }

    /// Whether a frame may be moved now; if not, when.
    fn ready(&mut self) -> Result<(), Instant> {
        if self.limiter.limits() { self.limiter.ready(Instant::now()) } else { Ok(()) }
    }

    /// A frame, `length` bytes with its header, was taken. Whether it arrives is another matter.
    fn take(&mut self, length: usize) {
        if self.limiter.limits() {
            self.limiter.take(1, bytes(length), Instant::now());
        }
    }

    /// A frame of that length has arrived.
    fn count(&mut self, length: usize) {
        self.counters.frames += 1;
        self.counters.bytes += bytes(length);
    }
}

/// The bytes of a frame that is `length` long with its header.
fn bytes(length: usize) -> u64 {
    length.saturating_sub(spec::header::LENGTH) as u64
}

impl Batch {
    /// Whether there may be another turn.
    fn turn(&mut self) -> bool {
        self.turns += 1;
        self.turns <= BATCH_FRAMES && self.bytes < BATCH_BYTES
    }
}
