// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Splits a byte stream into lines of limited length.
//!
//! A line is the unit of resynchronisation: no matter what was lost or left over from an earlier
//! connection, the next line feed starts afresh.

/// Longest accepted line in bytes, without its line feed: enough for one chunk of data in base64
/// and the rest of a message, and for any argument vector that a person types.
pub const MAX_LINE: usize = 128 * 1024;

/// A line is longer than [`MAX_LINE`]. It was dropped up to its line feed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of more than {MAX_LINE} bytes was dropped")]
pub struct TooLong;

/// Collects bytes and returns whole lines.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
    /// Number of bytes at the start of `pending` that are known to contain no line feed.
    searched: usize,
    /// Whether the current line is too long; its bytes are dropped as they arrive.
    dropping: bool,
}

impl Lines {
    /// Adds bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Returns the next whole line, without its line feed. `None` means that more bytes are needed.
    ///
    /// # Errors
    /// [`TooLong`] once for each line over [`MAX_LINE`]; after that, the stream continues.
    pub fn next_line(&mut self) -> Option<Result<Vec<u8>, TooLong>> {
        let end = self.pending[self.searched..].iter().position(|&byte| byte == b'\n');
        let Some(end) = end.map(|offset| self.searched + offset) else {
            self.searched = self.pending.len();
            if self.dropping || self.pending.len() > MAX_LINE {
                self.dropping = true;
                self.pending.clear();
                self.searched = 0;
            }
            return None;
        };
        let mut line: Vec<u8> = self.pending.drain(..=end).collect();
        line.pop();
        self.searched = 0;
        if std::mem::take(&mut self.dropping) || line.len() > MAX_LINE {
            return Some(Err(TooLong));
        }
        Some(Ok(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_however_the_bytes_are_cut() {
        let stream = b"one\n\ntwo three\nrest";
        for size in 1..=stream.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                lines.push(piece);
                while let Some(line) = lines.next_line() {
                    found.push(String::from_utf8(line.unwrap()).unwrap());
                }
            }
            assert_eq!(found, ["one", "", "two three"], "pieces of {size} bytes");
        }
    }

    #[test]
    fn an_overlong_line_is_reported_once_and_the_next_one_is_read() {
        let mut lines = Lines::default();
        for _ in 0..5 {
            lines.push(&vec![b'x'; MAX_LINE]);
            assert_eq!(lines.next_line(), None);
            assert!(lines.pending.len() <= MAX_LINE, "memory is bounded");
        }
        lines.push(b"x\nnext\n");
        assert_eq!(lines.next_line(), Some(Err(TooLong)));
        assert_eq!(lines.next_line(), Some(Ok(b"next".to_vec())));
        assert_eq!(lines.next_line(), None);
    }

    #[test]
    fn the_longest_line_passes() {
        let mut lines = Lines::default();
        lines.push(&[vec![b'x'; MAX_LINE], b"\n".to_vec()].concat());
        assert_eq!(lines.next_line().unwrap().unwrap().len(), MAX_LINE);
    }
}
