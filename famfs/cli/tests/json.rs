// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every report matches docs/reference/famfs.schema.json, and every command with reports is in that
//! file.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use famfs_cli::args::Cli;
use serde_json::Value;

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/famfs.schema.json");
/// Commands that need a mounted famfs; their reports are checked in VMs.
const GUEST: [&str; 8] =
    ["attach", "check", "flush", "logplay", "mkmeta", "mount", "umount", "watch"];

fn schema() -> Value {
    serde_json::from_slice(&fs::read(SCHEMA).unwrap()).unwrap()
}

/// Name of a command's schema; `map` is that of a file's map.
fn name_of(command: &str) -> &str {
    if command == "map" { "map_of_pool" } else { command }
}

/// How a report differs from the schema, if it does.
fn problem(command: &str, report: &Value) -> Option<String> {
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("famfs.json", schema()).unwrap();
    let at = format!("famfs.json#/$defs/{}", name_of(command));
    let index = compiler.compile(&at, &mut schemas).unwrap();
    schemas.validate(report, index).err().map(|err| format!("{err:#}"))
}

/// Runs a session in a directory; each command prints a report, whatever its exit code.
fn session(dir: &Path, lines: &[&str]) -> Vec<(String, Value)> {
    let run = |line: &&str| {
        let args: Vec<&str> = line.split_whitespace().collect();
        let output = Command::new(env!("CARGO_BIN_EXE_famfs"))
            .current_dir(dir)
            .args(["--pool", "pool"])
            .args(&args)
            .arg("--json")
            .output()
            .unwrap();
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|err| panic!("{line}: {err}: {output:?}"));
        (args[0].to_owned(), report)
    };
    lines.iter().map(run).collect()
}

#[test]
fn reports_are_what_the_schema_says() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("src/d")).unwrap();
    for (name, text) in [("src/a", "a"), ("src/d/b", "bb"), ("src/empty", "")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let pool = fs::File::create(dir.path().join("pool")).unwrap();
    pool.set_len(64 << 20).unwrap();
    // `compact` refuses a pool that another process has open.
    drop(pool);
    let tar = Command::new("tar").args(["-cf", "t.tar", "src/d"]).current_dir(dir.path()).status();
    assert!(tar.unwrap().success());
    let lines = [
        "mkfs --dry-run",
        "mkfs",
        "mkfs --force --kill --dry-run",
        "cp -r --skip-unsupported --dry-run src /",
        "cp -r --skip-unsupported src /",
        "cp --compare -r src /",
        "cp --out -r src out",
        "ls",
        "stat src src/a",
        "df",
        "du",
        "tree",
        "fsck",
        "fsck -B 4",
        "dump",
        "map",
        "doctor",
        "getmap src/a",
        "verify -S 1 -f src/a",
        "verify --multi none,1",
        "sum",
        "sum --check /dev/null",
        "export --output x.tar",
        "import --dry-run --input t.tar /src/d",
        "mkdir --dry-run src/x",
        "mkdir -p src/x/y",
        "mkdir -p /",
        "creat --size 2m src/x/whole",
        "clone --dry-run src/x/whole src/x/a",
        "ln -s src/a src/link",
        "ln --dry-run src/a src/d/hard",
        "mv src/link src/moved",
        "chmod -R go= src",
        "chown 7:7 src/a",
        "touch -d @0 src/a touched",
        "rm src/moved touched",
        "rm --dry-run src/a",
        "rm src/a",
        "creat --multi new,5,7 --multi other,5",
        "creat --dry-run --size 5 --seed 9 new",
        "reclaim",
        "compact --dry-run",
        "compact",
        "upgrade",
        "mkfs --force --reference --entries 5000",
        "upgrade --dry-run",
        "upgrade",
        "mkdir -p src/d",
        "creat --multi src/d/b,2097152",
        "mkdir src/x",
        "role",
        "members",
        "members --drop-silent",
        "publish --wait-all",
        "publish --wait-all --members 1 --timeout 0",
        "takeover --yes --system-uuid 44444444-4444-4444-8444-444444444444",
        "clone src/d/b src/x/b",
    ];
    let mut found = Vec::new();
    for (command, report) in session(dir.path(), &lines) {
        if let Some(problem) = problem(&command, &report) {
            found.push(format!("{command}: {problem}"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A failure is a report too: one line, with the program's exit code.
#[test]
fn errors_are_what_the_schema_says() {
    let dir = tempfile::tempdir().unwrap();
    for (line, code, message) in [
        ("--pool missing ls --json", 1, "cannot open missing"),
        ("--pool missing fsck --json", 2, "cannot check missing"),
        ("ls /proc --json", 1, "/proc is on a proc file system"),
        ("--pool missing mkfs --json --loglen 8x", 2, "invalid value '8x'"),
        ("umount --json --unknown /mnt", 2, "unexpected argument '--unknown'"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_famfs"))
            .current_dir(dir.path())
            .args(line.split(' '))
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|err| panic!("{line}: {err}: {output:?}"));
        assert_eq!(problem("error", &report), None, "{line}: {report}");
        assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
        assert_eq!(report["error"]["exit_code"], code, "{line}: {report}");
        let found = report["error"]["message"].as_str().unwrap();
        assert!(found.starts_with(message), "{line}: {found}");
        assert!(!output.stderr.is_empty(), "{line}: people are told too");
    }
}

#[test]
fn a_wrong_report_is_noticed() {
    let report = serde_json::json!({"version": 1, "entries": [], "new": 1});
    assert!(problem("ls", &report).is_some(), "an unknown field");
    assert!(problem("ls", &serde_json::json!({"version": 2, "entries": []})).is_some());
    assert!(problem("ls", &serde_json::json!({"version": 1, "entries": []})).is_none());
}

#[test]
fn every_command_with_reports_is_in_the_schema() {
    let schema = schema();
    let cli = Cli::command();
    let mut count = 0;
    for command in cli.get_subcommands() {
        if command.get_arguments().any(|arg| arg.get_id() == "json") {
            let name = command.get_name();
            assert!(schema["$defs"][name_of(name)].is_object(), "{name} is not in {SCHEMA}");
            count += 1;
        }
    }
    assert!(count >= 20 && GUEST.iter().all(|name| schema["$defs"][name].is_object()));
}

/// Also in lists of names, and where a name is that of a large file.
#[test]
fn every_byte_of_a_name_comes_back() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let pool = fs::File::create(dir.path().join("pool")).unwrap();
    pool.set_len(64 << 20).unwrap();
    drop(pool);
    fs::create_dir(dir.path().join("src")).unwrap();
    let file = dir.path().join("src").join(OsStr::from_bytes(b"su\xff"));
    fs::write(&file, "program").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    let lines = ["mkfs", "cp -r -m 4755 src/. /", "map", "export -o all.tar", "cp --out -r / out"];
    let reports = session(dir.path(), &lines);
    for (command, report) in &reports {
        assert_eq!(problem(command, report), None, "{command}: {report}");
    }
    assert_eq!(reports[2].1["largest"][0]["path_bytes"], "7375ff");
    for (command, report) in &reports[3..] {
        assert_eq!(report["without_set_id_bytes"], serde_json::json!(["7375ff"]), "{command}");
    }
}
