// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Permission bits as chmod(1) takes them: in octal, or as changes such as `u+x,go-w`.

/// All bits.
const ALL: u32 = 0o7777;
/// Execute and search of everybody.
const EXECUTE: u32 = 0o111;

/// A change of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeChange {
    /// Exactly these bits.
    Exact(u32),
    /// Changes, in order.
    Steps(Vec<Step>),
}

/// One of several changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bits that it may touch; `None` if nobody was named: all but those of the umask.
    who: Option<u32>,
    operation: Operation,
    what: Bits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bits {
    /// These, and with `X` those to execute if it is a directory or somebody has them already.
    Named { bits: u32, search: bool },
    /// What the user, the group or others have: the shift of their bits.
    Of(u32),
}

impl ModeChange {
    /// Reads bits in octal, or changes as of chmod(1).
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= ALL => Ok(Self::Exact(mode)),
                _ => Err("expected octal permission bits up to 7777, as in 644".to_owned()),
            };
        }
        let mut steps = Vec::new();
        for clause in text.split(',') {
            let len = clause.find(|c| !"ugoa".contains(c)).unwrap_or(clause.len());
            let (names, mut rest) = clause.split_at(len);
            let who = (!names.is_empty()).then(|| names.bytes().fold(0, |who, c| who | of(c)));
            if rest.is_empty() {
                return Err(format!("\"{clause}\" has no +, - or =, as in u+x"));
            }
            while !rest.is_empty() {
                let operation = match rest.as_bytes()[0] {
                    b'+' => Operation::Add,
                    b'-' => Operation::Remove,
                    b'=' => Operation::Set,
                    _ => return Err(format!("\"{rest}\" is not like u+x, go-w or a=rX")),
                };
                let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |end| end + 1);
                steps.push(Step { who, operation, what: Bits::parse(&rest[1..end])? });
                rest = &rest[end..];
            }
        }
        Ok(Self::Steps(steps))
    }

    /// The bits after the change. `umask` holds those that are not touched if nobody was named.
    pub fn apply(&self, mode: u32, is_dir: bool, umask: u32) -> u32 {
        match self {
            Self::Exact(mode) => *mode,
            Self::Steps(steps) => {
                steps.iter().fold(mode, |mode, step| step.apply(mode, is_dir, umask))
            }
        }
    }
}

impl Step {
    fn apply(&self, mode: u32, is_dir: bool, umask: u32) -> u32 {
        let bits = match self.what {
            Bits::Named { bits, search } if search && (is_dir || mode & EXECUTE != 0) => {
                bits | EXECUTE
            }
            Bits::Named { bits, .. } => bits,
            Bits::Of(shift) => (mode >> shift & 7) * EXECUTE,
        };
        let bits = bits & self.who.unwrap_or(!umask & ALL);
        match self.operation {
            Operation::Add => mode | bits,
            Operation::Remove => mode & !bits,
            Operation::Set => mode & !self.who.unwrap_or(ALL) | bits,
        }
    }
}

impl Bits {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "u" => return Ok(Self::Of(6)),
            "g" => return Ok(Self::Of(3)),
            "o" => return Ok(Self::Of(0)),
            _ => {}
        }
        let (mut bits, mut search) = (0, false);
        for name in text.chars() {
            bits |= match name {
                'r' => 0o444,
                'w' => 0o222,
                'x' => EXECUTE,
                's' => 0o6000,
                't' => 0o1000,
                'X' => {
                    search = true;
                    0
                }
                _ => return Err(format!("\"{text}\": expected r, w, x, X, s or t, or u, g or o")),
            };
        }
        Ok(Self::Named { bits, search })
    }
}

/// The bits of one of `u`, `g`, `o` and `a`.
fn of(who: u8) -> u32 {
    match who {
        b'u' => 0o4700,
        b'g' => 0o2070,
        b'o' => 0o1007,
        _ => ALL,
    }
}

#[cfg(test)]
mod tests {
    use super::ModeChange;

    /// What chmod(1) of GNU makes of a file.
    #[test]
    fn changes_are_those_of_chmod() {
        for (text, before, after) in [
            ("644", 0o7777, 0o644),
            ("0", 0o644, 0),
            ("7777", 0, 0o7777),
            ("u+x", 0o644, 0o744),
            ("go-w", 0o666, 0o644),
            ("a=r", 0o4755, 0o444),
            ("+x", 0o644, 0o755),
            ("+w", 0o444, 0o644),
            ("-w", 0o666, 0o466),
            ("=r", 0o777, 0o444),
            ("a+w", 0o444, 0o666),
            ("u=rw,g=r,o=", 0o777, 0o640),
            ("u=g", 0o750, 0o550),
            ("o+u", 0o741, 0o747),
            ("g-o", 0o777, 0o707),
            ("u+s", 0o755, 0o4755),
            ("g+s", 0o755, 0o2755),
            ("o+s", 0o755, 0o755),
            ("+t", 0o755, 0o1755),
            ("u+t", 0o755, 0o755),
            ("a+X", 0o644, 0o644),
            ("a+X", 0o645, 0o755),
            ("u+r-x+w", 0o100, 0o600),
            ("ug+rw,o-rwx", 0o117, 0o770),
            ("u=", 0o4755, 0o055),
        ] {
            let change = ModeChange::parse(text).unwrap();
            let found = change.apply(before, false, 0o022);
            assert_eq!(found, after, "{text}: {found:o}, expected {after:o}");
        }
        let search = ModeChange::parse("a+rX").unwrap();
        assert_eq!(search.apply(0o600, true, 0), 0o755);
        assert_eq!(search.apply(0o600, false, 0), 0o644);
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for text in ["", "8", "10000", "u", "u+q", "x+u", "u+x,", "+ug", "u+x g", "0x1", "ä+x"] {
            assert!(ModeChange::parse(text).is_err(), "{text}");
        }
    }
}
