// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of deleted files: it comes back by itself, unless somebody may use it. Then a command
//! that lacks it names the one that tells who.
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
fn space_comes_back_unless_somebody_may_use_it() {
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
            assert_eq!(text.contains("`famfs reclaim` gives"), expected, "{args:?}: {text}");
        }
    };
    for args in [&["mkfs"][..], &["cp", &source, "/first"]] {
        assert!(famfs(&pool, args).0, "{args:?}");
    }
    all(false);
    // Somebody who may have the file.
    let reader = File::open(&pool).unwrap();
    let (done, text) = famfs(&pool, &["rm", "-v", "/first"]);
    assert!(done && text.contains("being released"), "{text}");
    all(true);
    assert!(famfs(&pool, &["df"]).1.contains("being released"));
    let (done, text) = famfs(&pool, &["reclaim"]);
    assert!(!done && text.contains(&format!("process {}", std::process::id())), "{text}");
    drop(reader);
    // A command that needs the space takes it.
    assert!(famfs(&pool, commands[0]).0);
    let (done, text) = famfs(&pool, &["rm", "-v", "/copy"]);
    assert!(done && text.contains("became free"), "{text}");
    assert!(!famfs(&pool, &["df"]).1.contains("being released"));
    assert!(famfs(&pool, &["reclaim"]).1.contains("nothing is being released"));
}
