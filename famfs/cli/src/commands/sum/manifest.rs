// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The list format of sha256sum(1): sum, two spaces, name. A name with a backslash or a line
//! break is escaped, and its line starts with a backslash.

use anyhow::{Context, Result, bail};

/// Characters of a SHA-256 sum.
const SUM_LEN: usize = 64;

/// A line of a list.
pub struct Line {
    /// The sum, in lower-case hexadecimal; `None` if there is nothing to compare with.
    pub sha256: Option<String>,
    /// The file's name.
    pub name: Vec<u8>,
}

impl Line {
    /// A file whose sum is unknown.
    pub fn of_name(name: Vec<u8>) -> Self {
        Self { sha256: None, name }
    }
}

/// The line of a file.
pub fn format(sha256: &str, name: &[u8]) -> Vec<u8> {
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
    [mark, sha256.as_bytes(), b"  ", &escaped, b"\n"].concat()
}

/// Reads a list.
pub fn parse(list: &[u8]) -> Result<Vec<Line>> {
    let lines = list.split(|&b| b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines.map(|(at, line)| parse_line(line).with_context(|| format!("line {}", at + 1))).collect()
}

fn parse_line(line: &[u8]) -> Result<Line> {
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
            let line = format(&sum, name.as_bytes());
            let parsed = parse(&line).unwrap();
            assert_eq!(parsed.len(), 1, "{name:?}");
            assert_eq!(parsed[0].name, name.as_bytes());
            assert_eq!(parsed[0].sha256.as_deref(), Some(sum.as_str()));
        }
    }

    #[test]
    fn writes_what_sha256sum_writes() {
        let sum = "a".repeat(64);
        assert_eq!(format(&sum, b"a b"), format!("{sum}  a b\n").as_bytes());
        assert_eq!(format(&sum, b"a\\b\n"), format!("\\{sum}  a\\\\b\\n\n").as_bytes());
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
