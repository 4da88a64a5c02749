//! A jail's share of the host: cgroups of its own, of version 1 or 2.
//!
//! With version 2 the program is born in its group (CLONE_INTO_CGROUP). With version 1 it has to be moved there, by a
//! write that waits for all CPUs: some milliseconds for each hierarchy.

mod group;
mod hierarchy;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use group::Group;
use hierarchy::Hierarchy;

use super::config::{CgroupConfig, CgroupSetting, CgroupVersion, Id};
use super::error::{JailError, cannot};

/// What `--clean` has to know of a jail's cgroups, written down before any of them is made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The jail's own.
    pub groups: Vec<PathBuf>,
    /// Parents that did not exist, from the innermost on.
    pub parents: Vec<PathBuf>,
}

impl Record {
    /// Kills what runs in the jail's groups, and removes these and what was made to have them in.
    pub(super) fn remove(&self) -> Result<(), JailError> {
        group::remove(&self.groups)?;
        group::remove_empty(&self.parents);
        Ok(())
    }
}

/// Which groups there are to be; nothing is made yet.
pub(super) struct Plan {
    version: CgroupVersion,
    parent: PathBuf,
    id: Id,
    parts: Vec<(Hierarchy, Vec<CgroupSetting>)>,
}

/// The groups of a jail.
pub(super) struct Cgroups {
    version: CgroupVersion,
    groups: Vec<Group>,
}

impl Plan {
    /// Finds the hierarchies. No setting and no parent: no group.
    pub(super) fn new(config: &CgroupConfig, program: &OsStr, id: &Id) -> Result<Self, JailError> {
        let parent = config.parent.as_ref().map_or_else(|| PathBuf::from(program), |parent| parent.0.clone());
        let mut plan = Self { version: CgroupVersion::V2, parent, id: id.clone(), parts: Vec::new() };
        if config.settings.is_empty() && config.parent.is_none() {
            return Ok(plan);
        }
        let unified = match config.version {
            Some(CgroupVersion::V1) => None,
            _ => Hierarchy::unified(),
        };
        match (unified, config.version) {
            (None, Some(CgroupVersion::V2)) => {
                return Err(JailError::Refused(
                    "--cgroup-version 2: it is not mounted on this host".to_owned(),
                ));
            }
            (Some(unified), version) if version.is_some() || unified.has_all(&config.settings) => {
                plan.parts.push((unified, config.settings.clone()));
            }
            _ => {
                plan.version = CgroupVersion::V1;
                for setting in &config.settings {
                    plan.add_v1(setting)?;
                }
            }
        }
        Ok(plan)
    }

    /// Several controllers may share a hierarchy, and have one group then.
    fn add_v1(&mut self, setting: &CgroupSetting) -> Result<(), JailError> {
        let hierarchy = Hierarchy::of_controller(setting.controller()).ok_or_else(|| {
            JailError::Refused(format!(
                "--cgroup {}: no cgroup hierarchy of this host has the controller '{}'",
                setting.file,
                setting.controller()
            ))
        })?;
        match self.parts.iter_mut().find(|(known, _)| known.device == hierarchy.device) {
            Some((_, settings)) => settings.push(setting.clone()),
            None => self.parts.push((hierarchy, vec![setting.clone()])),
        }
        Ok(())
    }

    /// What will be there.
    pub(super) fn record(&self) -> Record {
        let mut record = Record::default();
        for (hierarchy, _) in &self.parts {
            let parents = self.parent.ancestors().filter(|parent| !parent.as_os_str().is_empty());
            let parents = parents.map(|parent| hierarchy.path.join(parent)).filter(|parent| !parent.exists());
            record.parents.extend(parents);
            record.groups.push(hierarchy.path.join(&self.parent).join(self.id.as_str()));
        }
        record
    }

    /// Makes them and sets what was asked for. Where that fails, nothing is left.
    pub(super) fn create(&self) -> Result<Cgroups, JailError> {
        let mut cgroups = Cgroups { version: self.version, groups: Vec::new() };
        for (hierarchy, settings) in &self.parts {
            let made = Group::create(hierarchy, &self.parent, &self.id, settings, self.version);
            match made {
                Ok(group) => cgroups.groups.push(group),
                Err(error) => {
                    let _ = cgroups.remove();
                    return Err(error);
                }
            }
        }
        Ok(cgroups)
    }
}

impl Cgroups {
    /// The group that a process can be born in.
    pub(super) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        match self.version {
            CgroupVersion::V1 => None,
            CgroupVersion::V2 => self.groups.first().map(AsFd::as_fd),
        }
    }

    /// Moves this process into those groups that it could not be born in.
    pub(super) fn enter(&self) -> Result<(), JailError> {
        if self.version == CgroupVersion::V2 {
            return Ok(());
        }
        self.groups.iter().try_for_each(|group| {
            group.enter().map_err(cannot(format!("enter the cgroup {}", group.path().display())))
        })
    }

    /// Removes the groups; nothing may run in them any more.
    pub(super) fn remove(&self) -> Result<(), JailError> {
        let paths: Vec<&Path> = self.groups.iter().map(Group::path).collect();
        group::remove(&paths)
    }
}
