// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Replays the inputs that the fuzzers start from, and every input that ever caused a crash.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs;
use std::path::{Path, PathBuf};

use fuzz::TARGETS;

fn files(dir: &str, target: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir).join(target);
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    files
}

#[test]
fn every_input_is_survived() {
    for (target, run) in TARGETS {
        let corpus = files("corpus", target);
        assert!(!corpus.is_empty(), "{target} has no corpus");
        for input in corpus.iter().chain(&files("crashes", target)) {
            // Shown only if the test fails: then the last one caused it.
            println!("{}", input.display());
            run(&fs::read(input).unwrap());
        }
    }
}

#[test]
fn every_target_has_a_program() {
    let mut programs: Vec<String> = files("fuzz_targets", "")
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    programs.sort_unstable();
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(programs, targets, "sort both, and name each in Cargo.toml too");
}
