// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes an empty file system, or kills one.

use uuid::Uuid;
use zerocopy::IntoBytes;

use crate::format::extension::{EXTENSIONS_OFFSET, Extensions};
use crate::format::{self, ALLOC_UNIT, OMF_MINOR};
use crate::media::{Media, MediaError};
use crate::store::log::{Log, LogError};
use crate::store::superblock::{self, MIN_DEVICE_LEN, Superblock, SuperblockError};
use crate::store::superblock::{default_log_len, reference_log_len};
use crate::text::units::human;

/// Bytes that are checked for other data. The superblocks and partition tables of other systems
/// begin in there, and the devdax info block, which is not part of the famfs, comes after it.
const HEAD_LEN: usize = 4096;

/// What to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of the log in bytes; by default [`superblock::default_log_len`], or
    /// [`superblock::reference_log_len`] without extensions.
    pub log_len: Option<u64>,
    /// Whether the file system is to have extensions. Without them it is byte for byte what the
    /// reference makes.
    pub extensions: bool,
    /// Make it even if there is a file system already.
    pub force: bool,
    /// Identity of the file system.
    pub fs_uuid: Uuid,
    /// Identity of the device.
    pub dev_uuid: Uuid,
    /// Identity of the master.
    pub system_uuid: Uuid,
    /// Device name to record.
    pub dev_name: String,
}

/// Why no file system was made.
#[derive(Debug, thiserror::Error)]
pub enum MkfsError {
    /// There is one already.
    #[error("already has a famfs superblock{}; use --force to destroy it", .fs_uuid.map(|u| format!(" (file system {u})")).unwrap_or_default())]
    Formatted {
        /// Its identity, if the superblock is intact.
        fs_uuid: Option<Uuid>,
    },
    /// There is something that is not ours.
    #[error(
        "holds other data ({found:#04x} at offset {offset:#x}, expected zeros); \
         use --force to destroy it"
    )]
    Foreign {
        /// The first byte that is not zero.
        found: u8,
        /// Its offset in the device or pool.
        offset: u64,
    },
    /// The device is too small or too large.
    #[error(
        "device of {}: a famfs needs at least {} and at most {}",
        human(*.len), human(MIN_DEVICE_LEN), human(superblock::MAX_DEVICE_LEN)
    )]
    DeviceLength {
        /// Its size in bytes.
        len: u64,
    },
    /// The requested part of the device is not possible.
    #[error("size {len}: expected a multiple of 2 MiB within the device's {device_len} bytes")]
    Size {
        /// The size asked for.
        len: u64,
        /// Size of the device in bytes.
        device_len: u64,
    },
    /// No log has this length.
    #[error(
        "log length {log_len}: expected a power of two from 2 MiB, like {}",
        log_len.clamp(&superblock::MIN_LOG_LEN, &superblock::MAX_DEVICE_LEN).next_power_of_two()
    )]
    LogLength {
        /// The length asked for.
        log_len: u64,
    },
    /// The log is too long for the device.
    #[error(
        "a log of {} for {} entries needs a device of at least {}, this one has {}",
        human(*.log_len), format::slots(*.log_len), human(least_device_len(*.log_len)),
        human(*.device_len)
    )]
    LogTooLong {
        /// The length asked for.
        log_len: u64,
        /// Size of the device in bytes.
        device_len: u64,
    },
    /// The memory does not hold what was written.
    #[error(
        "the memory does not keep what is written to it: this system may only read it, like a VM \
         with access = \"ro\"; nothing was made"
    )]
    NotKept,
    /// The superblock could not be read.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The media could not be written.
    #[error("cannot write superblock and log")]
    Media(#[from] MediaError),
    /// The new log cannot be read back.
    #[error("the new log cannot be read back")]
    Verify(#[from] LogError),
}

/// The log length for a device, checked.
pub fn log_len(wanted: Option<u64>, device_len: u64, extensions: bool) -> Result<u64, MkfsError> {
    if !(MIN_DEVICE_LEN..=superblock::MAX_DEVICE_LEN).contains(&device_len) {
        return Err(MkfsError::DeviceLength { len: device_len });
    }
    let default = if extensions { default_log_len } else { reference_log_len };
    let log_len = wanted.unwrap_or_else(|| default(device_len));
    if !superblock::is_log_len(log_len) {
        return Err(MkfsError::LogLength { log_len });
    }
    if least_device_len(log_len) > device_len {
        return Err(MkfsError::LogTooLong { log_len, device_len });
    }
    Ok(log_len)
}

/// The smallest device for a log: superblock, log and one unit of data.
fn least_device_len(log_len: u64) -> u64 {
    (log_len + 2 * ALLOC_UNIT).max(MIN_DEVICE_LEN)
}

/// Refuses media that hold a file system, intact or of another version, or other data.
pub fn check_unformatted(media: &dyn Media) -> Result<(), MkfsError> {
    match Superblock::read(media) {
        Ok(superblock) => Err(MkfsError::Formatted { fs_uuid: Some(superblock.fs_uuid) }),
        Err(SuperblockError::Magic { .. }) => check_blank(media),
        Err(err @ SuperblockError::Media(_)) => Err(err.into()),
        Err(_) => Err(MkfsError::Formatted { fs_uuid: None }),
    }
}

/// Refuses media that begin with something that no famfs leaves there. What follows the magic
/// number of a killed superblock is ours.
fn check_blank(media: &dyn Media) -> Result<(), MkfsError> {
    let mut head = [0; HEAD_LEN];
    media.read_at(0, &mut head).map_err(SuperblockError::from)?;
    let ours = size_of::<u64>()..size_of::<format::Superblock>();
    let mut others = head.iter().zip(0_u64..).enumerate();
    match others.find(|(at, (byte, _))| **byte != 0 && !ours.contains(at)) {
        Some((_, (found, at))) => {
            Err(MkfsError::Foreign { found: *found, offset: media.origin() + at })
        }
        None => Ok(()),
    }
}

/// What [`mkfs`] would make, after all its checks; changes nothing.
pub fn plan(media: &dyn Media, options: &Options) -> Result<Superblock, MkfsError> {
    plan_within(media, options, media.len())
}

/// The same for [`mkfs_within`].
pub fn plan_within(
    media: &dyn Media,
    options: &Options,
    len: u64,
) -> Result<Superblock, MkfsError> {
    if len > media.len() || !len.is_multiple_of(ALLOC_UNIT) && len != media.len() {
        return Err(MkfsError::Size { len, device_len: media.len() });
    }
    let log_len = log_len(options.log_len, len, options.extensions)?;
    if !options.force {
        check_unformatted(media)?;
    }
    Ok(Superblock {
        log_len,
        omf_minor: OMF_MINOR,
        fs_uuid: options.fs_uuid,
        dev_uuid: options.dev_uuid,
        system_uuid: options.system_uuid,
        dev_size: len,
        dev_name: options.dev_name.clone(),
    })
}

/// Makes an empty file system. A crash leaves none, or a whole one.
pub fn mkfs(media: &dyn Media, options: &Options) -> Result<Superblock, MkfsError> {
    mkfs_within(media, options, media.len())
}

/// The same, in the first `len` bytes of a device: the rest is never allocated.
pub fn mkfs_within(
    media: &dyn Media,
    options: &Options,
    len: u64,
) -> Result<Superblock, MkfsError> {
    let superblock = plan_within(media, options, len)?;
    let log_len = superblock.log_len;
    kill(media)?;
    // With the mark of an earlier file system.
    media.zero(0, ALLOC_UNIT)?;
    if options.extensions {
        let mark = Extensions::new(options.fs_uuid.into_bytes());
        media.write_at(EXTENSIONS_OFFSET, mark.as_bytes())?;
    }
    media.persist(0, ALLOC_UNIT)?;
    Log::format(media, log_len)?;
    media.write_at(0, &superblock.encode())?;
    media.persist(0, ALLOC_UNIT)?;
    let mut kept = vec![0; superblock.encode().len()];
    media.read_at(0, &mut kept)?;
    if kept != superblock.encode() {
        return Err(MkfsError::NotKept);
    }
    let written = Superblock::read(media)?;
    if written.has_extensions(media)? != options.extensions {
        return Err(MkfsError::NotKept);
    }
    Log::open(media, log_len)?;
    Ok(written)
}

/// Wipes the superblock's magic number; log and data stay as they are.
pub fn kill(media: &dyn Media) -> Result<(), MediaError> {
    media.write_at(0, &[0; 8])?;
    media.persist(0, 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::PoolFile;
    use crate::media::in_memory::InMemory;
    use crate::store::superblock::log_len_for;
    use crate::sys::dax::Access;

    /// A pool whose stores are dropped, as by the hypervisor of a VM that may only read.
    struct ReadOnly(PoolFile);

    impl Media for ReadOnly {
        fn len(&self) -> u64 {
            self.0.len()
        }

        fn origin(&self) -> u64 {
            self.0.origin()
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
            self.0.read_at(offset, buf)
        }

        fn write_at(&self, _: u64, _: &[u8]) -> Result<(), MediaError> {
            Ok(())
        }

        fn persist(&self, _: u64, _: u64) -> Result<(), MediaError> {
            Ok(())
        }

        fn refresh(&self, offset: u64, len: u64) -> Result<(), MediaError> {
            self.0.refresh(offset, len)
        }
    }

    #[test]
    fn the_mark_of_extensions_is_of_this_file_system() {
        let media = InMemory::new(64 << 20);
        let options = |extensions| Options {
            log_len: None,
            extensions,
            force: true,
            fs_uuid: Uuid::from_u128(1),
            dev_uuid: Uuid::from_u128(2),
            system_uuid: Uuid::from_u128(3),
            dev_name: "pool".to_owned(),
        };
        assert!(mkfs(&media, &options(true)).unwrap().has_extensions(&media).unwrap());
        // Even one with the same UUID is gone.
        assert!(!mkfs(&media, &options(false)).unwrap().has_extensions(&media).unwrap());
        let mut mark = [1; size_of::<Extensions>()];
        media.read_at(EXTENSIONS_OFFSET, &mut mark).unwrap();
        assert_eq!(mark, [0; size_of::<Extensions>()]);
    }

    #[test]
    fn a_log_that_is_too_long_says_what_it_needs() {
        let error = log_len(Some(log_len_for(100_000)), 64 << 20, true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a log of 64.00 MiB for 123361 entries needs a device of at least 68.00 MiB, this one \
             has 64.00 MiB"
        );
        assert_eq!(log_len(Some(log_len_for(100_000)), 68 << 20, true).unwrap(), 64 << 20);
    }

    #[test]
    fn stores_that_are_dropped_make_no_file_system() {
        let pool = tempfile::NamedTempFile::new().unwrap();
        pool.as_file().set_len(64 << 20).unwrap();
        let media = ReadOnly(PoolFile::open(pool.path(), Access::Write).unwrap());
        let options = || Options {
            log_len: None,
            extensions: true,
            force: true,
            fs_uuid: Uuid::from_u128(1),
            dev_uuid: Uuid::from_u128(2),
            system_uuid: Uuid::from_u128(3),
            dev_name: "pool".to_owned(),
        };
        assert!(matches!(mkfs(&media, &options()), Err(MkfsError::NotKept)));
        // Nor where an older one is, which would pass for the new one.
        mkfs(&media.0, &options()).unwrap();
        let again = Options { fs_uuid: Uuid::from_u128(4), ..options() };
        assert!(matches!(mkfs(&media, &again), Err(MkfsError::NotKept)));
    }
}
