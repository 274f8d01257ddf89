// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is on the media after a crash.
//!
//! A device in memory records every store of at most eight bytes, and every time that a range was
//! made durable. The model of a crash: durable stores arrive; of the others, each cache line has
//! any prefix of its own. Within one write of more than eight bytes the copying routine decides the
//! order of the stores, so they come in either order.

use std::collections::BTreeMap;
use std::sync::Mutex;

use famfs::media::{Media, MediaError};

pub const DEVICE_LEN: u64 = 64 << 20;
const LINE: u64 = 64;

/// Contents by the offset of each eight bytes; missing ones are zero.
pub type Words = BTreeMap<u64, [u8; 8]>;

#[derive(Clone, Debug)]
pub enum Event {
    Store {
        /// Number of the write that it is part of.
        write: usize,
        offset: u64,
        word: [u8; 8],
    },
    Durable {
        start: u64,
        end: u64,
    },
    /// A commit returned: this many files and directories were reported complete.
    Reported(usize),
}

#[derive(Clone, Default)]
pub struct State {
    pub words: Words,
    pub events: Vec<Event>,
}

/// How the real media make data durable.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Cache lines of the named range; file data when a file is finished.
    Mapped,
    /// All of the pool, when the log asks for it.
    PoolFile,
}

pub struct Device {
    pub state: Mutex<State>,
    pub kind: Kind,
}

impl Device {
    pub fn new(words: Words, kind: Kind) -> Self {
        Self { state: Mutex::new(State { words, events: Vec::new() }), kind }
    }

    pub fn note(&self, event: Event) {
        self.state.lock().unwrap().events.push(event);
    }
}

impl Media for Device {
    fn len(&self) -> u64 {
        DEVICE_LEN
    }

    fn origin(&self) -> u64 {
        0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        buf.fill(0);
        let end = offset + buf.len() as u64;
        let state = self.state.lock().unwrap();
        for (&at, word) in state.words.range(offset.saturating_sub(7)..end) {
            for (byte, at) in word.iter().zip(at..) {
                if (offset..end).contains(&at) {
                    buf[usize::try_from(at - offset).unwrap()] = *byte;
                }
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), MediaError> {
        let mut state = self.state.lock().unwrap();
        let write = state.events.len();
        let end = offset + buf.len() as u64;
        let first = offset - offset % 8;
        for start in (first..end).step_by(8) {
            let old = state.words.get(&start).copied();
            let mut word = old.unwrap_or_default();
            for (byte, at) in word.iter_mut().zip(start..) {
                if (offset..end).contains(&at) {
                    *byte = buf[usize::try_from(at - offset).unwrap()];
                }
            }
            if old.is_some() || word != [0; 8] {
                state.words.insert(start, word);
                state.events.push(Event::Store { write, offset: start, word });
            }
        }
        Ok(())
    }

    fn persist(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        let (start, end) = match self.kind {
            Kind::Mapped => (offset - offset % LINE, offset + len),
            Kind::PoolFile => (0, DEVICE_LEN),
        };
        self.note(Event::Durable { start, end });
        Ok(())
    }

    fn refresh(&self, _offset: u64, _len: u64) -> Result<(), MediaError> {
        Ok(())
    }
}

/// The order of the stores of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Forward,
    Backward,
}

pub const FORWARD: Order = Order::Forward;
pub const BACKWARD: Order = Order::Backward;

/// The media after a crash behind the first `cut` events. `keep` returns how many of the stores of
/// a cache line that were not durable have arrived, given the line's rank and their number.
pub fn crash(
    start: &Words,
    events: &[Event],
    cut: usize,
    order: Order,
    mut keep: impl FnMut(usize, usize) -> usize,
) -> Words {
    /// A cache line's stores in order, each with its write, and how many of them are durable.
    type Line = (Vec<(usize, u64, [u8; 8])>, usize);
    let mut lines: BTreeMap<u64, Line> = BTreeMap::new();
    for event in &events[..cut] {
        match event {
            Event::Store { write, offset, word } => {
                let stores = &mut lines.entry(offset / LINE).or_default().0;
                let same = stores.iter().rev().take_while(|store| store.0 == *write).count();
                let at = if order == Order::Backward { stores.len() - same } else { stores.len() };
                stores.insert(at, (*write, *offset, *word));
            }
            Event::Durable { start, end } => {
                for (_, (stores, durable)) in lines.range_mut(start / LINE..end.div_ceil(LINE)) {
                    *durable = stores.len();
                }
            }
            Event::Reported(_) => {}
        }
    }
    let mut words = start.clone();
    for (rank, (stores, durable)) in lines.into_values().enumerate() {
        let arrived = durable + keep(rank, stores.len() - durable);
        words.extend(stores.into_iter().take(arrived).map(|(_, offset, word)| (offset, word)));
    }
    words
}
