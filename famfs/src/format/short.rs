// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bytes of a name or path. Most are short, so they are kept in the value itself: a log has a
//! million of them, and memory of its own would take more than twice as much for each.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// Most bytes that need no memory of their own.
const INLINE: usize = 22;

/// Bytes that do not change.
#[derive(Clone)]
pub struct ShortBytes(Kept);

#[derive(Clone)]
enum Kept {
    Here(u8, [u8; INLINE]),
    Apart(Box<[u8]>),
}

const _: () = assert!(size_of::<Option<ShortBytes>>() == 24);

impl From<&[u8]> for ShortBytes {
    fn from(bytes: &[u8]) -> Self {
        let mut here = [0; INLINE];
        match (here.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(start), Ok(len)) => {
                start.copy_from_slice(bytes);
                Self(Kept::Here(len, here))
            }
            _ => Self(Kept::Apart(bytes.into())),
        }
    }
}

impl Deref for ShortBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kept::Here(len, bytes) => &bytes[..usize::from(*len)],
            Kept::Apart(bytes) => bytes,
        }
    }
}

impl PartialEq for ShortBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ShortBytes {}

impl PartialOrd for ShortBytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShortBytes {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for ShortBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for ShortBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lengths_keep_their_bytes_and_order() {
        let all: Vec<Vec<u8>> = (0..40).map(|len| vec![b'a'; len]).collect();
        for (bytes, next) in all.iter().zip(&all[1..]) {
            let (short, next) = (ShortBytes::from(&bytes[..]), ShortBytes::from(&next[..]));
            assert_eq!(*short, **bytes);
            assert_eq!((short.clone() == short, short < next), (true, true), "{short:?}");
        }
    }
}
