//! The device's side of any driver: takes chains from the available ring and uses them.

#![expect(unsafe_code, reason = "rings and buffers are reached by their addresses, as a device does")]

use super::memory::Window;

/// One buffer of a chain.
#[derive(Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) writable: bool,
}

impl Buffer {
    pub(crate) fn read(self) -> Vec<u8> {
        (0..u64::from(self.length)).map(|at| get(self.address + at)).collect()
    }

    pub(crate) fn write(self, bytes: &[u8]) {
        assert!(self.writable && bytes.len() <= self.length as usize);
        for (at, &byte) in (self.address..).zip(bytes) {
            put(at, byte);
        }
    }
}

/// Takes the chain that is next in the available ring, if there is one: its head and buffers.
pub(crate) fn next_chain(window: &Window, queue: u32) -> Option<(u16, Vec<Buffer>)> {
    let [descriptors, available, used] = [0x080, 0x090, 0x0a0].map(|low| window.address(queue, low));
    let size = window.size(queue);
    // As many have been used as taken: each is used at once.
    let taken: u16 = get(used + 2);
    if taken == get::<u16>(available + 2) {
        return None;
    }
    let head: u16 = get(available + 4 + 2 * u64::from(taken % size));
    let mut chain = Vec::new();
    let mut index = head;
    loop {
        assert!(index < size && chain.len() < usize::from(size));
        let at = descriptors + 16 * u64::from(index);
        let flags: u16 = get(at + 12);
        chain.push(Buffer { address: get(at), length: get(at + 8), writable: flags & 2 != 0 });
        if flags & 1 == 0 {
            return Some((head, chain));
        }
        index = get(at + 14);
    }
}

/// Puts a chain into the used ring.
pub(crate) fn finish(window: &Window, queue: u32, head: u16, length: u32) {
    let used = window.address(queue, 0x0a0);
    let index: u16 = get(used + 2);
    let entry = used + 4 + 8 * u64::from(index % window.size(queue));
    put(entry, u32::from(head));
    put(entry + 4, length);
    put(used + 2, index.wrapping_add(1));
}

fn get<T: Copy>(address: u64) -> T {
    let pointer = std::ptr::with_exposed_provenance::<T>(address as usize);
    // SAFETY: the drivers' addresses lie in arenas that are never freed, and numbers there are aligned.
    unsafe { pointer.read_volatile() }
}

fn put<T>(address: u64, value: T) {
    let pointer = std::ptr::with_exposed_provenance_mut::<T>(address as usize);
    // SAFETY: as above; only this thread uses them.
    unsafe { pointer.write_volatile(value) };
}
