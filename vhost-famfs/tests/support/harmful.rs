// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What must not reach a terminal.

/// The bytes of a text that would control a terminal or are not text.
pub fn harmful(bytes: &[u8]) -> Option<String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Some("no UTF-8".to_owned()) };
    let is_bad = |c: &char| {
        (c.is_control() && !"\n\t".contains(*c))
            || "\u{61c}\u{200e}\u{200f}".contains(*c)
            || ('\u{202a}'..='\u{202e}').contains(c)
            || ('\u{2066}'..='\u{2069}').contains(c)
    };
    text.chars().find(is_bad).map(|c| format!("{c:?}"))
}
