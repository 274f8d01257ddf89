// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A tree as text: one line for each name, in order of the paths' bytes.
//!
//! ```text
//! PATH TYPE MODE USER:GROUP SECONDS.NANOSECONDS SAME-AS REST
//! ```
//!
//! A tab is between two fields. REST is `SIZE DIGEST OFFSET-END,..` of a file, the text of a
//! symbolic link, and the device number of a device node. A field without a value is `-`, and the
//! tree's directory is the path `.`; texts that begin so, and all bytes that are not printable, are
//! escaped as `\xNN`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

use crate::contents::hex;
use crate::tree::{Contents, Entry, Kind, Time, Tree};

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, entry) in &self.entries {
            let path = if path.is_empty() { ".".to_owned() } else { escape(path) };
            let letter = match entry.kind {
                Kind::Directory => 'd',
                Kind::File(_) => 'f',
                Kind::Symlink(_) => 'l',
                Kind::Special(letter, _) => letter,
            };
            let same_as = entry.same_as.as_ref().map_or("-".to_owned(), |name| escape(name));
            let Time { seconds, nanoseconds } = entry.time;
            write!(f, "{path}\t{letter}\t{:04o}\t{}:{}", entry.mode, entry.user, entry.group)?;
            write!(f, "\t{seconds}.{nanoseconds:09}\t{same_as}\t")?;
            match &entry.kind {
                Kind::Directory => writeln!(f, "-")?,
                Kind::File(contents) => write_contents(f, contents)?,
                Kind::Symlink(target) => writeln!(f, "{}", escape(target))?,
                Kind::Special(_, device) => writeln!(f, "{device}")?,
            }
        }
        Ok(())
    }
}

fn write_contents(f: &mut fmt::Formatter<'_>, contents: &Contents) -> fmt::Result {
    let ranges: Vec<_> = contents.data.iter().map(|r| format!("{}-{}", r.start, r.end)).collect();
    let ranges = if ranges.is_empty() { "-".to_owned() } else { ranges.join(",") };
    writeln!(f, "{}\t{}\t{ranges}", contents.size, hex(&contents.digest))
}

impl FromStr for Tree {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut tree = Self::default();
        for (line, number) in text.lines().zip(1..) {
            let (path, entry) =
                parse_line(line).with_context(|| format!("manifest, line {number}: {line:?}"))?;
            tree.entries.insert(path, entry);
        }
        ensure!(tree.entries.contains_key(&b""[..]), "a manifest without its first line");
        Ok(tree)
    }
}

fn parse_line(line: &str) -> Result<(Vec<u8>, Entry)> {
    let fields: Vec<_> = line.split('\t').collect();
    let &[path, letter, mode, owner, time, same_as, ref rest @ ..] = &fields[..] else {
        bail!("{} fields, expected 7 or more", fields.len());
    };
    let kind = match (letter, rest) {
        ("d", _) => Kind::Directory,
        ("f", &[size, digest, ranges]) => Kind::File(Contents {
            size: size.parse()?,
            digest: parse_hex(digest)?.as_slice().try_into()?,
            data: parse_ranges(ranges)?,
        }),
        ("l", &[target]) => Kind::Symlink(unescape(target)?),
        (letter, &[device]) => Kind::Special(letter.parse()?, device.parse()?),
        _ => bail!("type {letter} with {} more fields", rest.len()),
    };
    let (user, group) = owner.split_once(':').context("no owner")?;
    let (seconds, nanoseconds) = time.split_once('.').context("no time")?;
    let entry = Entry {
        kind,
        mode: u32::from_str_radix(mode, 8)?,
        user: user.parse()?,
        group: group.parse()?,
        time: Time { seconds: seconds.parse()?, nanoseconds: nanoseconds.parse()? },
        same_as: if same_as == "-" { None } else { Some(unescape(same_as)?) },
    };
    Ok((if path == "." { Vec::new() } else { unescape(path)? }, entry))
}

fn parse_ranges(text: &str) -> Result<Vec<Range<u64>>> {
    if text == "-" {
        return Ok(Vec::new());
    }
    let range = |text: &str| {
        let (start, end) = text.split_once('-').context("a range without `-`")?;
        Ok(start.parse()?..end.parse()?)
    };
    text.split(',').map(range).collect()
}

fn parse_hex(text: &str) -> Result<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?)).collect()
}

/// Printable ASCII without spaces; a first `-` or `.` would be taken for something else.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, byte) in bytes.iter().enumerate() {
        let special = *byte == b'\\' || (number == 0 && matches!(byte, b'-' | b'.'));
        match byte.is_ascii_graphic() && !special {
            true => text.push(char::from(*byte)),
            false => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

fn unescape(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (code, after) = after.split_at_checked(3).context("a cut escape")?;
        bytes.extend(parse_hex(str::from_utf8(&code[1..])?)?);
        rest = after;
    }
    Ok(bytes)
}
