//! The command line: `key=value` words. Words that are not ours are passed over, because VMMs add their own.

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode<'a> {
    Ready,
    Idle,
    Echo,
    Exits,
    Touch,
    Cpus,
    Memory,
    Tick,
    Spin,
    Flood,
    Block,
    Net,
    Vsock,
    Panic,
    Triple,
    Bad,
    Fault,
    /// A name that is none of these.
    Unknown(&'a [u8]),
}

/// Where a virtio-mmio device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Window {
    /// The address of its registers.
    pub(crate) base: u64,
    /// Its interrupt: the pin of the I/O APIC, if it is known.
    pub(crate) gsi: Option<u8>,
}

/// The words that this program knows. Of a key that stands there twice the first counts, since entry.s looks no further.
#[derive(Default)]
pub(crate) struct Options<'a> {
    line: &'a [u8],
    mode: Option<Mode<'a>>,
    /// `op=`: which of the mode's operations.
    pub(crate) op: Option<&'a [u8]>,
    /// `n=`: how often.
    pub(crate) n: Option<u64>,
    /// `mb=`: how many MiB.
    pub(crate) mb: Option<u64>,
    /// `kb=`: how many KiB.
    pub(crate) kb: Option<u64>,
    /// `status=`: what to report on the debug port at the end.
    pub(crate) status: Option<u8>,
    /// `ms=`: how long, in milliseconds.
    pub(crate) ms: Option<u64>,
    /// `depth=`: how many requests at once.
    pub(crate) depth: Option<u64>,
    /// `size=`: how many bytes at once.
    pub(crate) size: Option<u64>,
    /// `seed=`: which random order, and which content.
    pub(crate) seed: Option<u64>,
    /// `port=`: the port on the host to connect to.
    pub(crate) port: Option<u32>,
    /// `poll=`, 0 or 1: whether the flood waits for the transmitter before each byte.
    poll: Option<u64>,
    /// `verify=`, 0 or 1: whether data is checked.
    verify: Option<u64>,
    /// `tso=`, 0 or 1: whether the device cuts large segments.
    tso: Option<u64>,
    /// The first word whose value is no number or does not fit.
    pub(crate) invalid: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    /// Reads a command line.
    pub(crate) fn parse(line: &'a [u8]) -> Options<'a> {
        let mut options = Options { line, ..Options::default() };
        for word in line.split(u8::is_ascii_whitespace) {
            options.take(word);
        }
        options
    }

    /// `mode=`, or its default.
    pub(crate) fn mode(&self) -> Mode<'a> {
        self.mode.unwrap_or(Mode::Ready)
    }

    /// Whether `poll=1` is given.
    pub(crate) fn poll(&self) -> bool {
        self.poll == Some(1)
    }

    /// Whether `verify=1` is given.
    pub(crate) fn verify(&self) -> bool {
        self.verify == Some(1)
    }

    /// Whether `tso=1` is given.
    pub(crate) fn tso(&self) -> bool {
        self.tso == Some(1)
    }

    /// Where the virtio-mmio windows are, by Linux's words `virtio_mmio.device=SIZE@ADDRESS:IRQ`, which VMMs add.
    pub(crate) fn windows(&self) -> impl Iterator<Item = Window> + 'a {
        self.line.split(u8::is_ascii_whitespace).filter_map(|word| {
            let value = word.strip_prefix(b"virtio_mmio.device=")?;
            let at = value.iter().position(|&byte| byte == b'@')?;
            let mut fields = value.get(at + 1..)?.split(|&byte| byte == b':');
            let base = parse_number(fields.next()?)?;
            let gsi = fields.next().and_then(parse_number).and_then(|number| u8::try_from(number).ok());
            Some(Window { base, gsi })
        })
    }

    fn take(&mut self, word: &'a [u8]) {
        let Some(at) = word.iter().position(|&byte| byte == b'=') else { return };
        let (key, value) = (word.get(..at).unwrap_or_default(), word.get(at + 1..).unwrap_or_default());
        let number = parse_number(value);
        let valid = match key {
            b"mode" => store(&mut self.mode, Some(parse_mode(value))),
            b"n" => store(&mut self.n, number),
            b"mb" => store(&mut self.mb, number),
            b"kb" => store(&mut self.kb, number),
            b"status" => store(&mut self.status, number.and_then(|number| u8::try_from(number).ok())),
            b"op" => store(&mut self.op, Some(value)),
            b"ms" => store(&mut self.ms, number),
            b"depth" => store(&mut self.depth, number),
            b"size" => store(&mut self.size, number),
            b"seed" => store(&mut self.seed, number),
            b"port" => store(&mut self.port, number.and_then(|number| u32::try_from(number).ok())),
            b"verify" => store(&mut self.verify, number.filter(|&number| number <= 1)),
            b"tso" => store(&mut self.tso, number.filter(|&number| number <= 1)),
            b"poll" => store(&mut self.poll, number.filter(|&number| number <= 1)),
            _ => true,
        };
        if !valid && self.invalid.is_none() {
            self.invalid = Some(word);
        }
    }
}

/// Keeps a value in an empty field. False where there is no value.
fn store<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    let valid = value.is_some();
    if field.is_none() {
        *field = value;
    }
    valid
}

fn parse_mode(name: &[u8]) -> Mode<'_> {
    match name {
        b"ready" => Mode::Ready,
        b"idle" => Mode::Idle,
        b"echo" => Mode::Echo,
        b"exits" => Mode::Exits,
        b"touch" => Mode::Touch,
        b"cpus" => Mode::Cpus,
        b"mem" => Mode::Memory,
        b"tick" => Mode::Tick,
        b"spin" => Mode::Spin,
        b"flood" => Mode::Flood,
        b"blk" => Mode::Block,
        b"net" => Mode::Net,
        b"vsock" => Mode::Vsock,
        b"panic" => Mode::Panic,
        b"triple" => Mode::Triple,
        b"bad" => Mode::Bad,
        b"fault" => Mode::Fault,
        other => Mode::Unknown(other),
    }
}

/// Decimal, or hexadecimal after 0x. None for anything else and for what needs more than 64 bits.
fn parse_number(text: &[u8]) -> Option<u64> {
    let (digits, radix) = match text {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        digits => (digits, 10),
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &digit| {
        let digit = char::from(digit).to_digit(radix)?;
        number.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
}
