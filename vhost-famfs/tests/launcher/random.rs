// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random numbers for tests that kill programs at some moment. A seed in the environment repeats
//! them.

use std::time::{SystemTime, UNIX_EPOCH};

use famfs::write::prng::SeededBytes;

const SEED: &str = "VHOST_FAMFS_SEED";

/// The seed of the environment, or a new one; prints it.
pub fn seed() -> u32 {
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED}={text}: not a 32-bit number")),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos(),
    };
    println!("# {SEED}={seed}");
    seed
}

/// A sequence of numbers.
pub struct Random(SeededBytes);

impl Random {
    pub fn new(seed: u32) -> Self {
        Self(SeededBytes::new(seed))
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u32) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) % end
    }
}
