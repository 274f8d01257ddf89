// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Streams of gzip (RFC 1952): members one after the other, and zeros behind them.

use std::io::{self, BufRead, Read};
use std::mem;

use flate2::bufread::GzDecoder;

/// First byte of a member.
const MAGIC: u8 = 0x1f;

/// The bytes of all members of a stream.
pub(super) struct Members<R> {
    state: State<R>,
}

enum State<R> {
    Member(GzDecoder<R>),
    /// Behind a member; true after zeros, which only end a stream.
    Behind(R, bool),
    End,
}

impl<R: BufRead> Members<R> {
    /// Begins at the first member.
    pub fn new(reader: R) -> Self {
        Self { state: State::Member(GzDecoder::new(reader)) }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.state {
                State::Member(decoder) => {
                    let len = decoder.read(buf)?;
                    if len > 0 || buf.is_empty() {
                        return Ok(len);
                    }
                }
                State::Behind(reader, zeros) => match reader.fill_buf()? {
                    [] => self.state = State::End,
                    [MAGIC, ..] if !*zeros => {}
                    bytes @ [0, ..] => {
                        let len = bytes.iter().take_while(|&&byte| byte == 0).count();
                        reader.consume(len);
                        *zeros = true;
                        continue;
                    }
                    _ => return Err(io::Error::other("other bytes follow the gzip stream")),
                },
                State::End => return Ok(0),
            }
            self.state = match mem::replace(&mut self.state, State::End) {
                State::Member(decoder) => State::Behind(decoder.into_inner(), false),
                State::Behind(reader, _) => State::Member(GzDecoder::new(reader)),
                State::End => State::End,
            };
        }
    }
}
