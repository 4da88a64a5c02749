//! From stdin to the serial port, with Ctrl-A as the escape key.

/// Bytes that wait for the guest to read; what a file or pipe holds beyond stays there.
const CAPACITY: usize = 256;

/// As many where a person types. Typing beyond is lost, but for mote's own keys: a guest that does not read
/// must not keep its user from ending it.
const TYPED_CAPACITY: usize = 64 << 10;

/// Ctrl-A: the next key is for mote.
const ESCAPE: u8 = 0x01;

/// What the keys asked mote for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Ctrl-A x: end the machine.
    Quit,
}

/// Bytes on their way to the guest.
#[derive(Debug, Default)]
pub struct ConsoleInput {
    pending: Vec<u8>,
    escape_keys: bool,
    escaped: bool,
}

impl ConsoleInput {
    /// `escape_keys` where a person types: a file or pipe may hold any byte.
    pub fn new(escape_keys: bool) -> Self {
        Self { escape_keys, ..Self::default() }
    }

    /// How many more bytes may be read from stdin.
    pub fn room(&self) -> usize {
        if self.escape_keys { CAPACITY } else { CAPACITY.saturating_sub(self.pending.len()) }
    }

    /// Takes what was read.
    pub fn accept(&mut self, bytes: &[u8]) -> Option<Key> {
        for &byte in bytes {
            match (self.escape_keys, self.escaped, byte) {
                (true, false, ESCAPE) => self.escaped = true,
                (true, true, b'x' | b'X') => return Some(Key::Quit),
                // Ctrl-A twice is one Ctrl-A for the guest; other keys lose the escape before them.
                _ => {
                    self.escaped = false;
                    if self.pending.len() < TYPED_CAPACITY {
                        self.pending.push(byte);
                    }
                }
            }
        }
        None
    }

    /// Offers the waiting bytes to `receive`, which says how many it took.
    pub fn deliver(&mut self, receive: impl FnOnce(&[u8]) -> usize) {
        if !self.pending.is_empty() {
            let taken = receive(&self.pending).min(self.pending.len());
            self.pending.drain(..taken);
        }
    }

    /// Whether bytes wait for the guest.
    pub fn waiting(&self) -> bool {
        !self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_quits_and_ctrl_a_twice_is_ctrl_a() {
        let mut input = ConsoleInput::new(true);
        assert_eq!(input.accept(b"a\x01\x01b"), None);
        let mut seen = Vec::new();
        input.deliver(|bytes| {
            seen.extend_from_slice(bytes);
            bytes.len()
        });
        assert_eq!(seen, b"a\x01b");
        assert_eq!(input.accept(b"\x01"), None);
        assert_eq!(input.accept(b"x"), Some(Key::Quit));
    }

    #[test]
    fn a_pipe_has_no_escape_key() {
        let mut input = ConsoleInput::new(false);
        assert_eq!(input.accept(b"\x01x"), None);
        assert_eq!(input.room(), CAPACITY - 2);
    }

    #[test]
    fn a_guest_that_does_not_read_can_be_quit() {
        let mut input = ConsoleInput::new(true);
        for _ in 0..2 * TYPED_CAPACITY / CAPACITY {
            assert!(input.room() > 0);
            assert_eq!(input.accept(&[b'.'; CAPACITY]), None);
        }
        assert_eq!(input.pending.len(), TYPED_CAPACITY);
        assert_eq!(input.accept(b"\x01x"), Some(Key::Quit));
    }

    #[test]
    fn what_the_guest_does_not_take_stays() {
        let mut input = ConsoleInput::new(false);
        input.accept(b"abc");
        input.deliver(|_| 2);
        assert!(input.waiting());
        input.deliver(|bytes| {
            assert_eq!(bytes, b"c");
            1
        });
        assert!(!input.waiting());
    }
}
