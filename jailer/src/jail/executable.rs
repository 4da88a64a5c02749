//! The program that is jailed.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::pread;

use super::error::{JailError, PathFault};
use super::path::{self, Identity};

const FLAG: &str = "--exec-file";
/// More than any program has before its code.
const MAX_HEADERS: usize = 4096;

// ELF-64 (System V ABI, chapters 4 and 5).
const E_TYPE: usize = 16;
const E_MACHINE: usize = 18;
const E_PHOFF: usize = 32;
const E_PHENTSIZE: usize = 54;
const E_PHNUM: usize = 56;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_INTERP: u32 = 3;
/// Magic number, 64 bits, little endian, version 1.
const IDENT: [u8; 7] = [0x7f, b'E', b'L', b'F', 2, 1, 1];

/// A static program that only root, or we, can change.
pub(super) struct Executable {
    /// From the root on.
    pub path: PathBuf,
    /// Its last component, which is also its name in the jail and that of the directory of its jails.
    pub name: OsString,
    /// What was checked.
    pub identity: Identity,
}

impl Executable {
    /// Checks the file at `path`.
    pub(super) fn check(path: &Path) -> Result<Self, JailError> {
        Self::examine(path).map_err(|fault| JailError::Path { flag: FLAG, path: path.to_owned(), fault })
    }

    fn examine(path: &Path) -> Result<Self, PathFault> {
        let path = path::absolute(path)?;
        let wanted = PathFault::Kind { found: "a directory", wanted: "a program" };
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(wanted) };
        let directory = path::open_trusted_directory(directory)?;
        let file = path::open_in(&directory, name, &path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let stat = fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            other => return Err(PathFault::Kind { found: path::name_of(other), wanted: "a program" }),
        }
        path::trust(&path, &stat, 0)?;
        if stat.st_mode & 0o111 == 0 {
            return Err(PathFault::Kind { found: "not executable", wanted: "a program" });
        }
        check_static(&file)?;
        Ok(Self { name: name.to_owned(), identity: Identity::from(&stat), path })
    }

    /// Where it is in the jail.
    pub(super) fn inside(&self) -> PathBuf {
        Path::new("/").join(&self.name)
    }
}

/// Reads the program headers: a static program has no PT_INTERP.
fn check_static(file: &OwnedFd) -> Result<(), PathFault> {
    let mut bytes = [0u8; MAX_HEADERS];
    let length = pread(file, &mut bytes, 0)?;
    let bytes = &bytes[..length];
    if !bytes.starts_with(&IDENT)
        || !matches!(u16_at(bytes, E_TYPE), Some(ET_EXEC | ET_DYN))
        || u16_at(bytes, E_MACHINE) != Some(EM_X86_64)
    {
        return Err(PathFault::NotElf);
    }
    let table =
        bytes.get(E_PHOFF..E_PHOFF + 8).and_then(|field| field.try_into().ok()).map(u64::from_le_bytes);
    let table = table.and_then(|offset| usize::try_from(offset).ok()).ok_or(PathFault::NotElf)?;
    let size = u16_at(bytes, E_PHENTSIZE).ok_or(PathFault::NotElf)?;
    for index in 0..u16_at(bytes, E_PHNUM).ok_or(PathFault::NotElf)? {
        let header = table.checked_add(usize::from(index) * usize::from(size)).ok_or(PathFault::NotElf)?;
        let kind = bytes.get(header..).and_then(|rest| rest.first_chunk::<4>()).ok_or(PathFault::NotElf)?;
        if u32::from_le_bytes(*kind) == PT_INTERP {
            return Err(PathFault::Dynamic);
        }
    }
    Ok(())
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let field = bytes.get(offset..)?.first_chunk::<2>()?;
    Some(u16::from_le_bytes(*field))
}
