// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds out that nothing on this system uses the memory of removed files any more.
//!
//! The kernel gives a file no memory that another one has, and a removed file has its memory until
//! nobody has it open, mapped or pinned. So a new file that gets that memory is the proof; it is
//! gone again at once.

use std::io;
use std::time::{Duration, Instant};

use crate::format::extension::MAX_PIECES;
use crate::format::map::Extent;

/// Pause after a file was found in use, and the longest one.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(2);

/// How far removed files are known to be unused.
#[derive(Debug, Default)]
pub struct Release {
    /// What the entries below this slot removed is unused.
    proven: u64,
    /// When to try again, and the pause after that, if the next file is in use.
    waits: Option<(Instant, Duration)>,
}

impl Release {
    /// Nothing below this slot removed a file that is in use.
    #[must_use]
    pub fn proven(&self) -> u64 {
        self.proven
    }

    /// Tries to get further, if it is time to. `removed` is the memory of removed files with the
    /// slots that removed them, in order, for the entries below slot `next`. `is_unused` tells
    /// whether nothing uses a number of ranges; it is asked as seldom as can be.
    ///
    /// # Errors
    /// That cannot be found out.
    pub fn advance(
        &mut self,
        removed: &[(u64, Extent)],
        next: u64,
        mut is_unused: impl FnMut(&[Extent]) -> io::Result<bool>,
    ) -> io::Result<()> {
        if self.proven >= next || self.waits.is_some_and(|(again, _)| Instant::now() < again) {
            return Ok(());
        }
        let mut left = &removed[removed.partition_point(|(slot, _)| *slot < self.proven)..];
        let most = usize::try_from(MAX_PIECES).unwrap_or(usize::MAX);
        // One that was in use is looked at alone.
        let mut first = if self.waits.is_some() { 1 } else { most };
        // Among so many ranges is one in use.
        let mut used: Option<usize> = None;
        while let Some((slot, _)) = left.first() {
            self.proven = *slot;
            if used == Some(1) {
                self.wait();
                return Ok(());
            }
            let count = used.map_or(first.min(left.len()), |used| used / 2);
            let ranges: Vec<Extent> = left[..count].iter().map(|(_, extent)| *extent).collect();
            match is_unused(&ranges) {
                Ok(true) => {
                    left = &left[count..];
                    used = used.map(|used| used - count);
                    (self.waits, first) = (None, most);
                }
                Ok(false) => used = Some(count),
                Err(err) => {
                    self.wait();
                    return Err(err);
                }
            }
        }
        self.proven = next;
        Ok(())
    }

    fn wait(&mut self) {
        let pause = self.waits.map_or(PAUSE, |(_, pause)| (pause * 2).min(LONGEST));
        self.waits = Some((Instant::now() + pause, pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(slots: impl Iterator<Item = u64>) -> Vec<(u64, Extent)> {
        slots.map(|slot| (slot, Extent { offset: slot << 12, len: 4096 })).collect()
    }

    /// As the kernel answers if these are in use.
    fn advance(release: &mut Release, removed: &[(u64, Extent)], next: u64, used: &[u64]) -> usize {
        let mut asked = 0;
        release
            .advance(removed, next, |ranges| {
                asked += 1;
                Ok(!ranges.iter().any(|range| used.contains(&(range.offset >> 12))))
            })
            .unwrap();
        asked
    }

    #[test]
    fn it_stops_before_the_first_file_in_use() {
        let removed = files(100..100_100);
        let mut release = Release::default();
        let asked = advance(&mut release, &removed, 200_000, &[70_000, 100_050]);
        assert_eq!(release.proven(), 70_000);
        assert!(asked < 20, "{asked}");
        // Not before the pause is over, and then only that one.
        assert_eq!(advance(&mut release, &removed, 200_000, &[]), 0);
        let (_, pause) = release.waits.unwrap();
        std::thread::sleep(pause);
        assert_eq!(advance(&mut release, &removed, 200_000, &[70_000]), 1);
        assert_eq!(release.waits.unwrap().1, pause * 2);
        std::thread::sleep(pause * 2);
        let asked = advance(&mut release, &removed, 200_000, &[100_050]);
        assert!(asked < 20, "{asked}");
        assert_eq!(release.proven(), 100_050);
        release.waits = None;
        assert_eq!(advance(&mut release, &removed, 200_000, &[]), 1);
        assert_eq!(release.proven(), 200_000);
        assert_eq!(advance(&mut release, &removed, 200_000, &[]), 0, "nothing is new");
    }

    #[test]
    fn all_ranges_of_a_file_count() {
        let mut removed = files([7, 7, 7, 9].into_iter());
        for (n, (_, extent)) in (0..).zip(&mut removed) {
            extent.offset = n << 12;
        }
        let mut release = Release::default();
        for (used, proven) in [(2, 7), (3, 9)] {
            release.waits = None;
            advance(&mut release, &removed, 20, &[used]);
            assert_eq!(release.proven(), proven);
        }
        // What became void is no longer among them; the place stays.
        release.waits = None;
        advance(&mut release, &[], 20, &[]);
        assert_eq!(release.proven(), 20);
    }

    #[test]
    fn what_cannot_be_found_out_is_not_proven() {
        let mut release = Release::default();
        let error = || Err(io::ErrorKind::Unsupported.into());
        release.advance(&files([5].into_iter()), 9, |_| error()).unwrap_err();
        assert_eq!(release.proven(), 5);
        release.advance(&files([5].into_iter()), 9, |_| panic!("too early")).unwrap();
    }
}
