//! What is done, and how the guest tells of it.

/// An operation, as a plain process would do it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operation {
    /// 4 KiB from a random place of a file.
    RandomRead,
    /// 4 KiB to a random place of a file.
    RandomWrite,
    /// 128 KiB, one after the other.
    SequentialRead,
    /// The same to the file.
    SequentialWrite,
    /// A frame of 60 bytes to a TAP, and one back.
    Requests,
    /// Frames of 1514 bytes to a TAP.
    Frames,
    /// TCP segments of 64 KiB to a TAP, uncut.
    Segments,
    /// 64 bytes to a Unix socket, and back.
    Messages,
    /// 64 KiB to a Unix socket.
    Stream,
}

/// An operation, and the words that have the guest do it.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) name: &'static str,
    pub(super) command_line: &'static str,
    pub(super) operation: Operation,
}

/// What is timed. The floor has no queue: its reads at depth 32 are those at depth 1.
pub(super) static TASKS: [Task; 11] = [
    task("blk_read_4k_depth1", "mode=blk op=read depth=1", Operation::RandomRead),
    task("blk_read_4k_depth32", "mode=blk op=read depth=32", Operation::RandomRead),
    task("blk_write_4k_depth1", "mode=blk op=write depth=1", Operation::RandomWrite),
    task("blk_write_4k_depth32", "mode=blk op=write depth=32", Operation::RandomWrite),
    task("blk_read_128k", "mode=blk op=seqread depth=32", Operation::SequentialRead),
    task("blk_write_128k", "mode=blk op=seqwrite depth=32", Operation::SequentialWrite),
    task("net_rr", "mode=net op=rr", Operation::Requests),
    task("net_stream_1514", "mode=net op=stream depth=32", Operation::Frames),
    task("net_stream_64k", "mode=net op=stream depth=32 tso=1", Operation::Segments),
    task("vsock_rr", "mode=vsock op=echo port=5001", Operation::Messages),
    task("vsock_stream", "mode=vsock op=stream port=5002", Operation::Stream),
];

/// What is checked before that. The disk still has its first content, where each word is its own index.
pub(super) static CHECKS: [Task; 5] = [
    task("check_blk_read", "mode=blk op=read depth=32 n=2000 verify=1", Operation::RandomRead),
    task("check_blk_write", "mode=blk op=write depth=32 n=2000 verify=1", Operation::RandomWrite),
    task("check_blk_seqread", "mode=blk op=seqread depth=4 n=200 verify=1", Operation::SequentialRead),
    task("check_blk_seqwrite", "mode=blk op=seqwrite depth=4 n=200 verify=1", Operation::SequentialWrite),
    task("check_vsock", "mode=vsock op=echo port=5001 n=200 size=1000 verify=1", Operation::Messages),
];

const fn task(name: &'static str, command_line: &'static str, operation: Operation) -> Task {
    Task { name, command_line, operation }
}

/// What came of a series of operations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Figures {
    pub(super) operations: u64,
    pub(super) bytes: u64,
    pub(super) nanoseconds: u64,
    /// How often the guest notified the device: each time is an exit.
    pub(super) notifications: Option<u64>,
}

impl Figures {
    /// Reads what the guest has said. An error of its own, or a figure that is missing, is the error.
    pub(super) fn parse(said: &str) -> Result<Self, String> {
        if let Some(error) =
            said.lines().find(|line| line.starts_with("error=") || line.starts_with("exception"))
        {
            return Err(error.to_owned());
        }
        let number = |key: &str| {
            let value = said.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            value
                .and_then(|value| value.parse().ok())
                .ok_or_else(|| format!("the guest does not tell {key}: {said:?}"))
        };
        match number("errors")? {
            0 => {}
            errors => return Err(format!("{errors} errors")),
        }
        let figures = Self {
            operations: number("ops")?,
            bytes: number("bytes")?,
            nanoseconds: number("ns")?,
            notifications: Some(number("notifications")?),
        };
        if figures.operations == 0 { Err("not one operation".into()) } else { Ok(figures) }
    }

    /// Microseconds for one operation.
    pub(super) fn microseconds(self) -> f64 {
        self.nanoseconds as f64 / 1e3 / self.operations as f64
    }

    pub(super) fn bytes_per_operation(self) -> u64 {
        self.bytes / self.operations.max(1)
    }

    pub(super) fn notifications_per_operation(self) -> Option<f64> {
        Some(self.notifications? as f64 / self.operations as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "READY\nmote-guest proto=1\n\
        blk ops=200 bytes=819200 errors=0 notifications=50\n\
        blk tsc_cycles=2600000 tsc_khz=2600000 ns=1000000 ops_per_second=200000 bytes_per_second=819200000\n\
        blk cycles_min=1 cycles_p50=2 cycles_p99=3 ns_min=4 ns_p50=5 ns_p99=6\n";

    #[test]
    fn figures_are_what_the_guest_says() {
        let figures = Figures::parse(SAID).unwrap();
        let expected =
            Figures { operations: 200, bytes: 819_200, nanoseconds: 1_000_000, notifications: Some(50) };
        assert_eq!(figures, expected);
        assert_eq!((figures.microseconds(), figures.bytes_per_operation()), (5.0, 4096));
        assert_eq!(figures.notifications_per_operation(), Some(0.25));
    }

    #[test]
    fn what_the_guest_complains_of_is_the_error() {
        let corrupt = format!("{SAID}error=corrupt detail=verify\n");
        assert_eq!(Figures::parse(&corrupt), Err("error=corrupt detail=verify".into()));
        assert_eq!(Figures::parse(&SAID.replace("errors=0", "errors=2")), Err("2 errors".into()));
        assert_eq!(Figures::parse(&SAID.replace("ops=200", "ops=0")), Err("not one operation".into()));
        let silent = Figures::parse("READY\n").unwrap_err();
        assert_eq!(silent, "the guest does not tell errors: \"READY\\n\"");
    }
}
