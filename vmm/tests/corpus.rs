//! Runs what the fuzz targets run on the inputs that are kept, so that a finding stays fixed on every toolchain.

use std::fs;
use std::path::Path;

#[path = "../fuzz/config.rs"]
mod config;
#[path = "../fuzz/flags.rs"]
mod flags;

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
fn config_corpus() {
    replay("config", config::check);
}

#[test]
fn flags_corpus() {
    replay("flags", flags::check);
}
