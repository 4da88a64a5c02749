//! Who is connected: found by token or by ports, and who has something for the guest, in turn.

use std::collections::{BTreeMap, VecDeque};

use super::packet::Key;

/// The most entries of a table.
pub(super) const CAPACITY: usize = 1024;

/// A token is an index below [`CAPACITY`] and, above it, which of the slot's entries is meant: an event for one that
/// is gone finds nothing. Tokens from 2^31 on are free for other uses.
const INDEX_BITS: u32 = CAPACITY.trailing_zeros();
const GENERATIONS: u32 = 1 << (31 - INDEX_BITS);

#[derive(Debug)]
pub(super) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// A tree: the guest chooses its ports, and could choose them to fall together in a hash table without a costly hash.
    keys: BTreeMap<Key, u32>,
    /// Each token once at most in both together, and none that is gone.
    urgent: VecDeque<u32>,
    ordinary: VecDeque<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Option<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    key: Option<Key>,
    line: Line,
}

/// Where an entry waits for its turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Line {
    None,
    Ordinary,
    Urgent,
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            keys: BTreeMap::new(),
            urgent: VecDeque::new(),
            ordinary: VecDeque::new(),
        }
    }

    /// The new entry's token; gives `value` back if the table is full.
    pub(super) fn insert(&mut self, value: T) -> Result<u32, T> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < CAPACITY => {
                self.slots.push(Slot { generation: 0, entry: None });
                // Below CAPACITY.
                self.slots.len() as u32 - 1
            }
            None => return Err(value),
        };
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return Err(value);
        };
        slot.entry = Some(Entry { value, key: None, line: Line::None });
        Ok(index | slot.generation << INDEX_BITS)
    }

    pub(super) fn get_mut(&mut self, token: u32) -> Option<&mut T> {
        self.entry(token).map(|entry| &mut entry.value)
    }

    pub(super) fn remove(&mut self, token: u32) -> Option<T> {
        self.entry(token)?;
        self.unbind(token);
        let slot = self.slots.get_mut(index(token))?;
        let entry = slot.entry.take()?;
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.free.push(index(token) as u32);
        if entry.line != Line::None {
            self.leave_line(token);
        }
        Some(entry.value)
    }

    /// Whether another entry fits in.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < CAPACITY
    }

    /// Gives the entry the address `key`, which no other one has.
    pub(super) fn bind(&mut self, token: u32, key: Key) {
        if let Some(entry) = self.entry(token) {
            entry.key = Some(key);
            self.keys.insert(key, token);
        }
    }

    /// Takes the entry's address from it.
    pub(super) fn unbind(&mut self, token: u32) -> Option<Key> {
        let key = self.entry(token)?.key.take()?;
        self.keys.remove(&key);
        Some(key)
    }

    pub(super) fn find(&self, key: Key) -> Option<u32> {
        self.keys.get(&key).copied()
    }

    pub(super) fn key(&self, token: u32) -> Option<Key> {
        let slot = self.slots.get(index(token)).filter(|slot| slot.generation == token >> INDEX_BITS)?;
        slot.entry.as_ref()?.key
    }

    /// Puts the entry at the end of the line if it is in none; or of the urgent line, which has its turns before the
    /// other.
    pub(super) fn queue(&mut self, token: u32, urgent: bool) {
        let Some(entry) = self.entry(token) else {
            return;
        };
        match (entry.line, urgent) {
            (Line::None, false) => {
                entry.line = Line::Ordinary;
                self.ordinary.push_back(token);
            }
            (Line::None | Line::Ordinary, true) => {
                let moves = entry.line == Line::Ordinary;
                entry.line = Line::Urgent;
                if moves {
                    self.leave_line(token);
                }
                self.urgent.push_back(token);
            }
            _ => {}
        }
    }

    fn leave_line(&mut self, token: u32) {
        self.urgent.retain(|&other| other != token);
        self.ordinary.retain(|&other| other != token);
    }

    /// Takes the first out of its line.
    pub(super) fn next_turn(&mut self) -> Option<u32> {
        let token = self.urgent.pop_front().or_else(|| self.ordinary.pop_front())?;
        if let Some(entry) = self.entry(token) {
            entry.line = Line::None;
        }
        Some(token)
    }

    /// The one that waits for its turn, if it is the only one.
    pub(super) fn only_one_waiting(&mut self) -> Option<&mut T> {
        let mut waiting = self.urgent.iter().chain(&self.ordinary);
        match (waiting.next().copied(), waiting.next()) {
            (Some(token), None) => self.get_mut(token),
            _ => None,
        }
    }

    /// Whether anybody is in a line.
    pub(super) fn anybody_waits(&self) -> bool {
        !self.urgent.is_empty() || !self.ordinary.is_empty()
    }

    /// All entries with their tokens.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| {
            slot.entry.as_ref().map(|entry| (index | slot.generation << INDEX_BITS, &entry.value))
        })
    }

    fn entry(&mut self, token: u32) -> Option<&mut Entry<T>> {
        let slot = self.slots.get_mut(index(token))?;
        if slot.generation == token >> INDEX_BITS { slot.entry.as_mut() } else { None }
    }
}

fn index(token: u32) -> usize {
    token as usize % CAPACITY
}
