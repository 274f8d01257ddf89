// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Groups of entries that count together.

use famfs::format::{EntryKind, slot_offset};
use famfs::media::Media;
use famfs::replay::fsck;
use famfs::text::error_report::one_line;
use zerocopy::IntoBytes;

use crate::log::{DEVICE_LEN, ExtendedLog, dir, group, moved};
use crate::sample::{ROOT, paths, refused};

/// A group counts as a whole or not at all, wherever the log ends.
#[test]
fn groups_are_whole() {
    let mut log = ExtendedLog::new(true);
    let a = log.name(&dir(ROOT, b"a"));
    let head = log.push(EntryKind::Group, group(4).as_bytes());
    log.name(&dir(a, b"b"));
    log.push(EntryKind::Move, moved(a, ROOT, b"c", None).as_bytes());
    let nested = log.push(EntryKind::Group, group(50).as_bytes());
    log.mkdir("d");
    log.name(&dir(ROOT, b"e"));
    let (before, after) = (vec!["a/"], vec!["c/", "c/b/", "d/"]);
    for cut in 1..=log.next {
        log.cut(cut);
        let contents = log.contents();
        let plan = &contents.plan;
        match cut {
            1 => assert!(plan.stopped.is_none()),
            2..6 => {
                assert_eq!(
                    one_line(plan.stopped.as_ref().unwrap()),
                    format!(
                        "log slot {head} at {:#x}: 4 entries belong together, but only {} of them \
                         are published",
                        slot_offset(head),
                        cut - 2
                    )
                );
                assert_eq!(
                    (paths(plan), plan.next_slot()),
                    (before.clone().into_iter().map(String::from).collect(), head)
                );
                assert_eq!(fsck::check(&log.media, &contents).problems.len(), 1);
            }
            _ => {
                assert!(plan.stopped.is_none());
                assert_eq!(refused(plan), [(nested, "a group within a group".to_owned())]);
                assert_eq!(paths(plan)[..3], after);
            }
        }
    }
    // A reader that goes on finds the group as soon as it is whole.
    log.cut(4);
    let contents = log.contents();
    let mut plan = contents.plan;
    log.cut(6);
    let now = log.contents();
    plan.read_on(&now.log, now.superblock.data_area(DEVICE_LEN));
    assert_eq!(paths(&plan), after);
    // Damage in the middle hides all of it.
    log.cut(log.next);
    log.media.write_at(slot_offset(nested + 1) + 100, &[1]).unwrap();
    let contents = log.contents();
    assert_eq!(paths(&contents.plan), before);
    assert!(one_line(&contents.plan.stopped.unwrap()).starts_with("log slot 5 at "));
    // A count that no log has.
    log.cut(1);
    log.next = 1;
    log.push(EntryKind::Group, group(u64::MAX).as_bytes());
    assert!(log.contents().plan.stopped.is_some());
}
