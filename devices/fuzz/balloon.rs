//! The balloon and an arbitrary driver.

use std::time::Duration;

use devices::virtio::balloon::{Balloon, BalloonOptions};
use devices::virtio::io::HostPage;

use super::driver;

/// Runs one input. Its first byte picks what the balloon is like.
pub(crate) fn check(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    let options = BalloonOptions {
        target: 1 << 20,
        deflate_on_oom: kind & 1 != 0,
        free_page_reporting: kind & 2 != 0,
        stats_interval: (kind & 4 != 0).then_some(Duration::from_secs(1)),
        // Memory here is never of huge pages, so the host refuses what is whole: that has to be survived too.
        page: if kind & 8 != 0 { HostPage::Huge } else { HostPage::Small },
    };
    driver::check(data, Box::new(Balloon::new(options)));
}
