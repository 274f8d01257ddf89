// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Target: unpacking what a guest sends for `vhost-famfs cp`. Input: one byte (bit 0: correct the
//! headers' checksums, bit 1: it must be one file, for standard output), then the stream.
//!
//! Invariants, whether it succeeds or not:
//! * nothing is made outside the two places, and their names are the ones that the host chose;
//! * no more bytes are written than were sent;
//! * memory use follows the stream's bytes, not the sizes that it claims.

use std::ffi::OsString;
use std::fs;

use transfer::place::places;
use transfer::unpack::{unpack, unpack_file};

use crate::archive::seal;
use crate::bounded;

/// Bytes that may be allocated for any stream, however small: buffers, and headers up to a limit.
const ALLOWANCE: usize = 2 << 20;
/// Bytes that may be allocated for each byte of the stream.
const PER_BYTE: usize = 256;

/// Runs the target.
///
/// # Panics
/// When an invariant does not hold, or the system has no temporary directory.
pub fn run(data: &[u8]) {
    let (first, data) = data.split_first().unwrap_or((&0, &[]));
    let mut stream = data.to_vec();
    if first & 1 != 0 {
        seal(&mut stream);
    }
    let limit = ALLOWANCE + PER_BYTE * stream.len();
    let mut copied = 0;
    if first & 2 != 0 {
        let mut out = Vec::new();
        let result =
            bounded(limit, || unpack_file(&stream[..], &mut out, &mut |bytes| copied += bytes));
        assert!(out.len() <= stream.len() && copied == out.len() as u64, "{result:?}");
        return;
    }
    let outer = tempfile::tempdir().expect("no temporary directory");
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).expect("a new directory");
    let names = ["a", "b"].map(OsString::from);
    let found = places(&inner, &names).expect("a directory has room for both");
    let result = bounded(limit, || unpack(&stream[..], &found, &mut |bytes| copied += bytes));
    assert!(copied <= stream.len() as u64, "{copied} bytes: {result:?}");
    let there = |dir| fs::read_dir(dir).expect("it is a directory").flatten();
    for entry in there(outer.path()) {
        assert_eq!(entry.file_name(), "inner", "made outside: {result:?}");
    }
    for entry in there(&inner) {
        assert!(names.contains(&entry.file_name()), "{:?}: {result:?}", entry.file_name());
    }
}
