// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs the examples of the help texts and the documents: those on a pool file here, each in its
//! own directory; those of a guest in tests/guest/examples.sh, which a VM runs. An example that is
//! in neither place is an error, so that a new one is not overlooked.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use famfs_cli::args::Cli;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// The script that a VM runs.
const GUEST_SCRIPT: &str = "tests/guest/examples.sh";
/// Words that mark an example which needs a guest, or a device of one.
const GUEST_WORDS: [&str; 5] =
    ["/mnt/famfs", "/dev/dax", "famfs attach", "famfs doctor", "famfs watch"];

/// Marks an example that ends a VM of the host; tests/cluster/space.rs does that.
const ENDS_A_VM: &str = "--fence";

/// Example lines of the help texts, without their explanations.
fn examples_of_helps() -> Vec<String> {
    let mut lines = Vec::new();
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let after = help.split("Examples:\n").nth(1).unwrap_or("").to_owned();
        let indented = after.lines().take_while(|line| line.starts_with("  "));
        lines.extend(indented.map(|line| line.trim_start().split("  ").next().unwrap().to_owned()));
    }
    lines
}

/// Lines of code in the README and the documents that call the famfs tools.
fn examples_of_documents() -> Vec<String> {
    let root = Path::new(ROOT);
    let folders = root.join("docs").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let pages = folders.flat_map(|folder| folder.read_dir().unwrap());
    let documents = pages.map(|entry| entry.unwrap().path());
    let mut lines = Vec::new();
    for document in documents.chain([root.join("README.md")]) {
        if document.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let document = fs::read_to_string(document).unwrap();
        for block in document.split("```sh\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let code = block.lines().map(|line| line.split("  #").next().unwrap().trim_end());
            lines.extend(code.filter(|line| calls_famfs(line)).map(ToOwned::to_owned));
        }
    }
    lines
}

/// Whether a line of code is an example of the tools.
fn calls_famfs(line: &str) -> bool {
    line.starts_with("famfs ") || line.contains("| famfs ") || line.contains(" -t famfs ")
}

fn examples() -> Vec<String> {
    let mut lines = examples_of_helps();
    lines.extend(examples_of_documents());
    lines
}

fn is_guests(line: &str) -> bool {
    GUEST_WORDS.iter().any(|word| line.contains(word))
}

/// Makes what the examples need: source files, and pools with files.
fn prepare(dir: &Path, bin: &Path, formatted: bool) {
    let script = "mkdir dataset
        echo a > dataset/a
        echo b > dataset/b
        tar -cf dataset.tar dataset
        cp dataset.tar small.tar
        cp dataset.tar all.tar
        cp dataset.tar layer1.tar
        cp dataset.tar layer2.tar
        truncate -s 64M pool other";
    let contents = "famfs --pool pool mkfs
        famfs --pool other mkfs
        famfs --pool pool mkdir /data
        famfs --pool pool creat -s 2m -S 1 /data/a
        famfs --pool pool creat -s 4k -S 42 /new
        famfs --pool pool mkdir /rootfs
        famfs --pool other mkdir b";
    run(dir, bin, script);
    trees::plant_oci_image(&dir.join("image")).unwrap();
    if formatted {
        run(dir, bin, contents);
    }
}

fn run(dir: &Path, bin: &Path, script: &str) {
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(dir)
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

#[test]
fn examples_on_pool_files_run() {
    let bin = Path::new(env!("CARGO_BIN_EXE_famfs")).parent().unwrap();
    let mut count = 0;
    for line in examples() {
        if is_guests(&line) || line.contains(ENDS_A_VM) {
            continue;
        }
        assert!(calls_famfs(&line), "no example of famfs: {line}");
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), bin, !line.contains(" mkfs"));
        if line.contains("rm -r dataset")
            || line.contains("export /dataset")
            || line.contains("--out -r /dataset")
        {
            run(dir.path(), bin, "famfs --pool pool cp -r dataset /");
        }
        let script = line.replace("/dev/shm/pool", "pool");
        run(dir.path(), bin, &script.replace("POOL", "pool").replace("OTHER", "other"));
        count += 1;
    }
    assert!(count > 25, "only {count} examples");
}

#[test]
fn examples_of_a_guest_are_in_the_script_that_a_vm_runs() {
    let script = fs::read_to_string(Path::new(ROOT).join(GUEST_SCRIPT)).unwrap();
    let examples: Vec<String> = examples().into_iter().filter(|line| is_guests(line)).collect();
    assert!(examples.len() > 40, "only {} examples", examples.len());
    let is_missing = |line: &&String| !script.lines().any(|run| run == *line);
    let missing: Vec<_> = examples.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "not in {GUEST_SCRIPT}: {missing:#?}");
}

/// The owner of a pool file needs no privileges.
#[test]
fn a_pool_of_ones_own_needs_no_root() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;

    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("famfs");
    fs::copy(env!("CARGO_BIN_EXE_famfs"), &program).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let own = dir.path().join("own");
    fs::create_dir(&own).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let script = "truncate -s 64M pool
        echo text > file
        ../famfs --pool pool mkfs
        ../famfs --pool pool cp file /copy
        ../famfs --pool pool mkdir dir
        ../famfs --pool pool creat -s 1m -S 3 dir/new
        ../famfs --pool pool verify -S 3 -f dir/new
        ../famfs --pool pool cp --out -r / out
        cmp file out/copy
        ../famfs --pool pool fsck";
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(&own);
    if root {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
