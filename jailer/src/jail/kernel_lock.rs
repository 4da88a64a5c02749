//! Landlock: a second lock on the room's door, which holds even where the first one has a flaw.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

use super::config::JailConfig;
use super::error::JailError;
use super::executable::Executable;
use super::room::DEVICES;

/// The newest that is known here; of older kernels' Landlock, what there is is used.
const NEWEST: ABI = ABI::V6;

/// Allows what the configuration names, and nothing else: no other path, no TCP, no abstract socket and no signal to
/// anyone outside. A kernel without Landlock, or with an older one, enforces what it can.
pub(super) fn lock(config: &JailConfig, program: &Executable) -> Result<(), JailError> {
    let failed = |error: RulesetError| JailError::Refused(format!("cannot set up Landlock: {error}"));
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    let read = AccessFs::from_read(NEWEST) & !AccessFs::Execute;
    let write =
        (AccessFs::from_all(NEWEST) & !AccessFs::Execute) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut allowed: Vec<(PathBuf, BitFlags<AccessFs>)> =
        vec![(program.inside(), AccessFs::Execute | AccessFs::ReadFile)];
    allowed.extend(DEVICES.iter().map(|name| (Path::new("/dev").join(name), device)));
    allowed.extend(config.binds.iter().map(|bind| {
        let access = if bind.read_only { read } else { write };
        (Path::new("/").join(&bind.inside), access)
    }));
    for (path, access) in allowed {
        // A device that the host does not have.
        let Ok(fd) = PathFd::new(&path) else { continue };
        let rule =
            PathBeneath::new(fd, if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) });
        rules = rules.add_rule(rule).map_err(failed)?;
    }
    rules.restrict_self().map(drop).map_err(failed)
}
