//! `--clean`: what a jail has left, because its keeper was killed, goes.

use std::path::Path;

use super::config::Id;
use super::error::{JailError, cannot};
use super::home::{self, Home};

/// Removes the directories and cgroups of the jails called `id`, and kills what still runs in these cgroups. A jail that
/// is being kept is refused. Where there is nothing, nothing is to be done.
pub(super) fn run(base: &Path, id: &Id) -> Result<(), JailError> {
    for home in Home::find(base, id)? {
        let cgroups = home.cgroups().map_err(cannot(format!("read what {} lists", home.path().display())))?;
        cgroups.remove()?;
        home.remove()?;
    }
    // A keeper may have been killed before it had a directory of its own.
    home::remove_empty(base)
}
