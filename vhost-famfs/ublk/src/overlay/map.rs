// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records which sectors are in the overlay, with one bit per sector.

use std::ops::Range;

use super::format::PAGE;

/// Bits per word.
const WORD: u64 = 64;

/// One bit for each sector of a device. Untouched parts take no memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    words: Vec<u64>,
}

/// Consecutive sectors that are either all in the map or all not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Whether they are in the map.
    pub present: bool,
    /// The first sector.
    pub start: u64,
    /// The sector after the last.
    pub end: u64,
}

fn index(number: u64) -> usize {
    // A map is at most 1 GiB long.
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The bits of word `word` for `sectors`.
fn mask(word: u64, sectors: &Range<u64>) -> u64 {
    let first = sectors.start.saturating_sub(word * WORD).min(WORD);
    let end = sectors.end.saturating_sub(word * WORD).min(WORD);
    let below = |bit: u64| if bit == WORD { u64::MAX } else { (1 << bit) - 1 };
    below(end) & !below(first)
}

impl Map {
    /// An empty map of `len` bytes.
    pub fn new(len: u64) -> Self {
        Self { words: vec![0; index(len / 8)] }
    }

    /// Adds the bits of a stored part of a map, which begins `offset` bytes from the map's start, a
    /// multiple of 8.
    pub fn add(&mut self, offset: u64, bytes: &[u8]) {
        let words = self.words.iter_mut().skip(index(offset / 8));
        for (word, bytes) in words.zip(bytes.as_chunks::<8>().0) {
            let stored = u64::from_le_bytes(*bytes);
            // Memory for empty parts stays untouched.
            if stored != 0 {
                *word |= stored;
            }
        }
    }

    /// The words that contain `sectors`, with all bits of `sectors` set: their byte offset in the
    /// stored map, and the bytes to store.
    pub fn with(&self, sectors: &Range<u64>) -> (u64, Vec<u8>) {
        let words = Self::words_of(sectors);
        let bytes = words.clone().flat_map(|word| {
            let value = self.words.get(index(word)).copied().unwrap_or(0);
            (value | mask(word, sectors)).to_le_bytes()
        });
        (words.start * 8, bytes.collect())
    }

    /// Sets the bits of `sectors`.
    pub fn set(&mut self, sectors: &Range<u64>) {
        for word in Self::words_of(sectors) {
            if let Some(value) = self.words.get_mut(index(word)) {
                *value |= mask(word, sectors);
            }
        }
    }

    fn words_of(sectors: &Range<u64>) -> Range<u64> {
        sectors.start / WORD..sectors.end.div_ceil(WORD)
    }

    /// Whether all of `sectors` are in the map.
    pub fn has_all(&self, sectors: &Range<u64>) -> bool {
        Self::words_of(sectors).all(|word| {
            let mask = mask(word, sectors);
            self.words.get(index(word)).is_some_and(|value| value & mask == mask)
        })
    }

    /// The longest run from `start` on, up to `end`.
    pub fn run(&self, start: u64, end: u64) -> Run {
        let word = |number: u64| self.words.get(index(number)).copied().unwrap_or(0);
        let present = word(start / WORD) >> (start % WORD) & 1 == 1;
        let mut at = start;
        while at < end {
            let value = word(at / WORD);
            let differs = if present { !value } else { value } >> (at % WORD);
            if differs != 0 {
                at += u64::from(differs.trailing_zeros());
                break;
            }
            at = (at / WORD + 1) * WORD;
        }
        Run { present, start, end: at.min(end) }
    }

    /// The runs that make up `sectors`, in order.
    pub fn runs(&self, sectors: Range<u64>) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut at = sectors.start;
        while at < sectors.end {
            let run = self.run(at, sectors.end);
            at = run.end;
            runs.push(run);
        }
        runs
    }

    /// Page `number` of the map in its stored form.
    pub fn page(&self, number: u64) -> Vec<u8> {
        let first = index(number) * (PAGE / 8);
        self.words.iter().skip(first).take(PAGE / 8).flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The pages of the map that contain the bits of `sectors`.
    pub fn pages_of(sectors: &Range<u64>) -> Range<u64> {
        let page = PAGE as u64 * 8;
        sectors.start / page..sectors.end.div_ceil(page)
    }

    /// The pages in which this map and another one of the same length differ.
    pub fn differing_pages(&self, other: &Self) -> Vec<u64> {
        let (ours, theirs) = (self.words.chunks(PAGE / 8), other.words.chunks(PAGE / 8));
        let pairs = (0_u64..).zip(ours.zip(theirs));
        pairs.filter(|(_, (a, b))| a != b).map(|(number, _)| number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 8192;

    fn count(map: &Map) -> u64 {
        map.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    #[test]
    fn runs_are_what_was_set() {
        let mut map = Map::new(LEN);
        map.set(&(3..70));
        map.set(&(128..129));
        let run = |present, start, end| Run { present, start, end };
        let expected = [
            run(false, 0, 3),
            run(true, 3, 70),
            run(false, 70, 128),
            run(true, 128, 129),
            run(false, 129, 200),
        ];
        assert_eq!(map.runs(0..200), expected);
        assert_eq!(map.runs(10..20), [run(true, 10, 20)]);
        assert_eq!(map.runs(63..65), [run(true, 63, 65)]);
        assert_eq!(map.runs(70..70), []);
        assert_eq!(count(&map), 68);
    }

    #[test]
    fn ranges_of_every_place_and_length() {
        for start in 0..130 {
            for end in start + 1..=200 {
                let mut map = Map::new(LEN);
                map.set(&(start..end));
                assert_eq!(count(&map), end - start, "{start}..{end}");
                assert!(map.has_all(&(start..end)));
                assert!(!map.has_all(&(start..end + 1)));
                assert_eq!(map.runs(start..end).len(), 1);
            }
        }
    }

    #[test]
    fn a_stored_map_is_read_back() {
        let mut map = Map::new(LEN);
        map.set(&(5..40_000));
        let mut read = Map::new(LEN);
        for number in 0..2 {
            read.add(number * 4096, &map.page(number));
        }
        assert_eq!(read, map);
        assert_eq!(map.differing_pages(&Map::new(LEN)), [0, 1]);
        assert_eq!(Map::pages_of(&(32_767..32_769)), 0..2);
        assert_eq!(Map::pages_of(&(32_768..32_769)), 1..2);
    }

    #[test]
    fn what_would_be_stored_is_what_is_set() {
        let mut map = Map::new(LEN);
        map.set(&(0..3));
        let (offset, bytes) = map.with(&(60..70));
        map.set(&(60..70));
        assert_eq!((offset, &bytes[..]), (0, &map.page(0)[..16]));
    }
}
