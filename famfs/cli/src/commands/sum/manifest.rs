// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The list format of sha256sum(1): sum, two spaces, name. A name with a backslash or a line
//! break is escaped, and its line starts with a backslash. The line of a symbolic link, with the
//! sum of its target's text, stands behind a mark that makes it a comment for sha256sum(1).

use anyhow::{Context, Result, bail};

/// Characters of a SHA-256 sum.
const SUM_LEN: usize = 64;

/// The mark of a symbolic link.
const SYMLINK: &[u8] = b"#symlink ";

/// What a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// A line of a list.
pub struct Line {
    /// What it is for.
    pub kind: Kind,
    /// The sum, in lower-case hexadecimal; `None` if there is nothing to compare with.
    pub sha256: Option<String>,
    /// The file's name.
    pub name: Vec<u8>,
}

impl Line {
    /// A line whose sum is unknown.
    pub fn of_name(kind: Kind, name: Vec<u8>) -> Self {
        Self { kind, sha256: None, name }
    }
}

/// The line of a file or symbolic link.
pub fn format(kind: Kind, sha256: &str, name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for &byte in name {
        match byte {
            b'\\' => escaped.extend(b"\\\\"),
            b'\n' => escaped.extend(b"\\n"),
            b'\r' => escaped.extend(b"\\r"),
            byte => escaped.push(byte),
        }
    }
    let mark: &[u8] = if escaped.len() == name.len() { b"" } else { b"\\" };
    let comment = if kind == Kind::Symlink { SYMLINK } else { b"" };
    [comment, mark, sha256.as_bytes(), b"  ", &escaped, b"\n"].concat()
}

/// Reads a list. Other comments are skipped, as sha256sum(1) does.
pub fn parse(list: &[u8]) -> Result<Vec<Line>> {
    let lines = list.split(|&b| b == b'\n').enumerate().filter(|(_, line)| {
        let is_comment = line.starts_with(b"#") && !line.starts_with(SYMLINK);
        !line.is_empty() && !is_comment
    });
    lines.map(|(at, line)| parse_line(line).with_context(|| format!("line {}", at + 1))).collect()
}

fn parse_line(line: &[u8]) -> Result<Line> {
    let (kind, line) = match line.strip_prefix(SYMLINK) {
        Some(rest) => (Kind::Symlink, rest),
        None => (Kind::File, line),
    };
    let (escaped, line) = match line.strip_prefix(b"\\") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let Some((sum, name)) = line.split_at_checked(SUM_LEN) else {
        bail!("expected a SHA-256 sum, two spaces and a name");
    };
    let name = name.strip_prefix(b"  ").or_else(|| name.strip_prefix(b" *"));
    let (Some(name), true) = (name, sum.iter().all(u8::is_ascii_hexdigit)) else {
        bail!("expected a SHA-256 sum, two spaces and a name");
    };
    Ok(Line {
        kind,
        sha256: Some(String::from_utf8_lossy(sum).to_ascii_lowercase()),
        name: if escaped { unescape(name)? } else { name.to_vec() },
    })
}

fn unescape(name: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match (byte, byte == b'\\') {
            (byte, false) => byte,
            (_, true) => match rest.next() {
                Some(b'\\') => b'\\',
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                _ => bail!("a backslash in the name, expected \\\\, \\n or \\r"),
            },
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip() {
        let sum = "0123456789abcdef".repeat(4);
        for name in ["plain", "with  spaces ", "line\nbreak", "back\\slash", "näme\r"] {
            for kind in [Kind::File, Kind::Symlink] {
                let line = format(kind, &sum, name.as_bytes());
                let parsed = parse(&[b"# a comment\n", &line[..]].concat()).unwrap();
                assert_eq!(parsed.len(), 1, "{name:?}");
                assert_eq!((parsed[0].kind, &parsed[0].name[..]), (kind, name.as_bytes()));
                assert_eq!(parsed[0].sha256.as_deref(), Some(sum.as_str()));
            }
        }
    }

    #[test]
    fn writes_what_sha256sum_writes() {
        let sum = "a".repeat(64);
        assert_eq!(format(Kind::File, &sum, b"a b"), format!("{sum}  a b\n").as_bytes());
        assert_eq!(format(Kind::File, &sum, b"a\\b\n"), format!("\\{sum}  a\\\\b\\n\n").as_bytes());
    }

    #[test]
    fn refuses_other_lists() {
        for list in ["hello\n", "0123  short\n"] {
            assert!(parse(list.as_bytes()).is_err(), "{list}");
        }
        let sum = "z".repeat(64);
        let error = parse(format!("\n{sum}  name\n").as_bytes()).err().unwrap();
        assert_eq!(error.to_string(), "line 2");
    }
}
