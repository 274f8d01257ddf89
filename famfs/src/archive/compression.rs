// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compressed archives, recognized by their first bytes: gzip, xz and zstd.
//!
//! Libraries do the decoding. They fail on a stream that is cut short or followed by other bytes,
//! and use a bounded amount of memory whatever a stream claims.

use std::io::{self, BufReader, Cursor, Read};

use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use crate::archive::gzip::Members;

/// Highest memory use of an xz decoder: `xz -9` takes 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// Longest window of a zstd decoder, as a power of two: 128 MiB, which is `zstd --long`.
const ZSTD_WINDOW: u32 = 27;
/// Bytes that identify a compression.
const MAGIC: usize = 6;
/// Bytes that are examined to recognize a text. None is shown, because it may be anything.
const TEXT: usize = 512;

/// How the bytes of an archive are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// xz.
    Xz,
    /// zstd (RFC 8878).
    Zstd,
}

impl Compression {
    /// Recognizes it by the first bytes.
    pub fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // A frame, or a frame to skip before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// What was found instead of an archive.
#[derive(Debug, thiserror::Error)]
#[error("it is {0}, expected a tar archive, plain or compressed with gzip, xz or zstd")]
pub struct NoArchive(pub &'static str);

/// Bytes without their compression.
pub struct Decoded<'r> {
    /// How they were compressed.
    pub compression: Compression,
    reader: Box<dyn Read + 'r>,
}

impl<'r> Decoded<'r> {
    /// Reads the first bytes and picks the decoder for them.
    ///
    /// # Errors
    /// The bytes cannot be read.
    pub fn new(mut input: impl Read + 'r) -> io::Result<Self> {
        let mut magic = Vec::with_capacity(MAGIC);
        input.by_ref().take(MAGIC as u64).read_to_end(&mut magic)?;
        let compression = Compression::of(&magic);
        let input = Cursor::new(magic).chain(input);
        let reader: Box<dyn Read + 'r> = match compression {
            Compression::None => Box::new(input),
            Compression::Gzip => Box::new(Members::new(BufReader::new(input))),
            Compression::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
                Box::new(XzDecoder::new_stream(input, stream))
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(input)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Box::new(decoder)
            }
        };
        Ok(Self { compression, reader })
    }

    /// Reads what follows the archive, to check that a compressed stream is complete.
    ///
    /// # Errors
    /// It was cut short, other bytes follow it, or a checksum is wrong.
    pub fn finish(mut self) -> io::Result<()> {
        match self.compression {
            Compression::None => Ok(()),
            _ => io::copy(&mut self.reader, &mut io::sink()).map(drop),
        }
    }
}

impl Read for Decoded<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}

/// What a file that is not an archive seems to be, by its first bytes.
pub fn describe(bytes: &[u8]) -> &'static str {
    let text = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, 7..=13 | 27 | 32..=255));
    match bytes {
        [] => "empty",
        [b'B', b'Z', b'h', ..] => "compressed with bzip2",
        [4, 0x22, 0x4d, 0x18, ..] => "compressed with lz4",
        [b'L', b'Z', b'I', b'P', ..] => "compressed with lzip",
        [0x1f, 0x9d, ..] => "compressed with compress",
        [b'P', b'K', 3 | 5, ..] => "a zip archive",
        [b'7', b'z', 0xbc, 0xaf, ..] => "a 7z archive",
        [b'0', b'7', b'0', b'7', b'0', ..] => "a cpio archive",
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => "an ar archive",
        [0x7f, b'E', b'L', b'F', ..] => "a program or library (ELF)",
        bytes if text(&bytes[..bytes.len().min(TEXT)]) => "text",
        _ => "other data",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn compressed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        match compression {
            Compression::None => bytes.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::stream::encode_all(bytes, 1).unwrap(),
        }
    }

    fn decoded(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut decoded = Decoded::new(bytes)?;
        let mut out = Vec::new();
        decoded.read_to_end(&mut out)?;
        decoded.finish()?;
        Ok(out)
    }

    #[test]
    fn streams_are_whole_or_errors() {
        let plain: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
        for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
            let stream = compressed(compression, &plain);
            assert_eq!(Compression::of(&stream), compression);
            assert!(decoded(&stream).unwrap() == plain, "{compression:?}");
            let twice = [&stream[..], &stream].concat();
            assert!(decoded(&twice).unwrap() == [&plain[..], &plain].concat(), "{compression:?}");
            for len in (MAGIC..stream.len()).step_by(stream.len() / 40) {
                assert!(decoded(&stream[..len]).is_err(), "{compression:?} of {len} bytes");
            }
            assert!(decoded(&stream[..stream.len() - 1]).is_err(), "{compression:?}");
            let garbage = [&stream[..], b"garbage"].concat();
            assert!(decoded(&garbage).is_err(), "{compression:?}");
            let mut damaged = stream.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 0x10;
            assert!(decoded(&damaged).map_or(true, |out| out != plain), "{compression:?}");
        }
        let stream = compressed(Compression::Gzip, &plain);
        let behind = |bytes: &[u8]| decoded(&[&stream[..], bytes].concat());
        assert!(behind(&[0; 20_000]).unwrap() == plain, "tapes end in zeros");
        for bytes in [&b"\0garbage"[..], b"garbage", b"g", b"\0\x1f\x8b"] {
            let error = behind(bytes).unwrap_err().to_string();
            assert!(error.contains("other bytes follow the gzip stream"), "{error}");
        }
        assert_eq!(decoded(b"plain").unwrap(), b"plain");
        assert_eq!(decoded(b"").unwrap(), b"");
    }

    #[test]
    fn what_is_no_archive_is_described_and_never_quoted() {
        for (bytes, expected) in [
            (&b""[..], "empty"),
            (b"line one\nline two\n", "text"),
            (b"PK\x03\x04", "a zip archive"),
            (b"BZh9", "compressed with bzip2"),
            (b"\x7fELF\x02", "a program or library (ELF)"),
            (&[0; 16], "other data"),
        ] {
            assert_eq!(describe(bytes), expected);
        }
    }
}
