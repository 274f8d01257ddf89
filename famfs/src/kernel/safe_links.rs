// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Symbolic links that stay in the tree: followed from any directory above, they lead to nothing
//! outside.

use crate::format::path::RelPath;
use crate::replay::tree::object::{Object, ObjectKind};

/// Whether an object at a path is a symbolic link that leads out of the tree, or may.
///
/// Only as many `..` as there are directories above the link stay inside, and only before all other
/// names: behind one, which may be a link itself, they lead anywhere.
pub fn leads_out(path: &RelPath, object: &Object) -> bool {
    let ObjectKind::Symlink { target, .. } = &object.kind else { return false };
    if target.first() == Some(&b'/') {
        return true;
    }
    let mut above = path.as_bytes().iter().filter(|&&byte| byte == b'/').count();
    let mut in_front = true;
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if in_front && above > 0 => above -= 1,
            b".." => return true,
            _ => in_front = false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Owner;

    #[test]
    fn what_leads_out_is_found() {
        for (path, target, expected) in [
            ("l", "a", false),
            ("l", "a/b/c", false),
            ("l", ".", false),
            ("l", "/etc/passwd", true),
            ("l", "..", true),
            ("d/l", "..", false),
            ("d/l", "../x", false),
            ("d/l", "./..//./x", false),
            ("d/l", "../..", true),
            ("d/e/l", "../../x", false),
            // If x is a link to a directory further up, this is outside.
            ("d/e/l", "x/../y", true),
            ("l", "a/..", true),
        ] {
            let kind = ObjectKind::Symlink { target: target.as_bytes().into() };
            let owner = Owner { uid: 0, gid: 0, mode: 0o777 };
            let object = Object { owner, mtime: None, links: 1, kind };
            let found = leads_out(&RelPath::new(path.as_bytes()).unwrap(), &object);
            assert_eq!(found, expected, "{path} -> {target}");
        }
    }
}
