// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Examines the media, of a pool file and of a mounted famfs alike.

use famfs::format::{OMF_MAJOR, SUPERBLOCK_VERSION};
use famfs::media::Media;
use famfs::replay::fsck::check;
use famfs::replay::{Contents, ContentsError};
use famfs::store::superblock::SuperblockError;
use famfs::text::error_report::one_line;

use super::Finding;
use crate::output::human;

/// Percentage of log slots or space in use from which a warning is due.
const NEARLY_FULL: u64 = 90;

/// Examines superblock, log and space. `fsck` is the command that tells more, `mkfs` the one that
/// formats a new pool.
pub fn examine<'m>(
    media: &'m dyn Media,
    fsck: &str,
    mkfs: &str,
    findings: &mut Vec<Finding>,
) -> Option<Contents<'m>> {
    let contents = match Contents::read(media) {
        Ok(contents) => contents,
        Err(err) => {
            let mend = match err {
                // mkfs itself refuses if there is any data.
                ContentsError::Superblock(SuperblockError::Magic { found: 0, .. }) => {
                    format!("{mkfs}, if the pool is new")
                }
                ContentsError::Superblock(SuperblockError::ExtensionsChecksum { .. }) => {
                    "famfs upgrade, for this pool or mount".to_owned()
                }
                // fsck would only say the same again.
                _ => "restore the pool from a copy".to_owned(),
            };
            findings.push(Finding::failed("media", one_line(&err), mend));
            return None;
        }
    };
    let report = check(media, &contents);
    let superblock = &contents.superblock;
    findings.push(Finding::ok(
        "media",
        format!(
            "version {SUPERBLOCK_VERSION}, format {OMF_MAJOR}.{}, file system {}",
            superblock.omf_minor, superblock.fs_uuid
        ),
    ));
    findings.push(match report.problems.first() {
        None => Finding::ok(
            "contents",
            format!("{} files, {} directories", report.files, report.directories),
        ),
        Some(first) => {
            let count = report.problems.len();
            Finding::failed("contents", format!("{count} problems; the first: {first}"), fsck)
        }
    });
    let (entries, slots) = (report.log.entries, report.log.slots);
    let found = format!("{entries} of {slots} slots used");
    let mend = "copy the files into a new pool with a longer log: famfs export, in the new pool \
                famfs mkfs --entries N and famfs import";
    findings.push(fill("log", entries, slots, found, mend));
    let space = &report.space;
    let found = format!(
        "{} of {} free, {} in one piece",
        human(space.free),
        human(space.capacity),
        human(space.largest_free)
    );
    findings.push(fill(
        "space",
        space.used,
        space.capacity,
        found,
        "remove files, or use a larger pool",
    ));
    Some(contents)
}

fn fill(check: &'static str, used: u64, all: u64, found: String, mend: &str) -> Finding {
    if u128::from(used) * 100 >= u128::from(all) * u128::from(NEARLY_FULL) {
        Finding::warning(check, found, mend)
    } else {
        Finding::ok(check, found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_warning_comes_before_the_end() {
        let status = |used, all| fill("log", used, all, String::new(), "").status;
        assert_eq!((status(89, 100), status(90, 100)), (Status::Ok, Status::Warning));
        assert_eq!(status(u64::MAX, u64::MAX), Status::Warning);
    }
}
