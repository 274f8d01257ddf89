// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How `cargo xtask` reports mistakes: before anything slow begins, and with a way out.

use std::process::{Command, Output};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// Runs a command that must fail and returns its message.
fn refusal(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success(), "it succeeded: {}", String::from_utf8_lossy(&stdout));
    assert_eq!(said.trim().lines().count(), 1, "one error, not more: {said}");
    said
}

#[test]
fn a_share_that_is_not_there_is_named() {
    let said = refusal(Command::new(XTASK).args(["demo", "--share", "/nowhere/at all"]));
    assert!(said.contains("/nowhere/at all: no such directory"), "{said}");
}

#[test]
fn an_empty_share_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = refusal(Command::new(XTASK).args(["demo", "--share"]).arg(dir.path()));
    assert!(said.contains("nothing to share"), "{said}");
}

#[test]
fn a_share_larger_than_the_pool_is_refused_with_the_size_it_needs() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), [1; 100]).expect("a file");
    let mut demo = Command::new(XTASK);
    let said = refusal(demo.args(["demo", "--pool-size", "16", "--share"]).arg(dir.path()));
    assert!(said.contains("needs a pool of 272 MiB, but --pool-size is 16 MiB"), "{said}");
}

#[test]
fn parts_are_those_of_one_suite_with_vms() {
    let said = refusal(Command::new(XTASK).args(["test", "--only", "devdax"]));
    assert!(said.contains("--only chooses parts of one suite: name one"), "{said}");
    let said = refusal(Command::new(XTASK).args(["test", "unit", "--only", "devdax"]));
    assert!(said.contains("--only: the suite unit has no parts"), "{said}");
}

#[test]
fn without_root_it_says_so() {
    // In a user namespace without a mapping, nobody is root.
    let said = refusal(Command::new("unshare").args(["--user", XTASK, "setup"]));
    assert!(said.contains("needs root"), "{said}");
}

#[test]
fn vm_wants_a_terminal() {
    let said = refusal(Command::new(XTASK).arg("vm").stdin(std::process::Stdio::null()));
    assert!(said.contains("terminal"), "{said}");
}
