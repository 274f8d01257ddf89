// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a VM boots: an appliance image, or a guest of the user's own.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk_format::{DiskError, DiskFormat};
use super::image::{Image, ImageError, Root};

/// What a VM boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
// Older versions of this program wrote an image only.
#[serde(untagged)]
pub enum System {
    /// An appliance image.
    Appliance(Image),
    /// A disk of the user's.
    Own(OwnGuest),
}

/// A guest of the user's own: a disk with a system that has the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnGuest {
    /// The disk image, a file or a block device.
    pub disk: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// Where its kernel comes from.
    pub start: Start,
    /// Whether the guest writes to the disk itself. If not, its writes go to a temporary file.
    #[serde(default)]
    pub writable: bool,
}

/// Where the kernel of a guest of the user's own comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// From the disk, by this firmware; `None` for QEMU's BIOS.
    Firmware(Option<PathBuf>),
    /// From the host.
    Kernel {
        /// A `bzImage`, or a `vmlinux` with a PVH entry point.
        kernel: PathBuf,
        /// Its initrd.
        initrd: Option<PathBuf>,
        /// Its parameters, which name the root.
        append: String,
    },
}

impl System {
    /// The appliance image, if it is one.
    #[must_use]
    pub fn appliance(&self) -> Option<&Image> {
        match self {
            Self::Appliance(image) => Some(image),
            Self::Own(_) => None,
        }
    }

    /// The user's own guest, if it is one.
    #[must_use]
    pub fn own(&self) -> Option<&OwnGuest> {
        match self {
            Self::Appliance(_) => None,
            Self::Own(own) => Some(own),
        }
    }

    /// Checks that it has this kind of root. That of a user's own guest is on its disk.
    ///
    /// # Errors
    /// The file that the image lacks.
    pub fn require(&self, root: Root) -> Result<(), ImageError> {
        self.appliance().map_or(Ok(()), |image| image.require(root))
    }
}

impl OwnGuest {
    /// The same guest on a root device of its own, which takes its writes.
    #[must_use]
    pub fn on_device(&self, device: &Path) -> Self {
        let (disk, format) = (device.to_owned(), DiskFormat::Device);
        Self { disk, format, writable: true, start: self.start.clone() }
    }

    /// Checks that the file is still the disk image that it was: whoever can write it could name
    /// another file of the host in it.
    ///
    /// # Errors
    /// It is another one, or none.
    pub fn check(&self) -> Result<(), DiskError> {
        match DiskFormat::of(&self.disk)? {
            found if found == self.format => Ok(()),
            found => {
                let (path, expected) = (self.disk.clone(), self.format);
                Err(DiskError::Changed { path, found, expected })
            }
        }
    }
}

impl From<Image> for System {
    fn from(image: Image) -> Self {
        Self::Appliance(image)
    }
}

impl From<OwnGuest> for System {
    fn from(own: OwnGuest) -> Self {
        Self::Own(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let image = r#"{"dir":"/image","kernel":null,"memory_root":7,"root_hash":null}"#;
        let found: System = serde_json::from_str(image).unwrap();
        assert_eq!(
            found.appliance().unwrap().memory_root(),
            Some(("/image/root-dax.erofs".into(), 7))
        );
        let kernel = Start::Kernel {
            kernel: "/vmlinuz".into(),
            initrd: None,
            append: "root=/dev/vda1".into(),
        };
        for start in [Start::Firmware(None), kernel] {
            let own =
                OwnGuest { disk: "/disk".into(), format: DiskFormat::Raw, start, writable: false };
            let text = serde_json::to_string(&System::from(own.clone())).unwrap();
            assert_eq!(serde_json::from_str::<System>(&text).unwrap().own(), Some(&own));
        }
    }
}
