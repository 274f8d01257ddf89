// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of deleted files that a command lacks: it names the one that frees it.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs::File;
use std::path::Path;
use std::process::Command;

/// Whether it succeeds, and all that is printed.
fn famfs(pool: &Path, args: &[&str]) -> (bool, String) {
    let famfs = env!("CARGO_BIN_EXE_famfs");
    let output = Command::new(famfs).arg("--pool").arg(pool).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn no_space_names_compact_if_that_frees_some() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (pool, source, archive) = (dir.path().join("pool"), path("source"), path("x.tar"));
    File::create_new(&pool).unwrap().set_len(32 << 20).unwrap();
    std::fs::write(&source, vec![7; 16 << 20]).unwrap();
    let mut tar = tar::Builder::new(File::create_new(&archive).unwrap());
    tar.append_path_with_name(&source, "member").unwrap();
    tar.finish().unwrap();
    let commands: [&[&str]; 3] = [
        &["cp", &source, "/copy"],
        &["creat", "-s", "16M", "made"],
        &["import", "--input", &archive, "/"],
    ];
    let all = |expected: bool| {
        for args in commands {
            let (done, text) = famfs(&pool, args);
            assert!(!done && text.contains("no space"), "{args:?}: {text}");
            assert_eq!(text.contains("`famfs compact` frees"), expected, "{args:?}: {text}");
        }
    };
    for args in [&["mkfs"][..], &["cp", &source, "/first"]] {
        assert!(famfs(&pool, args).0, "{args:?}");
    }
    all(false);
    assert!(famfs(&pool, &["rm", "/first"]).0);
    all(true);
    assert!(famfs(&pool, &["df"]).1.contains("deleted, see rm"));
    assert!(famfs(&pool, &["compact"]).0);
    assert!(famfs(&pool, commands[0]).0);
}
