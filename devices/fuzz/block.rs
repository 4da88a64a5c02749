//! The block device and an arbitrary driver.

use devices::virtio::block::{Block, BlockOptions, CacheMode, Engine};

use super::driver;

/// Bytes of the disk: 63 sectors and a tail that belongs to nobody.
const SIZE: u64 = 63 * 512 + 100;

/// Runs one input. Its first byte picks the disk's mode.
pub(crate) fn check(data: &[u8]) {
    let Some((&mode, data)) = data.split_first() else { return };
    let file = tempfile::NamedTempFile::new().expect("a place for files");
    let image: Vec<u8> = (0..SIZE).map(|at| (at / 512) as u8).collect();
    std::fs::write(file.path(), &image).expect("a place for files");
    let read_only = mode & 1 != 0;
    let options = BlockOptions {
        read_only,
        engine: if mode & 2 != 0 { Engine::Auto } else { Engine::Sync },
        cache: if mode & 4 != 0 { CacheMode::Unsafe } else { CacheMode::Writeback },
        queues: 1 + u16::from(mode >> 6),
        ..BlockOptions::new(file.path())
    };
    driver::check(data, Box::new(Block::open(&options).expect("a disk")));
    let after = std::fs::read(file.path()).expect("the same file");
    assert_eq!(after.len(), image.len(), "a disk keeps its size");
    assert_eq!(after[63 * 512..], image[63 * 512..], "what is not the guest's stays");
    assert!(!read_only || after == image, "so does what it must not write");
}
