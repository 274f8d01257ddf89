// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Test data that can be reproduced from a seed: what `creat --seed` writes and `verify --seed`
//! expects. It is the same stream as that of the reference tools: xoroshiro128+ with the constants
//! 55, 14, 36, its state filled by splitmix64; four bytes per step, the low half of the output.

/// A stream of bytes that depends only on its seed.
#[derive(Clone, Debug)]
pub struct SeededBytes {
    state: [u64; 2],
}

impl SeededBytes {
    /// The stream of `seed`.
    pub fn new(seed: u32) -> Self {
        let mut counter = u64::from(seed);
        Self { state: [splitmix64(&mut counter), splitmix64(&mut counter)] }
    }

    /// The next bytes of the stream. All calls but the last must ask for a multiple of four.
    pub fn fill(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(4) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    fn next(&mut self) -> u64 {
        let [first, mut second] = self.state;
        let output = first.wrapping_add(second);
        second ^= first;
        self.state = [first.rotate_left(55) ^ second ^ (second << 14), second.rotate_left(36)];
        output
    }
}

fn splitmix64(counter: &mut u64) -> u64 {
    *counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *counter;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by the reference's `creat` with this seed and a size that four does not divide.
    const SEED_1: &[u8; 71] = include_bytes!("../../tests/vectors/prng-seed-1.bin");
    const SEED_42: &[u8; 71] = include_bytes!("../../tests/vectors/prng-seed-42.bin");

    #[test]
    fn stream_equals_the_reference() {
        for (seed, expected) in [(1, SEED_1), (42, SEED_42)] {
            let mut bytes = [0; 71];
            SeededBytes::new(seed).fill(&mut bytes);
            assert_eq!(&bytes, expected, "seed {seed}");
        }
    }

    #[test]
    fn stream_does_not_depend_on_the_calls() {
        let mut whole = [0; 64];
        SeededBytes::new(7).fill(&mut whole);
        let mut parts = [0; 64];
        let mut stream = SeededBytes::new(7);
        let (head, tail) = parts.split_at_mut(20);
        stream.fill(head);
        stream.fill(tail);
        assert_eq!(whole, parts);
    }
}
