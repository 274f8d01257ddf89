// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The pieces of an extended file: which pages of which file entry hold which pages of it.

use zerocopy::little_endian::U64;

use crate::format::extension::{NO_ENTRY, PAGE, RawPiece};

/// A piece of a file, in pages of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Slot of the file entry that holds the bytes.
    pub slot: u64,
    /// First page of that entry's file.
    pub page: u64,
    /// First page of the file that the piece belongs to.
    pub at: u64,
    /// Number of pages, not zero.
    pub pages: u64,
}

/// Why pieces cannot be a file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    /// A piece without pages, or with more than there are numbers for.
    #[error("piece {index} has {pages} pages from page {page} on, expected at least 1")]
    Length {
        /// Index of the piece.
        index: usize,
        /// First page in the file entry.
        page: u64,
        /// Number of pages.
        pages: u64,
    },
    /// The pieces do not follow each other.
    #[error("piece {index} is at page {at} of the file, expected page {expected} or behind it")]
    Order {
        /// Index of the piece.
        index: usize,
        /// Where it is.
        at: u64,
        /// The first page behind the piece before.
        expected: u64,
    },
    /// A piece behind the end of the file.
    #[error("piece {index} ends at page {end} of the file, which has only {pages}")]
    PastEnd {
        /// Index of the piece.
        index: usize,
        /// First page behind the piece.
        end: u64,
        /// Pages of the file.
        pages: u64,
    },
}

impl Piece {
    /// Checks the pieces of a file of `size` bytes against each other.
    pub fn parse_all(raw: &[RawPiece], size: u64) -> Result<Box<[Self]>, PieceError> {
        let file_pages = size.div_ceil(PAGE);
        let mut expected = 0;
        let mut pieces = Vec::with_capacity(raw.len());
        for (index, raw) in raw.iter().enumerate() {
            let (slot, page) = (raw.slot.get(), raw.page.get());
            let (at, pages) = (raw.at.get(), raw.pages.get());
            if pages == 0 || page.checked_add(pages).is_none() || slot == NO_ENTRY {
                return Err(PieceError::Length { index, page, pages });
            }
            if at < expected {
                return Err(PieceError::Order { index, at, expected });
            }
            let end = at.saturating_add(pages);
            if end > file_pages {
                return Err(PieceError::PastEnd { index, end, pages: file_pages });
            }
            expected = end;
            pieces.push(Self { slot, page, at, pages });
        }
        Ok(pieces.into())
    }

    /// The piece as an entry or a list holds it.
    pub fn to_raw(self) -> RawPiece {
        RawPiece {
            slot: U64::new(self.slot),
            page: U64::new(self.page),
            at: U64::new(self.at),
            pages: U64::new(self.pages),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_each_other_within_the_file() {
        let piece = |page, at, pages| Piece { slot: 7, page, at, pages };
        for (pieces, size, message) in [
            (vec![], 0, ""),
            (vec![], 1 << 40, ""),
            (vec![piece(3, 0, 1), piece(2, 1, 1), piece(9, 5, 2)], 7 * PAGE, ""),
            (vec![piece(3, 0, 1)], 1, ""),
            (vec![piece(3, 0, 0)], 1, "piece 0 has 0 pages from page 3 on, expected at least 1"),
            (
                vec![piece(u64::MAX, 0, 1)],
                1,
                "piece 0 has 1 pages from page 18446744073709551615 on, expected at least 1",
            ),
            (
                vec![piece(0, 0, 2), piece(4, 1, 1)],
                3 * PAGE,
                "piece 1 is at page 1 of the file, expected page 2 or behind it",
            ),
            (
                vec![piece(0, 1, 2)],
                PAGE + 1,
                "piece 0 ends at page 3 of the file, which has only 2",
            ),
            (
                vec![piece(0, u64::MAX, 2)],
                1,
                "piece 0 ends at page 18446744073709551615 of the file, which has only 1",
            ),
        ] {
            let raw: Vec<RawPiece> = pieces.iter().map(|piece| piece.to_raw()).collect();
            match Piece::parse_all(&raw, size) {
                Ok(parsed) => assert_eq!((&*parsed, ""), (&*pieces, message)),
                Err(error) => assert_eq!(error.to_string(), message),
            }
        }
    }
}
