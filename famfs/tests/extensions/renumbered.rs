// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Log entries that move into other slots while others follow the log: nobody sees a mixture, and
//! no mount makes, loses or takes anything for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use famfs::format::EntryKind;
use famfs::format::LOG_OFFSET;
use famfs::format::renumbering::{RENUMBERING_OFFSET, Renumbering};
use famfs::kernel::apply::Applied;
use famfs::kernel::player::{Player, Task};
use famfs::media::{Media, MediaError};
use famfs::replay::reclaim::{reclaim, renumber};
use famfs::replay::{Contents, Plan, fsck, read_undisturbed};
use famfs::store::log::Log;
use famfs::store::numbering::numbering;
use famfs::store::superblock::Superblock;
use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use crate::compaction::Crashing;
use crate::log::{DEVICE_LEN, ExtendedLog, dir, file, group, removal, symlink};
use crate::mounted::{Mount, follows, player};
use crate::sample::{Prepared, ROOT, paths, piece, prepared};

/// Entries, with void ones at the start, in the middle and at the end.
struct Sample {
    log: ExtendedLog,
    /// What there is.
    paths: Vec<String>,
}

impl Sample {
    fn new() -> Self {
        let Prepared { mut log, store, plain, inner, file: f, link, .. } = prepared();
        for n in 0..6_u8 {
            let gone = log.name(&file(inner, &[b'a' + n], 4096, &[piece(store, 20, 0, 1)]));
            log.name(&dir(inner, &[b'A' + n]));
            log.push(EntryKind::Remove, removal(gone).as_bytes());
        }
        log.push(EntryKind::Remove, removal(plain).as_bytes());
        log.push(EntryKind::Remove, removal(f).as_bytes());
        log.push(EntryKind::Remove, removal(link).as_bytes());
        reclaim(&log.media, u64::MAX, 0, || true).unwrap();
        assert!(log.contents().plan.voids().len() > 15);
        let paths = paths(&log.contents().plan);
        Self { log, paths }
    }

    /// A mount that shows the first entries, and its player.
    fn mount(&self, entries: u64) -> (Mount, Player) {
        let (mount, media) = (Mount::new(), Crashing::new(&self.log, u64::MAX));
        for offset in [32, 40] {
            media.write_at(LOG_OFFSET + offset, &entries.to_le_bytes()).unwrap();
        }
        let contents = Contents::read(&media).unwrap();
        let mut player = player(&contents);
        mount.play(&mut player, &contents, Task::default()).unwrap();
        drop(contents);
        (mount, player)
    }
}

/// Goes on with what was interrupted, and appends a name.
fn end_and_append(media: &dyn Media, log_len: u64) {
    let mut log = Log::open(media, log_len).unwrap();
    log.prepare_append().unwrap();
    let body = symlink(ROOT, b"new", b"x");
    log.append(&[(EntryKind::Name as u32, body.as_bytes().try_into().unwrap())]).unwrap();
}

/// Plays, again if entries moved meanwhile.
fn play(mount: &Mount, player: &mut Player, media: &dyn Media) -> (Applied, Vec<String>) {
    loop {
        let contents = Contents::read(media).unwrap();
        match mount.play(player, &contents, Task::default()) {
            Err(error) if error.is_overtaken() => {}
            played => return played.unwrap(),
        }
    }
}

fn made_nothing((applied, appeared): &(Applied, Vec<String>)) {
    let Applied { removed, moved, existed, errors, .. } = applied;
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!((appeared.len(), *removed, *moved, *existed), (0, 0, 0, 0), "{appeared:?}");
}

#[test]
fn every_crash_is_followed() {
    let sample = Sample::new();
    let Sample { log, paths: expected, .. } = &sample;
    for stores in 0.. {
        let media = Crashing::new(log, stores);
        let (all, mut follower) = sample.mount(log.next);
        let (behind, mut late) = sample.mount(log.next - 5);
        let done = renumber(&media, || true);
        let contents = Contents::read(&media).unwrap();
        assert_eq!(fsck::check(&media, &contents).problems, Vec::<String>::new());
        assert_eq!(&paths(&contents.plan), expected);
        made_nothing(&play(&all, &mut follower, &media));
        play(&behind, &mut late, &media);
        let fresh = Mount::new();
        fresh.play_all(&contents, Task::default());
        drop(contents);
        media.go_on();
        end_and_append(&media, log.log_len);
        let contents = Contents::read(&media).unwrap();
        let played = play(&all, &mut follower, &media);
        assert_eq!((played.1, played.0.removed, played.0.existed), (vec!["new".to_owned()], 0, 0));
        play(&behind, &mut late, &media);
        fresh.play_all(&contents, Task::default());
        for mount in [&all, &behind, &fresh] {
            follows(mount, &contents.plan);
        }
        // A command that knows nothing but the note.
        made_nothing(&play(&all, &mut player(&contents), &media));
        if done.is_ok() {
            return;
        }
    }
}

/// Two moves, and entries behind them, between two looks.
#[test]
fn what_was_missed_is_made_up_for() {
    let mut sample = Sample::new();
    let (mount, mut follower) = sample.mount(sample.log.next);
    for _ in 0..2 {
        assert!(renumber(&sample.log.media, || true).unwrap() > 0);
        let contents = sample.log.contents();
        let next = contents.log.published();
        drop(contents);
        sample.log.next = next;
        let gone = sample.log.name(&dir(ROOT, b"gone"));
        sample.log.push(EntryKind::Remove, removal(gone).as_bytes());
        sample.log.name(&dir(ROOT, format!("new{next}").as_bytes()));
        reclaim(&sample.log.media, u64::MAX, numbering(&sample.log.media).unwrap(), || true)
            .unwrap();
    }
    let (applied, appeared) = play(&mount, &mut follower, &sample.log.media);
    assert_eq!((appeared.len(), applied.errors.len()), (2, 0), "{appeared:?}");
    follows(&mount, &sample.log.contents().plan);
}

/// Who has begun to read, or has published, keeps the entries where they are.
#[test]
fn newcomers_keep_entries_in_their_slots() {
    let sample = Sample::new();
    let (mount, mut follower) = sample.mount(sample.log.next);
    let before = sample.log.contents().log.published();
    assert_eq!(renumber(&sample.log.media, || false).unwrap(), 0);
    let body = symlink(ROOT, b"new", b"x");
    let published = || {
        // Somebody who did not notice that the right to write is lost.
        let at = LOG_OFFSET;
        let mut magic = [0; 8];
        sample.log.media.read_at(at, &mut magic).unwrap();
        sample.log.media.write_at(at, &famfs::format::LOG_MAGIC.to_le_bytes()).unwrap();
        let mut log = Log::open(&sample.log.media, sample.log.log_len).unwrap();
        log.append(&[(EntryKind::Name as u32, body.as_bytes().try_into().unwrap())]).unwrap();
        sample.log.media.write_at(at, &magic).unwrap();
        true
    };
    let contents = sample.log.contents();
    assert_eq!((contents.log.published(), contents.log.is_moving()), (before, false));
    made_nothing(&play(&mount, &mut follower, &sample.log.media));
    assert_eq!(renumber(&sample.log.media, published).unwrap(), 0);
    assert_eq!(play(&mount, &mut follower, &sample.log.media).1, ["new"]);
    follows(&mount, &sample.log.contents().plan);
}

/// The same, but whoever moves them is killed before it looks.
#[test]
fn what_was_published_before_a_kill_is_not_moved_over() {
    let sample = Sample::new();
    let media = &sample.log.media;
    let before = sample.log.contents().log.published();
    let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        renumber(media, || {
            // Entries and both counters, as one who does not notice leaves them.
            let mut header = [0; 48];
            media.read_at(LOG_OFFSET, &mut header).unwrap();
            media.write_at(LOG_OFFSET, &famfs::format::LOG_MAGIC.to_le_bytes()).unwrap();
            end_and_append(media, sample.log.log_len);
            media.write_at(LOG_OFFSET, &header[..8]).unwrap();
            panic!("killed");
        })
    }));
    assert!(killed.is_err());
    let mut log = Log::open(media, sample.log.log_len).unwrap();
    assert!(log.is_moving());
    log.prepare_append().unwrap();
    assert_eq!((log.published(), log.is_moving()), (before + 1, false));
    drop(log);
    let contents = sample.log.contents();
    assert_eq!(fsck::check(media, &contents).problems, Vec::<String>::new());
    let there = paths(&contents.plan);
    assert!(there.iter().any(|path| path.starts_with("new")), "{there:?}");
}

/// The head of a group counts the entries behind it: it goes if one of them is void.
#[test]
fn a_group_with_a_void_entry_is_none() {
    for void in [1, 2] {
        let mut sample = Sample::new();
        let log = &mut sample.log;
        let head = log.push(EntryKind::Group, group(2).as_bytes());
        for name in [b"g", b"h"] {
            log.name(&dir(ROOT, name));
        }
        log.push(EntryKind::Group, group(2).as_bytes());
        for name in [b"i", b"j"] {
            log.name(&dir(ROOT, name));
        }
        let media = &sample.log.media;
        Log::open(media, sample.log.log_len).unwrap().void(head + void).unwrap();
        assert!(renumber(media, || true).unwrap() > 0);
        let contents = sample.log.contents();
        assert_eq!(fsck::check(media, &contents).problems, Vec::<String>::new());
        let there = paths(&contents.plan);
        let names =
            ["g", "h", "i", "j"].map(|name| there.iter().any(|path| path.starts_with(name)));
        let mut expected = [true; 4];
        expected[usize::try_from(void).unwrap() - 1] = false;
        assert_eq!(names, expected, "{there:?}");
    }
}

/// Generations only go up; at their end nothing moves any more.
#[test]
fn the_last_generation_is_no_trap() {
    let sample = Sample::new();
    let media = &sample.log.media;
    let mut record = Renumbering::new_zeroed();
    record.generation = U64::new(u64::MAX - 1);
    media.write_at(RENUMBERING_OFFSET, record.sealed().as_bytes()).unwrap();
    assert_eq!(renumber(media, || true).unwrap(), 0);
    let contents = sample.log.contents();
    assert_eq!(paths(&contents.plan), sample.paths);
    assert!(!contents.log.is_moving());
}

/// A file system that grows after its superblock was read: what is in the new part counts.
#[test]
fn the_size_is_read_after_the_entries() {
    let sample = Sample::new();
    let media = &sample.log.media;
    let mut superblock = Superblock::read(media).unwrap();
    let whole = superblock.area_now(media).unwrap();
    superblock.dev_size -= 4 << 20;
    let (_, _, area) = read_undisturbed(media, &superblock, true).unwrap();
    assert_eq!((area.start, area.end), (whole.start, whole.end));
    assert!(superblock.data_area(media.len()).end < whole.end);
}

#[test]
fn a_log_that_begins_anew_is_another_one() {
    let sample = Sample::new();
    let (mount, mut follower) = sample.mount(sample.log.next);
    renumber(&sample.log.media, || true).unwrap();
    play(&mount, &mut follower, &sample.log.media);
    let other = Sample::new();
    let contents = other.log.contents();
    assert!(mount.play(&mut follower, &contents, Task::default()).is_err());
}

/// Lets one thread write only when another one is between two reads.
#[derive(Default)]
struct Turns {
    /// Stores that may be done, and whether the writer has ended.
    state: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Turns {
    fn grant(&self, stores: u64) {
        let mut state = self.state.lock().unwrap();
        state.0 = stores;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(left, ended)| *left > 0 && !*ended).unwrap());
    }

    fn take(&self) {
        let state = self.state.lock().unwrap();
        let mut state = self.changed.wait_while(state, |(left, _)| *left == 0).unwrap();
        state.0 -= 1;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// The media of who moves entries.
struct Mover<'m>(&'m Crashing, &'m Turns);

impl Media for Mover<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn origin(&self) -> u64 {
        0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), MediaError> {
        let part = (buf.len() / 2).next_multiple_of(8).max(8);
        for (n, part) in buf.chunks(part).enumerate() {
            self.1.take();
            self.0.write_at(offset + (n * part.len()) as u64, part)?;
        }
        Ok(())
    }

    fn persist(&self, _: u64, _: u64) -> Result<(), MediaError> {
        Ok(())
    }

    fn refresh(&self, _: u64, _: u64) -> Result<(), MediaError> {
        Ok(())
    }
}

/// The media of who reads: before one of its reads, some stores are done.
struct Reader<'m> {
    media: &'m Crashing,
    turns: &'m Turns,
    left: AtomicU64,
    stores: u64,
}

impl Media for Reader<'_> {
    fn len(&self) -> u64 {
        DEVICE_LEN
    }

    fn origin(&self) -> u64 {
        0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        // The entries come in parts.
        for (n, part) in buf.chunks_mut(4 * 544).enumerate() {
            match self.left.fetch_sub(1, Ordering::Relaxed) {
                0 => self.left.store(0, Ordering::Relaxed),
                1 => self.turns.grant(self.stores),
                _ => {}
            }
            self.media.read_at(offset + (n * 4 * 544) as u64, part)?;
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<(), MediaError> {
        unreachable!("a reader")
    }

    fn persist(&self, _: u64, _: u64) -> Result<(), MediaError> {
        Ok(())
    }

    fn refresh(&self, _: u64, _: u64) -> Result<(), MediaError> {
        Ok(())
    }
}

/// Has something read while entries move: any number of stores come before any of its reads.
fn at_every_read(sample: &Sample, read: impl Fn(&dyn Media) -> bool) {
    for at in 1.. {
        let mut reached = false;
        for stores in 1..40 {
            let (media, turns) = (Crashing::new(&sample.log, u64::MAX), Turns::default());
            let reader = Reader { media: &media, turns: &turns, left: at.into(), stores };
            let ended = std::thread::scope(|scope| {
                let mover = scope.spawn(|| {
                    renumber(&Mover(&media, &turns), || true).unwrap();
                    turns.end();
                });
                let right = read(&reader);
                reached |= reader.left.load(Ordering::Relaxed) == 0;
                let ended = turns.state.lock().unwrap().1;
                turns.grant(u64::MAX);
                mover.join().unwrap();
                assert!(right, "{stores} stores before read {at}");
                ended
            });
            if ended {
                break;
            }
        }
        if !reached {
            return;
        }
    }
}

#[test]
fn no_reader_sees_a_mixture() {
    let sample = Sample::new();
    at_every_read(&sample, |media| paths(&Contents::read(media).unwrap().plan) == sample.paths);
}

#[test]
fn no_follower_makes_anything_of_a_mixture() {
    let sample = Sample::new();
    let whole = |plan: &Plan| paths(plan) == sample.paths;
    at_every_read(&sample, |media| {
        let (mount, mut follower) = sample.mount(sample.log.next - 7);
        play(&mount, &mut follower, media);
        let contents = Contents::read(media).unwrap();
        // While entries move, one that is behind waits.
        let shown = mount.list(&contents.plan) == crate::mounted::expected(&contents.plan);
        whole(&contents.plan) && (shown || contents.log.is_moving())
    });
}
