// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directory that contains a path.

use std::path::Path;

/// The directory of a path; "." for a bare name, and for "/", which is in none.
pub fn of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_is_in_the_working_directory() {
        for (path, dir) in [("a/b", "a"), ("/a", "/"), ("a", "."), ("a/", "."), ("/", ".")] {
            assert_eq!(of(Path::new(path)), Path::new(dir), "{path}");
        }
    }
}
