//! Runs what the fuzz targets run on the inputs that are kept, so that a finding stays fixed on every toolchain.

use std::fs;
use std::path::Path;

#[path = "../fuzz/balloon.rs"]
mod balloon;
#[path = "../fuzz/block.rs"]
mod block;
#[path = "../fuzz/driver.rs"]
mod driver;
#[path = "../fuzz/net.rs"]
mod net;
#[path = "../fuzz/rng.rs"]
mod rng;
#[path = "../fuzz/transport.rs"]
mod transport;
#[path = "../fuzz/vsock.rs"]
mod vsock;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is part of the source") {
        let path = entry.expect("a readable folder").path();
        eprintln!("{}", path.display());
        check(&fs::read(&path).expect("a readable file"));
        count += 1;
    }
    assert!(count > 0, "no input in {}", folder.display());
}

#[test]
fn transport_corpus() {
    replay("transport", transport::check);
}

#[test]
fn balloon_corpus() {
    replay("balloon", balloon::check);
}

#[test]
fn rng_corpus() {
    replay("rng", rng::check);
}

#[test]
fn vsock_corpus() {
    replay("vsock", vsock::check);
}

#[test]
fn block_corpus() {
    replay("block", block::check);
}

#[test]
fn net_corpus() {
    replay("net", net::check);
}
