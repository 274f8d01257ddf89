// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names in a pool, in an archive and in a directory do not control the terminal, and programs get
//! back every byte of them.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Control characters of all kinds, and bytes that are not text.
const HOSTILE: &[u8] =
    b"a\x1b]0;x\x07\x1b[2J\r\n\tb\x08\x7f\xc2\x9b31m\xe2\x80\xae\xe2\x81\xa6\x9bz\xff";

/// Bytes of a text that a terminal would obey, or that are not text.
fn harmful(bytes: &[u8]) -> Option<String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Some("no UTF-8".to_owned()) };
    let is_bad = |c: &char| {
        (c.is_control() && !"\n\t".contains(*c))
            || "\u{61c}\u{200e}\u{200f}".contains(*c)
            || ('\u{202a}'..='\u{202e}').contains(c)
            || ('\u{2066}'..='\u{2069}').contains(c)
    };
    text.chars().find(is_bad).map(|c| format!("{c:?}"))
}

fn famfs(dir: &Path, words: &[OsString]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    command.current_dir(dir).args(["--pool", "pool"]).args(words);
    command.stdin(Stdio::null()).output().unwrap()
}

/// A line of words, in which `@` stands for the hostile name.
fn words(line: &str) -> Vec<OsString> {
    let word = |word: &str| {
        let parts: Vec<&[u8]> = word.split('@').map(str::as_bytes).collect();
        OsStr::from_bytes(&parts.join(HOSTILE)).to_owned()
    };
    line.split(' ').map(word).collect()
}

/// A directory with a pool and sources whose names are hostile.
fn make(dir: &Path) {
    let name = OsStr::from_bytes(HOSTILE);
    fs::create_dir_all(dir.join("src").join(name)).unwrap();
    fs::write(dir.join("src").join(name).join("one"), "one").unwrap();
    fs::write(dir.join("src").join(name).join("empty"), "").unwrap();
    symlink(name, dir.join("src/link")).unwrap();
    fs::File::create(dir.join("pool")).unwrap().set_len(64 << 20).unwrap();
    let tar = Command::new("tar").args(["-cf", "t.tar", "src"]).current_dir(dir).status();
    assert!(tar.unwrap().success());
}

#[test]
fn no_command_passes_on_what_controls_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    make(dir);
    let lines = [
        "mkfs",
        "mkdir -v @",
        "mkdir @",
        "mkdir -p --json @/d",
        "creat -v -s 1 @/f",
        "creat -s 2 @/f",
        "creat --dry-run -s 2 @/g",
        "creat -s 1 -S 1 @/f",
        "creat -s 1 --json @/f",
        "creat -s @ x",
        "cp src/@/one src/@/one nowhere",
        "cp -r src /",
        "cp -r --dry-run --skip-unsupported src /",
        "cp -r -v --skip-unsupported src /",
        "cp -r --json --skip-unsupported src /",
        "cp -r --compare src /",
        "cp -r --compare --json src /",
        "cp @ /",
        "cp --out -r --dry-run @ .",
        "cp --out -r -v @ .",
        "ls",
        "ls --json",
        "ls @",
        "ls @@",
        "fsck",
        "fsck --json",
        "stat @/f @ @@",
        "stat --json @/f",
        "df",
        "du",
        "du --json",
        "tree",
        "tree --json",
        "map",
        "map --json",
        "map --output @.svg",
        "dump",
        "dump --json",
        "getmap @/f",
        "getmap --json @/f",
        "getmap @@",
        "verify -S 1 -f @/f",
        "verify --json -m @/f,1 -m @@,2",
        "sum --json",
        "sum --json @@",
        "export --output @.tar",
        "export --output @/no/x.tar",
        "import --input t.tar --dry-run",
        "import --input t.tar --skip-unsupported --dry-run @",
        "import --input t.tar --skip-unsupported --json @",
        "import --input @",
        "doctor",
        "doctor --json",
        "role",
        "clone --dry-run @/f @/clone",
        "clone -v @/f @/clone",
        "fsck",
        "fsck --json",
        "check @",
        "chkread @",
        "flush @",
        "mkmeta @",
        "mount @ @",
        "umount @",
        "logplay @",
        "watch @",
        "rm @",
        "rm --dry-run -r @",
        "rm --json @/clone",
        "rm -v -r @",
        "@",
        "ls --@",
        "mkfs --loglen @",
    ];
    let mut wrong = Vec::new();
    for line in lines {
        let output = famfs(dir, &words(line));
        for (stream, bytes) in [("output", &output.stdout), ("errors", &output.stderr)] {
            if let Some(found) = harmful(bytes) {
                wrong.push(format!("{line}: {stream}: {found}: {}", bytes.escape_ascii()));
            }
        }
        let json = line.split(' ').any(|word| word == "--json");
        if json && serde_json::from_slice::<serde_json::Value>(&output.stdout).is_err() {
            wrong.push(format!("{line}: no JSON: {}", output.stdout.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_name_stays_in_its_line_and_json_has_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    make(dir);
    for line in ["mkfs", "mkdir @", "creat -s 1 @/f"] {
        let output = famfs(dir, &words(line));
        assert!(output.status.success(), "{output:?}");
    }
    let list = famfs(dir, &words("ls")).stdout;
    assert_eq!(String::from_utf8(list).unwrap().lines().count(), 2);
    let hex: String = HOSTILE.iter().map(|byte| format!("{byte:02x}")).collect();
    for (line, pointer, bytes) in [
        ("ls --json", "/entries/0/path_bytes", hex.clone()),
        ("stat --json @", "/entries/0/path_bytes", hex.clone()),
        ("tree --json", "/root/children/0/name_bytes", hex.clone()),
        ("du --json", "/entries/1/path_bytes", hex.clone()),
        ("getmap --json @/f", "/files/0/path_bytes", hex.clone() + "2f66"),
        ("sum --json", "/files/0/path_bytes", hex.clone() + "2f66"),
        ("rm --json --dry-run @/f", "/paths_bytes/0", hex.clone() + "2f66"),
        ("cp --json --out --dry-run @/f x", "/actions/0/source_bytes", hex.clone() + "2f66"),
        ("cp --json --dry-run src/@/one x", "/actions/0/source_bytes", {
            format!("7372632f{hex}2f6f6e65")
        }),
    ] {
        let output = famfs(dir, &words(line));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report.pointer(pointer).unwrap().as_str(), Some(&*bytes), "{line}: {report}");
    }
}
