//! The kernel and initrd files of a machine, opened, and copied to guest RAM.
//!
//! A bzImage is replaced by its unpacked kernel, from the [`cache`] where it has been unpacked before.

mod cache;
mod copy;

use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use boot::{Format, Initrd, Protocol, RamRegions, Segment, UnpackError};
use vm_memory::{GuestMemoryMmap, ReadVolatile};

use crate::config;
use crate::memory::GuestRam;

/// A kernel or initrd that cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A directory, pipe or device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Not a kernel, or one that does not fit this machine.
    #[error("cannot boot {name}")]
    Image {
        /// The file.
        name: String,
        /// What is wrong with it.
        #[source]
        source: boot::ImageError,
    },
    /// An initrd that does not fit.
    #[error("cannot load the initrd {}", path.display())]
    Initrd {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: boot::InitrdError,
    },
}

/// A kernel that is ready to be copied.
pub struct KernelImage {
    name: String,
    source: Source,
    plan: boot::Kernel,
    /// Linux for certain, so that its own 64-bit entry is the shortest way in.
    linux: bool,
}

enum Source {
    Embedded(Cursor<&'static [u8]>),
    File(File),
    /// A file that nobody changes, and its tables that can be mapped.
    Cached(File, Vec<Segment>),
}

impl KernelImage {
    /// Opens what the configuration names.
    pub fn open(kernel: &config::Kernel) -> Result<Self, KernelError> {
        match kernel {
            config::Kernel::Embedded => Self::embedded(),
            config::Kernel::File(path) => Self::file(path),
        }
    }

    fn embedded() -> Result<Self, KernelError> {
        let mut image = Cursor::new(guest_kernel::ELF);
        let name = "the embedded guest".to_owned();
        let plan = parse(&mut image, &name)?;
        // It has both entries; the 64-bit one saves it the way out of 32-bit mode.
        Ok(Self { name, source: Source::Embedded(image), plan, linux: true })
    }

    fn file(path: &Path) -> Result<Self, KernelError> {
        let name = path.display().to_string();
        let mut file = open_regular(path)?;
        let format =
            boot::identify(&mut file).map_err(|source| KernelError::Image { name: name.clone(), source })?;
        if format == Format::BzImage {
            match cache::unpacked(&mut file, path) {
                Ok((source, plan)) => return Ok(Self { name, source, plan, linux: true }),
                Err(error) => {
                    log::warn!(
                        "{name} cannot be unpacked on the host, its own decompressor is used: {}",
                        crate::error_line(&error)
                    );
                }
            }
        }
        let plan = parse(&mut file, &name)?;
        Ok(Self { name, source: Source::File(file), plan, linux: format == Format::BzImage })
    }

    /// Where what goes.
    pub fn plan(&self) -> &boot::Kernel {
        &self.plan
    }

    /// The protocol to use where `configured` leaves the choice.
    pub fn protocol(&self, configured: Protocol) -> Protocol {
        match configured {
            Protocol::Auto if self.linux => Protocol::Linux64,
            other => other,
        }
    }

    /// Brings the kernel to guest RAM.
    pub fn load(&mut self, ram: &GuestRam) -> Result<(), KernelError> {
        match &mut self.source {
            Source::Embedded(image) => self.plan.load(ram.memory(), image),
            Source::File(file) => copy::load(&self.plan, ram, file, &[]),
            Source::Cached(file, tables) => copy::load(&self.plan, ram, file, tables),
        }
        .map_err(|source| KernelError::Image { name: self.name.clone(), source })
    }
}

/// Copies the initrd to guest RAM, clear of the kernel.
pub fn load_initrd(
    path: &Path,
    kernel: &boot::Kernel,
    regions: &RamRegions,
    memory: &GuestMemoryMmap,
) -> Result<Initrd, KernelError> {
    let mut file = open_regular(path)?;
    let size = file.metadata().map_err(|source| KernelError::Read { path: path.to_owned(), source })?.len();
    let refused = |source| KernelError::Initrd { path: path.to_owned(), source };
    let initrd = Initrd::place(size, kernel, regions).map_err(refused)?;
    initrd.load(memory, &mut file).map_err(refused)?;
    Ok(initrd)
}

fn parse<I: Read + Seek + ReadVolatile>(image: &mut I, name: &str) -> Result<boot::Kernel, KernelError> {
    boot::Kernel::parse(image).map_err(|source| KernelError::Image { name: name.to_owned(), source })
}

/// Opens a file without waiting for one that is a pipe.
fn open_regular(path: &Path) -> Result<File, KernelError> {
    use std::os::unix::fs::OpenOptionsExt;
    let read = |source| KernelError::Read { path: path.to_owned(), source };
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(read)?;
    if !file.metadata().map_err(read)?.is_file() {
        return Err(KernelError::NotAFile { path: path.to_owned() });
    }
    Ok(file)
}

/// A bzImage could not be replaced by its unpacked kernel.
#[derive(Debug, thiserror::Error)]
enum UnpackedError {
    /// Its stream cannot be read.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// What came out is no kernel.
    #[error(transparent)]
    Image(#[from] boot::ImageError),
    /// There is no place to unpack to.
    #[error("there is no place to unpack it to")]
    Place(#[from] io::Error),
}
