//! Threads that do nothing but serve devices, for those who want them (`--io-threads`).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use jailer::seccomp::Thread;

use crate::device_host::DeviceHost;
use crate::event_loop::{EventLoop, Interest, Waker};
use crate::machine::{Attached, Shared};
use crate::outcome::{Ending, Outcome};

const WAKE: u64 = 0;

/// As for vCPU threads: what a device does is shallow.
const STACK_SIZE: usize = 128 << 10;

/// A thread and the devices it serves; stopped and joined when dropped.
pub(crate) struct IoThread {
    waker: Waker,
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl IoThread {
    /// Serves `devices`, all of which rouse `waker`, from now on.
    pub(crate) fn spawn(
        number: usize,
        waker: &Waker,
        devices: Vec<Attached>,
        shared: &Arc<Shared>,
    ) -> io::Result<Self> {
        let events = EventLoop::new()?;
        events.add(waker, WAKE, Interest::Read)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped, roused) = (Arc::clone(shared), Arc::clone(&stop), waker.clone());
        let (tell, confined) = mpsc::sync_channel(1);
        let builder = std::thread::Builder::new().name(format!("io{number}")).stack_size(STACK_SIZE);
        let handle = builder.spawn(move || {
            let result = shared.confine(Thread::Io);
            let able = result.is_ok();
            // There is room for it, and somebody who waits.
            let _ = tell.send(result);
            if !able {
                return;
            }
            let host = DeviceHost::new(events.clone(), devices);
            if let Err(error) = serve(&events, &roused, host, &stopped) {
                shared.end(Ending::new(Outcome::Error, format!("an I/O thread failed: {error}")));
            }
        })?;
        let thread = Self { waker: waker.clone(), stop, handle: Some(handle) };
        // No guest runs before all of its threads are confined.
        confined.recv().map_err(io::Error::other)?.map_err(io::Error::other)?;
        Ok(thread)
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(handle) = self.handle.take() {
            // One that panicked has aborted the process, or, under test, has said so itself.
            let _ = handle.join();
        }
    }
}

fn serve(events: &EventLoop, waker: &Waker, mut host: DeviceHost, stop: &AtomicBool) -> io::Result<()> {
    while !stop.load(Ordering::Acquire) {
        let mut woken = false;
        let deadline = host.next_deadline();
        events.wait(deadline, |token| {
            woken |= token == WAKE;
            host.event(token);
        })?;
        if woken {
            waker.acknowledge();
            host.woken();
        }
        if deadline.is_some() {
            host.expire();
        }
    }
    Ok(())
}
