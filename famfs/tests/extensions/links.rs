// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Paths that lead through symbolic links.

use famfs::format::path::RelPath;
use famfs::replay::tree::Tree;
use famfs::replay::tree::resolve::LastLink;

use crate::log::{ExtendedLog, dir, file, symlink};
use crate::sample::{ROOT, clean};

fn resolved(tree: &Tree, path: &str, last: LastLink) -> String {
    match tree.resolve(&RelPath::new(path.as_bytes()).unwrap(), last) {
        Ok(None) => "/".to_owned(),
        Ok(Some(path)) => path.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn links_lead_where_the_kernel_goes() {
    let mut log = ExtendedLog::new(true);
    log.store();
    let a = log.name(&dir(ROOT, b"a"));
    let b = log.name(&dir(a, b"b"));
    log.name(&file(b, b"file", 0, &[]));
    for (parent, name, target) in [
        (ROOT, "to_b", "a/b"),
        (b, "up", ".."),
        (b, "home", "../.."),
        (ROOT, "chain", "./to_b//up/b/"),
        (ROOT, "dangling", "a/none/x"),
        (ROOT, "loop", "loop"),
        (a, "out", "../../etc"),
        (a, "absolute", "/etc/passwd"),
        (ROOT, "through", "a/b/file/../file"),
        (ROOT, "odd", "\u{1b}"),
        (ROOT, "reserved", ".meta/x"),
    ] {
        log.name(&symlink(parent, name.as_bytes(), target.as_bytes()));
    }
    // As many links as a path may lead through, and one more.
    for number in 0..=40 {
        let target = if number == 0 { "a".to_owned() } else { format!("n{}", number - 1) };
        log.name(&symlink(ROOT, format!("n{number}").as_bytes(), target.as_bytes()));
    }
    let contents = log.contents();
    clean(&contents);
    let tree = contents.plan.tree();
    for (path, found) in [
        ("a/b/file", "a/b/file"),
        ("to_b", "a/b"),
        ("to_b/file", "a/b/file"),
        ("to_b/up", "a"),
        ("a/b/home", "/"),
        ("a/b/home/a/b/up/b/file", "a/b/file"),
        ("chain/file", "a/b/file"),
        ("dangling", "a/none/x"),
        ("new/name", "new/name"),
        ("a/b/file/below", "a/b/file/below"),
        ("odd", "\\u001b"),
        ("n39", "a"),
    ] {
        assert_eq!(resolved(tree, path, LastLink::Follow), found, "{path}");
    }
    for (path, found) in [("to_b", "to_b"), ("to_b/up", "a/b/up"), ("loop", "loop")] {
        assert_eq!(resolved(tree, path, LastLink::Keep), found, "{path}");
    }
    let outside = "which is outside of the file system: only a mount can follow it";
    for (path, message) in [
        (
            "loop",
            "more than 40 symbolic links on the way to \"loop\", the last one \"loop\"".into(),
        ),
        ("n40", "more than 40 symbolic links on the way to \"n40\", the last one \"n0\"".into()),
        ("a/out", format!("symbolic link \"a/out\" leads to \"../../etc\", {outside}")),
        (
            "to_b/up/absolute/x",
            format!("symbolic link \"a/absolute\" leads to \"/etc/passwd\", {outside}"),
        ),
        (
            "through",
            "symbolic link \"through\" leads to \"a/b/file/../file\", which does not exist".into(),
        ),
        ("reserved", "path \".meta/x\" is below .meta, which is reserved".into()),
    ] {
        let expected: String = message;
        assert_eq!(resolved(tree, path, LastLink::Follow), format!("error: {expected}"));
    }
}

#[test]
fn a_part_of_a_tree_is_listed() {
    let mut log = ExtendedLog::new(true);
    log.store();
    let a = log.name(&dir(ROOT, b"a"));
    log.name(&dir(ROOT, b"ab"));
    let b = log.name(&dir(a, b"b"));
    log.name(&file(b, b"file", 0, &[]));
    log.name(&symlink(a, b"a", b"b"));
    let contents = log.contents();
    let below = |path: Option<&str>| {
        let path = path.map(|path| RelPath::new(path.as_bytes()).unwrap());
        let entries = contents.plan.tree().at_and_below(path.as_ref());
        entries.iter().map(|entry| entry.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(below(None), ["a", "a/a", "a/b", "a/b/file", "ab"]);
    assert_eq!(below(Some("a")), ["a", "a/a", "a/b", "a/b/file"]);
    assert_eq!(below(Some("a/a")), ["a/a"]);
    assert!(below(Some("a/c")).is_empty() && below(Some("a/a/file")).is_empty());
}
