// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use crate::pool::{CreateOptions, create};
use rustix::fs::FlockOperation;
use std::os::unix::fs::FileExt;

const MIB: u64 = 1 << 20;

fn pool(dir: &tempfile::TempDir, view: View, mkfs: bool) -> PathBuf {
    let path = dir.path().join(format!("{}-{mkfs}", view.name()));
    let options = CreateOptions { mkfs, ..CreateOptions::new(path.clone(), 32 * MIB, view) };
    create(&options, &mut |_, _| ()).unwrap();
    path
}

fn to(path: &Path, size: u64) -> Result<PoolReport, ResizeError> {
    let options = ResizeOptions { path: path.to_owned(), size, owners: Owners::Trusted };
    resize(&options, &mut |_, _| ())
}

#[test]
fn grows_and_shrinks_every_view() {
    let dir = tempfile::tempdir().unwrap();
    for view in [View::Raw, View::Devdax] {
        for mkfs in [false, true] {
            let path = pool(&dir, view, mkfs);
            let before = inspect(&path).unwrap();
            for size in [64 * MIB, 18 * MIB, 18 * MIB] {
                let report = to(&path, size).unwrap();
                assert_eq!((report.size, report.view), (size, view.name()));
                assert_eq!(report.uuid, before.uuid, "the block keeps its identity");
                let ids = [&report, &before].map(|r| r.famfs.as_ref().map(|f| f.uuid.clone()));
                assert_eq!(ids[0], ids[1]);
                assert!(report.famfs.is_none_or(|famfs| famfs.problem.is_none()));
            }
        }
    }
}

#[test]
fn new_space_of_a_famfs_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = pool(&dir, View::Devdax, true);
    let capacity = |report: PoolReport| report.famfs.unwrap().capacity;
    let before = capacity(inspect(&path).unwrap());
    assert_eq!(capacity(to(&path, 64 * MIB).unwrap()), before + 32 * MIB);
}

#[test]
fn data_is_not_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = pool(&dir, View::Raw, false);
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"precious", 30 * MIB).unwrap();
    drop(file);
    let err = to(&path, 16 * MIB).unwrap_err();
    assert!(matches!(err, ResizeError::Data { .. }), "{err}");
    assert_eq!(inspect(&path).unwrap().size, 32 * MIB);
    // The last byte of data may be the last byte of the pool.
    let end = 30 * MIB + 8;
    assert!(matches!(err, ResizeError::Data { end: Bytes(found), .. } if found == end), "{err}");
}

#[test]
fn a_log_that_would_not_fit_is_data() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool");
    let options =
        CreateOptions { mkfs: true, ..CreateOptions::new(path.clone(), 1 << 30, View::Raw) };
    create(&options, &mut |_, _| ()).unwrap();
    // 2 MiB of superblock and a log of 16 MiB.
    let err = to(&path, 16 * MIB).unwrap_err();
    assert!(matches!(err, ResizeError::Data { .. }), "{err}");
    to(&path, 20 * MIB).unwrap();
}

#[test]
fn slices_behind_the_file_system_stay() {
    let dir = tempfile::tempdir().unwrap();
    for view in [View::Devdax, View::Raw] {
        let path = pool(&dir, view, false);
        let options = famfs::store::mkfs::Options {
            log_len: None,
            extensions: true,
            force: true,
            fs_uuid: uuid::Uuid::from_u128(1),
            dev_uuid: uuid::Uuid::from_u128(2),
            system_uuid: uuid::Uuid::from_u128(3),
            dev_name: "x".into(),
        };
        let access = famfs::sys::dax::Access::Write;
        let media = famfs::media::PoolFile::open(&path, access).unwrap();
        famfs::store::mkfs::mkfs_within(&media, &options, 20 * MIB - media.origin()).unwrap();
        drop(media);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"slice", 24 * MIB).unwrap();
        drop(file);
        let capacity = |report: PoolReport| report.famfs.unwrap().capacity;
        let before = capacity(inspect(&path).unwrap());
        let err = to(&path, 24 * MIB).unwrap_err();
        let slice = 24 * MIB + 5;
        assert!(matches!(err, ResizeError::Data { end: Bytes(end), .. } if end == slice), "{err}");
        assert_eq!(capacity(to(&path, 64 * MIB).unwrap()), before, "it does not grow over it");
        assert_eq!(capacity(to(&path, 26 * MIB).unwrap()), before);
    }
}

#[test]
fn a_pool_in_use_keeps_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = pool(&dir, View::Raw, false);
    let holder = File::open(&path).unwrap();
    rustix::fs::flock(&holder, FlockOperation::LockShared).unwrap();
    let err = to(&path, 64 * MIB).unwrap_err();
    assert!(matches!(err, ResizeError::Pool(PoolError::Busy { .. })), "{err}");
    assert_eq!(inspect(&path).unwrap().size, 32 * MIB);
}

#[test]
fn an_interrupted_resize_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = pool(&dir, View::Devdax, true);
    // The state after a crash that came after the file had grown.
    File::options().write(true).open(&path).unwrap().set_len(64 * MIB).unwrap();
    assert_eq!(inspect(&path).unwrap().view, "damaged");
    // The same command finishes it, and resizing back to the old size undoes it.
    assert_eq!(to(&path, 64 * MIB).unwrap().view, "devdax");
    assert_eq!(to(&path, 32 * MIB).unwrap().view, "devdax");
    File::options().write(true).open(&path).unwrap().set_len(64 * MIB).unwrap();
    assert_eq!(to(&path, 32 * MIB).unwrap().view, "devdax");
    // The state after a crash that came after the block of a smaller size had been written.
    let block = InfoBlock::build(24 * MIB, uuid::Uuid::nil()).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(block.as_bytes(), INFO_BLOCK_OFFSET).unwrap();
    drop(file);
    assert_eq!(to(&path, 24 * MIB).unwrap().view, "devdax");
}
