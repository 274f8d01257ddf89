// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks that every report and error matches docs/reference/vhost-famfs.schema.json, and that
//! every command with reports is in it. The reports of clusters are checked in `launcher`.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "support/schema.rs"]
mod schema;

use std::path::Path;
use std::process::{Command, Output};

use clap::CommandFactory;
use schema::{SCHEMA, problem, schema};
use serde_json::Value;
use vhost_famfs::args::Cli;

fn run(dir: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
    command.args(line.split_whitespace()).current_dir(dir).env("XDG_RUNTIME_DIR", dir);
    command.output().unwrap()
}

/// The one line of JSON that a command prints.
fn json(output: &Output) -> Value {
    let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, 1, "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn reports_are_what_the_schema_says() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let lines = [
        ("pool_create", "pool create pool --size 64M --mkfs --json"),
        ("pool_create", "pool create raw --size 16M --view raw --json"),
        ("pool_inspect", "pool inspect pool --json"),
        ("pool_create", "pool create room --size 32M --max 1G --mkfs --json"),
        ("pool_grow", "pool grow room --size 64M --json"),
        ("pool_resize", "pool resize pool --size 32M --json"),
        ("pool_list", "pool list . --json"),
        ("ps", "ps --json"),
        ("doctor", "doctor --qemu /bin/echo --json"),
    ];
    let found = lines.map(|(name, line)| problem(name, &json(&run(dir.path(), line))));
    let found: Vec<_> = found.into_iter().flatten().collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn errors_are_what_the_schema_says() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let lines = [
        (1, "pool inspect none --json"),
        (1, "pool create none/pool --size 16M --json"),
        (1, "pool grow none --size 16M --json"),
        (1, "pool resize none --size 16M --json"),
        (2, "pool create pool --size 16X --json"),
        (2, "pool create --json"),
        (1, "down --json"),
        (1, "ps lab --json"),
        (2, "ps --json --unknown"),
        (2, "up --json"),
        (1, "up none.toml --json"),
        (2, "ublk add --json"),
        (2, "nothing --json"),
    ];
    for (code, line) in lines {
        let output = run(dir.path(), line);
        let report = json(&output);
        assert_eq!(problem("error", &report), None, "{line}");
        assert_eq!(
            (output.status.code(), &report["error"]["exit_code"]),
            (Some(code), &code.into())
        );
        let message = report["error"]["message"].as_str().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(message), "{line}: {message:?} is not in {said:?}");
    }
    // The output of a guest's command is not ours.
    let output = run(dir.path(), "exec vm1 -- ls --json");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(125), &b""[..]));
}

#[test]
fn a_wrong_report_is_noticed() {
    let fine = serde_json::json!({"version": 1, "clusters": []});
    assert_eq!(problem("ps", &fine), None);
    for wrong in [
        serde_json::json!({"version": 2, "clusters": []}),
        serde_json::json!({"version": 1, "clusters": [], "new": 1}),
        serde_json::json!([]),
    ] {
        assert!(problem("ps", &wrong).is_some(), "{wrong}");
    }
}

/// The names of all commands with reports: `pool create` is `pool_create`.
fn with_reports(command: &clap::Command, name: &str, found: &mut Vec<String>) {
    if command.get_arguments().any(|arg| arg.get_id() == "json") {
        found.push(name.to_owned());
    }
    for inner in command.get_subcommands() {
        let name = format!("{name}{}{}", if name.is_empty() { "" } else { "_" }, inner.get_name());
        with_reports(inner, &name, found);
    }
}

#[test]
fn every_command_with_reports_is_in_the_schema() {
    let mut found = Vec::new();
    with_reports(&Cli::command(), "", &mut found);
    assert!(found.len() >= 11, "{found:?}");
    let schema = schema();
    found.retain(|name| !schema["$defs"][name].is_object());
    assert!(found.is_empty(), "{found:?} are not in {SCHEMA}");
}
