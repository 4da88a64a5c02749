//! Stands in for device registers: windows by address.

use std::cell::RefCell;
use std::collections::BTreeMap;

pub(crate) type Handler = fn(&mut Window);

/// What a window answers and what was written to it.
pub(crate) struct Window {
    pub(crate) id: u32,
    pub(crate) features: u64,
    pub(crate) queue_size_max: u32,
    pub(crate) config: Vec<u8>,
    /// Status bits that the device does not take.
    pub(crate) refused_status: u32,
    /// Acts on a notification.
    pub(crate) on_notify: Handler,
    pub(crate) log: Vec<(u64, u32)>,
    pub(crate) registers: BTreeMap<u64, u32>,
    pub(crate) queues: BTreeMap<(u32, u64), u32>,
}

impl Window {
    pub(crate) fn new(id: u32, features: u64) -> Self {
        Self {
            id,
            features,
            queue_size_max: 256,
            config: Vec::new(),
            refused_status: 0,
            on_notify: |_| {},
            log: Vec::new(),
            registers: BTreeMap::new(),
            queues: BTreeMap::new(),
        }
    }

    /// The 64-bit address that was written to two registers of a queue.
    pub(crate) fn address(&self, queue: u32, low: u64) -> u64 {
        u64::from(self.queues[&(queue, low)]) | u64::from(self.queues[&(queue, low + 4)]) << 32
    }

    pub(crate) fn written(&self, register: u64) -> Vec<u32> {
        self.log.iter().filter(|&&(at, _)| at == register).map(|&(_, value)| value).collect()
    }

    /// The size that was set for a queue.
    pub(crate) fn size(&self, queue: u32) -> u16 {
        u16::try_from(self.queues[&(queue, 0x038)]).expect("at most 32768")
    }

    fn read(&self, register: u64) -> u32 {
        let selected = |register| self.registers.get(&register).copied().unwrap_or_default();
        match register {
            0x000 => u32::from_le_bytes(*b"virt"),
            0x004 => 2,
            0x008 => self.id,
            0x010 => (self.features >> (32 * selected(0x014))) as u32,
            0x034 => self.queue_size_max,
            0x060 => selected(0x060),
            0x070 => selected(0x070) & !self.refused_status,
            0x100.. => {
                let at = register as usize - 0x100;
                u32::from_le_bytes(self.config[at..at + 4].try_into().expect("four bytes"))
            }
            _ => 0,
        }
    }

    fn write(&mut self, register: u64, value: u32) {
        self.log.push((register, value));
        self.registers.insert(register, value);
        let queue = self.registers.get(&0x030).copied().unwrap_or_default();
        self.queues.insert((queue, register), value);
        if register == 0x050 {
            (self.on_notify)(self);
        }
    }
}

thread_local! {
    static WINDOWS: RefCell<BTreeMap<u64, Window>> = RefCell::default();
}

pub(crate) fn place(base: u64, window: Window) {
    WINDOWS.with_borrow_mut(|windows| windows.insert(base, window));
}

pub(crate) fn with<T>(base: u64, look: impl FnOnce(&mut Window) -> T) -> T {
    WINDOWS.with_borrow_mut(|windows| look(windows.get_mut(&base).expect("a window")))
}

pub(crate) fn read_register(address: u64) -> u32 {
    WINDOWS.with_borrow(|windows| {
        windows.get(&(address & !0xfff)).map_or(u32::MAX, |window| window.read(address & 0xfff))
    })
}

pub(crate) fn read_register_u8(address: u64) -> u8 {
    with(address & !0xfff, |window| window.config[(address & 0xfff) as usize - 0x100])
}

pub(crate) fn write_register(address: u64, value: u32) -> bool {
    with(address & !0xfff, |window| window.write(address & 0xfff, value));
    true
}
