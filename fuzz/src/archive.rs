// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Target: unpacking a tar archive into a pool. Input: one byte (bit 0: read it as a stream instead
//! of a file, bit 1: it is a layer, and comes twice, bit 2: skip what famfs cannot hold, bit 3:
//! correct the headers' checksums, bits 4 and 5: compress it with nothing, gzip, xz or zstd), then
//! the archive.
//!
//! Invariants, whether it succeeds or not:
//! * the file system is clean, and its plan keeps everything that [`plan::promises`] asserts;
//! * what is reported as made exists, and nothing else does;
//! * memory use follows the archive's bytes, not the sizes that it claims.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::LazyLock;

use famfs::archive::compression::Compression;
use famfs::archive::import::{Import, Options};
use famfs::format::{LOG_OFFSET, LogHeader, SuperblockBytes};
use famfs::media::in_memory::InMemory;
use famfs::media::{Media, PoolFile};
use famfs::replay::fsck;
use famfs::replay::{Contents, Owner};
use famfs::store::mkfs::{self, mkfs};
use famfs::sys::dax::Access;
use famfs::write::volume::{OfflineVolume, Volume};
use famfs::write::writer::Writer;
use flate2::write::GzEncoder;
use liblzma::write::XzEncoder;
use rustix::fs::{MemfdFlags, Mode};
use uuid::Uuid;

use crate::{bounded, plan};

const POOL_LEN: u64 = 1 << 30;
const LOG_LEN: u64 = 2 << 20;
const BLOCK: usize = 512;
/// Bytes that may be allocated for any archive, however small: buffers of both ends of a copy.
const ALLOWANCE: usize = 24 << 20;
/// Bytes that may be allocated for each byte of the archive.
const PER_BYTE: usize = 256;

/// Superblock and log header of an empty file system.
static EMPTY: LazyLock<(SuperblockBytes, [u8; size_of::<LogHeader>()])> = LazyLock::new(|| {
    let media = InMemory::new(POOL_LEN);
    let options = mkfs::Options {
        log_len: Some(LOG_LEN),
        extensions: true,
        force: false,
        fs_uuid: Uuid::from_u128(1),
        dev_uuid: Uuid::from_u128(2),
        system_uuid: Uuid::from_u128(3),
        dev_name: "pool".into(),
    };
    mkfs(&media, &options).expect("a file system on an empty device");
    let (mut superblock, mut header) = ([0; 200], [0; 48]);
    media.read_at(0, &mut superblock).expect("it was just written");
    media.read_at(LOG_OFFSET, &mut header).expect("it was just written");
    (superblock, header)
});

/// Runs the target.
///
/// # Panics
/// When an invariant does not hold, or the system has no memory for a sparse file.
pub fn run(data: &[u8]) {
    let (first, data) = data.split_first().unwrap_or((&0, &[]));
    let has = |bit: u8| first >> bit & 1 != 0;
    let mut archive = data.to_vec();
    if has(3) {
        seal(&mut archive);
    }
    let compression = match first >> 4 & 3 {
        0 => Compression::None,
        1 => Compression::Gzip,
        2 => Compression::Xz,
        _ => Compression::Zstd,
    };
    let archive = compressed(compression, archive);
    let pool = memory_file();
    pool.set_len(POOL_LEN).expect("no memory for a hole");
    let path = format!("/proc/self/fd/{}", pool.as_raw_fd());
    let media = PoolFile::open(Path::new(&path), Access::Write).expect("a pool of ours");
    media.write_at(0, &EMPTY.0).expect("no memory for a page");
    media.write_at(LOG_OFFSET, &EMPTY.1).expect("no memory for a page");
    let volume = OfflineVolume::new(media);
    let options = Options {
        into: None,
        skip_unsupported: has(2),
        layers: has(1) && !has(0),
        atomic: false,
        owner: Owner { uid: 0, gid: 0, mode: 0o755 },
    };

    let made = bounded(ALLOWANCE + PER_BYTE * data.len(), || {
        let mut writer = Writer::open(&volume, None).expect("an empty file system");
        let import = Import::new(&mut writer, options);
        if has(0) {
            import.stream(archive.as_slice(), &mut |_| true)
        } else {
            let mut file = memory_file();
            file.write_all(&archive).expect("no memory for the archive");
            let again = if has(1) { file.try_clone().ok() } else { None };
            let files: Vec<File> = again.into_iter().chain([file]).collect();
            import.files(&files, |_| {}, &mut |_| true)
        }
    });

    let contents = Contents::read(volume.media()).expect("the import damaged the file system");
    plan::promises(volume.media(), &contents);
    let problems = fsck::check(volume.media(), &contents).problems;
    assert!(problems.is_empty(), "{problems:?}");
    if let Ok(done) = made {
        let found = contents.plan.tree().counts();
        let names = done.files + done.directories + done.symlinks + done.hard_links;
        assert_eq!(
            (found.files, found.directories, found.symlinks, found.names),
            (done.files, done.directories, done.symlinks, names)
        );
        assert_eq!(done.removed, 0, "the file system was empty");
    }
}

/// Compresses an archive; decompressing gives exactly the input again.
fn compressed(compression: Compression, archive: Vec<u8>) -> Vec<u8> {
    let made = match compression {
        Compression::None => Ok(archive),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&archive).and_then(|()| encoder.finish())
        }
        Compression::Xz => {
            let mut encoder = XzEncoder::new(Vec::new(), 0);
            encoder.write_all(&archive).and_then(|()| encoder.finish())
        }
        Compression::Zstd => zstd::stream::encode_all(archive.as_slice(), 1),
    };
    made.expect("no memory for an archive")
}

fn memory_file() -> File {
    let file = rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("no memory file");
    // The kernel makes it writable for all, which none of our pools is.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600)).expect("no memory file of ours");
    file.into()
}

/// Corrects the checksums of the headers, which are where the sizes before them say.
pub(crate) fn seal(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(block) = archive.get_mut(at..at + BLOCK) {
        let mut header = tar::Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        let size = usize::try_from(header.entry_size().unwrap_or(0)).unwrap_or(usize::MAX);
        at = at.saturating_add(BLOCK).saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
        if at > archive.len() {
            break;
        }
    }
}
