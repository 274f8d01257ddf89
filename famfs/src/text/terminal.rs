// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Text that others chose and that may reach a terminal: names in a pool or an archive, what a
//! guest says, files of other users.
//!
//! Both programs print everything through [`Escaping`], except data that is requested unchanged.
//! A harmful character becomes `\u001b`, which in JSON stands for the same character.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether a character could control a terminal, or change the order in which text is shown: C0,
/// DEL, C1, and the controls of Unicode's bidirectional algorithm (UAX #9, table 2).
#[must_use]
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

/// A name for use within a line: without anything harmful, and without line breaks.
pub fn escape_name(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push(&mut text, c, false);
        }
        push_bytes(&mut text, chunk.invalid());
    }
    text
}

/// A path for use within a line.
pub fn shown(path: &Path) -> String {
    escape_name(path.as_os_str().as_bytes())
}

fn push(text: &mut String, c: char, in_lines: bool) {
    match c {
        '\n' | '\t' if in_lines => text.push(c),
        '\n' => text.push_str("\\n"),
        '\t' => text.push_str("\\t"),
        '\r' => text.push_str("\\r"),
        c if is_harmful(c) => {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        }
        c => text.push(c),
    }
}

/// Bytes that are not text.
fn push_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Passes text on without anything harmful; line breaks and tabs stay.
#[derive(Debug)]
pub struct Escaping<W: Write> {
    out: W,
    /// The beginning of a character whose end has not been written yet.
    begun: Vec<u8>,
}

impl<W: Write> Escaping<W> {
    /// Passes text on to `out`.
    pub fn new(out: W) -> Self {
        Self { out, begun: Vec::new() }
    }

    /// Ends the text; an incomplete character is shown as bytes.
    pub fn finish(mut self) -> io::Result<()> {
        let mut text = String::new();
        push_bytes(&mut text, &mem::take(&mut self.begun));
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut text = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            for c in chunk.valid().chars() {
                push(&mut text, c, true);
            }
            match chunks.peek() {
                None if may_go_on(chunk.invalid()) => self.begun = chunk.invalid().to_vec(),
                _ => push_bytes(&mut text, chunk.invalid()),
            }
        }
        self.out.write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether bytes are the beginning of a character.
fn may_go_on(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|err| err.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut writer = Escaping::new(&mut out);
        for piece in pieces {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_harmful_passes() {
        let hostile = "a\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2066}\u{200f}\u{61c}\r\0é\n\tb";
        let shown = "a\\u001b[2J\\u007f\\u009b\\u202e\\u2066\\u200f\\u061c\\r\\u0000é\n\tb";
        assert_eq!(through(&[hostile.as_bytes()]), shown);
        let in_line = shown.replace('\n', "\\n").replace('\t', "\\t");
        assert_eq!(escape_name(hostile.as_bytes()), in_line);
        assert_eq!(through(&[b"\x9b\xff", b"x\xc3"]), "\\x9b\\xffx\\xc3");
        assert_eq!(escape_name(b"\x9b\xe2\x82"), "\\x9b\\xe2\\x82");
    }

    #[test]
    fn characters_may_come_in_pieces() {
        let text = "é€𝄞\u{9b}".as_bytes();
        for cut in 0..text.len() {
            assert_eq!(through(&[&text[..cut], &text[cut..]]), "é€𝄞\\u009b", "cut at {cut}");
        }
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(through(&single), "é€𝄞\\u009b");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let name = "a\u{7f}\u{9b}\u{202e}\u{1b}\n\"";
        let json = serde_json::to_string(name).unwrap();
        let read: String = serde_json::from_str(&through(&[json.as_bytes()])).unwrap();
        assert_eq!(read, name);
    }
}
