//! Any file at all as a configuration: it is a machine that can be laid out, or an error of one line.

use vmm::config::{ConfigFile, MAX_CPUS, PageBacking};

/// Runs one input.
pub(crate) fn check(data: &[u8]) {
    let file = match ConfigFile::parse(data) {
        Ok(file) => file,
        Err(error) => return check_line(&error),
    };
    // What the logger is asked for does not depend on the machine.
    let logger = file.logger();
    let config = match file.into_config() {
        Ok(config) => config,
        Err(error) => return check_line(&error),
    };
    assert!((1..=MAX_CPUS).contains(&config.cpus.get()));
    let regions = config.memory.regions().expect("its size was accepted");
    assert_eq!(regions.total(), config.memory.bytes());
    assert!(logger.path.is_none_or(|path| data.len() > path.as_os_str().len()));
    match config.validate() {
        Ok(()) if config.backing == PageBacking::HugeTlb => {
            assert!(regions.iter().all(|region| region.size.is_multiple_of(2 << 20)));
        }
        Ok(()) => {}
        Err(error) => check_line(&error),
    }
}

/// For people, on a terminal: no line feed, no escape sequence.
fn check_line(error: &dyn std::error::Error) {
    let line = vmm::error_line(error);
    assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
}
