// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Media that the commands write, read by a decoder of their own: only conventional files own
//! space, a reader that knows nothing else finds a clean file system, and the tree is the one that
//! the same commands make in a directory of the host.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "common/decoded_tree.rs"]
mod decoded_tree;
#[path = "common/decoder.rs"]
mod decoder;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::Pool;
use decoder::{Entry, Media, letters};
use serde_json::Value;
use tempfile::TempDir;
use trees::{Kind, Rules, Tree};

const UNIT: u64 = 2 << 20;

/// Who becomes the master.
const MASTER: &str = "33333333-3333-4333-8333-333333333333";

/// A pool, and a directory in which the same is done.
struct Pair {
    pool: Pool,
    host: TempDir,
}

fn run(command: &mut Command) -> Vec<u8> {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    stdout
}

impl Pair {
    fn new(len: u64, mkfs: &[&str]) -> Self {
        let pair = Self { pool: Pool::new(&[], len), host: tempfile::tempdir().unwrap() };
        pair.famfs(&[&["mkfs"], mkfs].concat());
        pair
    }

    fn at(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
        command.arg("--pool").arg(&self.pool.path).args(args);
        command
    }

    fn famfs(&self, args: &[&str]) -> Vec<u8> {
        run(&mut self.command(args))
    }

    /// Runs a program of the host in the directory, and the command of this name in the pool.
    fn both(&self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        self.famfs(&words);
        run(Command::new(words[0]).args(&words[1..]).current_dir(self.host.path()));
    }

    /// Copies the directory into the pool, with what is there already.
    fn copy(&self, options: &[&str]) {
        let from = self.host.path().join(".");
        self.famfs(&[&["cp", "-r"], options, &[from.to_str().unwrap(), "/"]].concat());
    }

    /// Directories tell when names in them changed, on the host only.
    fn touch_directories(&self) {
        let tree = self.tree();
        let is_dir = |entry: &trees::Entry| matches!(entry.kind, Kind::Directory);
        let dirs = tree.entries.iter().filter(|(path, entry)| !path.is_empty() && is_dir(entry));
        let dirs: Vec<&OsStr> = dirs.map(|(path, _)| OsStr::from_bytes(path)).collect();
        let options = ["-h", "-d", "@7.25", "--"];
        run(self.command(&["touch"]).args(options).args(&dirs));
        run(Command::new("touch").args(options).args(&dirs).current_dir(self.host.path()));
    }

    /// The directory, as a pool can have it.
    fn tree(&self) -> Tree {
        let mut tree = Tree::read(self.host.path()).unwrap();
        tree.entries.remove(&Vec::new());
        for entry in tree.entries.values_mut() {
            // Only files have several names in a famfs.
            if matches!(entry.kind, Kind::Symlink(_)) {
                entry.same_as = None;
            }
        }
        tree
    }

    /// Decodes the pool, and compares it with the directory. Both decoders find the same.
    fn check(&self, when: &str) -> Media {
        self.touch_directories();
        let media = Media::read(&self.pool.path);
        let units = media.reference_view();
        let pages = media.store_pages();
        assert!(pages * 4096 <= units * UNIT, "{when}");
        let rules = Rules {
            any_owner: !rustix::process::geteuid().is_root(),
            zeros_for_holes: true,
            ..Rules::default()
        };
        let told = trees::compare(&self.tree(), &decoded_tree::tree(&media), rules).none();
        told.unwrap_or_else(|differs| panic!("{when}: {differs}"));
        self.famfs(&["fsck"]);
        media
    }

    /// What `df` tells, against what the decoder counts. Nothing is deleted.
    fn check_figures(&self, media: &Media) {
        let figures: Value = serde_json::from_slice(&self.famfs(&["df", "--json"])).unwrap();
        let figure = |name: &str| figures[name].as_u64().unwrap();
        let mut used = media.reference_view() * UNIT;
        for file in media.files().values().filter(|file| file.path.starts_with(b".famfs/")) {
            if file.chunk.is_none() {
                used -= file.memory.iter().map(|(_, len)| len).sum::<u64>();
            }
        }
        let in_slabs = |piece: &decoder::Piece| media.files()[&piece.slot].chunk.is_none();
        let held = media.pieces().into_values().flatten().filter(in_slabs);
        used += held.map(|piece| piece.pages * 4096).sum::<u64>();
        let capacity = media.len - UNIT - media.log_len;
        assert_eq!((figure("capacity"), figure("used")), (capacity, used));
        assert_eq!((figure("free"), figure("deleted")), (capacity - used, 0));
        assert!(figure("largest_free") <= capacity - used);
        let slots = (media.log_len - 48) / 544;
        assert_eq!(
            (figure("log_slots"), figure("log_slots_used")),
            (slots, media.entries.len() as u64)
        );
        let mut bytes = 0;
        for entry in self.tree().entries.into_values().filter(|entry| entry.same_as.is_none()) {
            if let Kind::File(contents) = entry.kind {
                bytes += contents.size;
            }
        }
        assert_eq!(figure("file_bytes"), bytes);
    }

    /// Does what commands can do to names and attributes. `conventional` are files without
    /// extensions, if there are any.
    fn change(&self) {
        fs::create_dir(self.at("own")).unwrap();
        for name in ["a", "b", "c", "d", "e"] {
            fs::write(self.at("own").join(name), format!("file {name}")).unwrap();
        }
        fs::create_dir_all(self.at("own/x/y")).unwrap();
        fs::write(self.at("own/x/y/deep"), [7; 5000]).unwrap();
        self.copy(&["--atomic"]);
        let far = format!("ln -s {} own/far", "t".repeat(1500));
        for line in [
            "mkdir -p -m 755 new/deep/er",
            "ln own/a own/hard",
            "ln own/a new/deep/also",
            "ln -s ../nowhere own/symbolic",
            &far,
            "touch -h -d @5 own/far own/symbolic",
            "mv own/b own/moved",
            "mv own/c own/d",
            "mv own/x new/deep/er",
            "mv new/deep/er own",
            "chmod 640 own/hard",
            "chmod -R g+w own/er",
            "touch -d @1795867200.123456789 own/a",
            "touch -d @1.5 own/made",
            "chmod 600 own/made",
            "rm own/e",
            "rm -r names",
            // One name of several goes.
            "rm own/hard",
        ] {
            self.both(line);
        }
        if rustix::process::geteuid().is_root() {
            self.both("chown 5:6 own/a");
            self.both("chown -h 7:8 own/symbolic");
        }
    }
}

fn kinds(media: &Media, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|kind| (*kind).to_owned()).collect();
    assert_eq!(media.kinds(), expected);
}

#[test]
fn a_pool_with_everything_is_clean_for_every_reader() {
    let pair = Pair::new(256 << 20, &[]);
    for name in ["names", "links", "sizes", "sparse", "deep"] {
        trees::plant(name, &pair.at(name)).unwrap();
    }
    pair.copy(&[]);
    let media = pair.check("after a copy");
    assert!(media.marked);
    pair.check_figures(&media);
    // While somebody may use what is removed, nothing becomes void.
    let reader = fs::File::open(&pair.pool.path).unwrap();
    pair.change();
    let media = pair.check("after changes");
    kinds(&media, &["0", "1", "ATTR", "GRUP", "LINK", "LIST", "MOVE", "NAME", "RMOV"]);
    drop(reader);
    pair.famfs(&["reclaim"]);
    let reclaimed = pair.check("after reclaim");
    assert!(reclaimed.kinds().contains("VOID"));
    assert!(reclaimed.store_pages() < media.store_pages());
    pair.famfs(&["compact"]);
    let compacted = pair.check("after compact");
    assert!(!compacted.kinds().contains("VOID"), "entries moved into the slots of void ones");
    assert_eq!(compacted.store_pages(), reclaimed.store_pages());
    pair.check_figures(&compacted);
    // New files take the place of what is gone.
    trees::plant("names", &pair.at("again")).unwrap();
    trees::plant("huggingface", &pair.at("huggingface")).unwrap();
    pair.copy(&[]);
    let media = pair.check("after another copy");
    pair.check_figures(&media);
    trees::remove_all(pair.host.path()).unwrap();
}

#[test]
fn an_upgraded_pool_is_clean_for_every_reader() {
    let pair = Pair::new(2 << 30, &["--reference"]);
    fs::create_dir_all(pair.at("dir/inner")).unwrap();
    for name in ["plain", "dir/one", "dir/inner/two", "gone"] {
        fs::write(pair.at(name), name.repeat(1000)).unwrap();
    }
    pair.copy(&[]);
    let reader = fs::File::open(&pair.pool.path).unwrap();
    pair.both("rm gone");
    pair.famfs(&["creat", "-s", "9000000", "-S", "3", "-B", "2", "-N", "2", "-C", "2m", "striped"]);
    fs::write(pair.at("striped"), pair.famfs(&["cat", "striped"])).unwrap();
    let before = Media::read(&pair.pool.path);
    kinds(&before, &["0", "1", "2"]);
    assert!(!before.marked);
    let units = before.reference_view();

    pair.famfs(&["upgrade"]);
    trees::plant("names", &pair.at("names")).unwrap();
    // The times, which only now have a place.
    pair.copy(&[]);
    let media = pair.check("after the upgrade");
    assert!(media.marked && media.reference_view() > units);
    pair.change();
    for line in [
        "ln plain own/plain",
        "mv dir own/dir",
        "mv own/dir/one other",
        "rm striped",
        "rm -r own/dir/inner",
        "touch -d @99 other",
    ] {
        pair.both(line);
    }
    let media = pair.check("after changes");
    assert!(media.kinds().contains("MOVE") && media.kinds().contains("ATTR"));
    drop(reader);
    pair.famfs(&["compact"]);
    let compacted = pair.check("after compact");
    assert!(compacted.reference_view() < media.reference_view());
    pair.check_figures(&compacted);
    pair.famfs(&["creat", "-s", "9000000", "-S", "4", "-B", "2", "-N", "2", "-C", "2m", "striped"]);
    fs::write(pair.at("striped"), pair.famfs(&["cat", "striped"])).unwrap();
    pair.both("touch -d @98 striped");
    let media = pair.check("after an interleaved file");
    pair.check_figures(&media);
    trees::remove_all(pair.host.path()).unwrap();
}

/// The decoder finds what it is there for: media in which two files share memory, or in which an
/// extension entry holds what nobody owns.
#[test]
fn the_decoder_finds_faults() {
    let pair = Pair::new(64 << 20, &[]);
    fs::write(pair.at("a"), "a").unwrap();
    fs::write(pair.at("b"), "b").unwrap();
    pair.copy(&[]);
    let media = || Media::read(&pair.pool.path);
    let fails = |check: &dyn Fn(Media)| {
        let check = std::panic::AssertUnwindSafe(|| check(media()));
        assert!(std::panic::catch_unwind(check).is_err());
    };
    let again = |media: &mut Media, kind: u32| {
        let entry = media.entries.iter().find(|entry| entry.kind == kind).unwrap();
        let next = Entry { slot: media.entries.len() as u64, ..entry.clone() };
        media.entries.push(next);
    };
    media().reference_view();
    media().store_pages();
    fails(&|mut media| {
        again(&mut media, 0);
        media.reference_view();
    });
    fails(&|mut media| {
        again(&mut media, letters(*b"NAME"));
        media.store_pages();
    });
    fails(&|mut media| {
        media.entries.retain(|entry| entry.kind != 0);
        media.store_pages();
    });
    fails(&|mut media| {
        media.len = UNIT + media.log_len;
        media.reference_view();
    });
}

/// Tries every command that changes something on a pool without extensions: it works with
/// conventional entries, or is refused and names the way out. No extension entry is ever written.
#[test]
fn a_reference_pool_gets_no_extension_entry() {
    let pair = Pair::new(256 << 20, &["--reference"]);
    let archive = |name: &str, source: &Path| {
        let path = pair.at(name);
        run(Command::new("tar").arg("-cf").arg(&path).arg("-C").arg(source).arg("."));
        path.to_str().unwrap().to_owned()
    };
    let (simple, links) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(simple.path().join("dir")).unwrap();
    fs::write(simple.path().join("dir/file"), "text").unwrap();
    trees::plant("links", &links.path().join("links")).unwrap();
    let (good, bad) = (archive("good.tar", simple.path()), archive("bad.tar", links.path()));
    let sources = [simple.path().join("."), links.path().join("links")];
    let [plain, rich] = sources.each_ref().map(|path| path.to_str().unwrap());
    let long = "n".repeat(80);
    // What works, in order, and in between what does not, with what the message must name.
    let upgrade = Some("famfs upgrade");
    let cases: [(&[&str], Option<&str>); 27] = [
        (&["mkdir", "-p", "d/e"], None),
        (&["mkdir", &long], upgrade),
        (&["creat", "-s", "3000000", "-S", "1", "d/file"], None),
        (&["creat", "-s", "1", &long], upgrade),
        (&["creat", "-s", "0", "d/empty"], upgrade),
        (&["cp", "-r", plain, "/"], None),
        (&["cp", "-r", "--threads", "2", plain, "/d"], None),
        (&["cp", "-r", rich, "/d"], upgrade),
        (&["cp", "-r", "--skip-unsupported", rich, "/d"], None),
        (&["cp", "-r", "--atomic", plain, "/d/e"], upgrade),
        (&["import", "--input", &good, "/d/e"], None),
        (&["import", "--input", &bad, "/d/e"], upgrade),
        (&["import", "--skip-unsupported", "--input", &bad, "/d/e"], None),
        (&["ln", "d/file", "hard"], upgrade),
        (&["ln", "-s", "d", "symbolic"], upgrade),
        (&["mv", "d/file", "moved"], upgrade),
        (&["mv", "d", "moved"], upgrade),
        (&["chmod", "600", "d/file"], upgrade),
        (&["chmod", "-R", "600", "d"], upgrade),
        (&["chown", "1:1", "d/file"], upgrade),
        (&["touch", "-d", "@1", "d/file"], upgrade),
        (&["touch", "new"], upgrade),
        (&["rm", "d/file"], None),
        (&["rm", "-r", "dir"], None),
        (&["compact"], None),
        (&["takeover", "--yes", "--system-uuid", MASTER], None),
        (&["cp", "-r", plain, "/"], None),
    ];
    for (args, way_out) in cases {
        let output = pair.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        match way_out {
            None => assert!(output.status.success(), "{args:?}: {said}"),
            Some(way_out) => {
                assert!(!output.status.success(), "{args:?}");
                assert!(said.contains(way_out), "{args:?}: {said}");
            }
        }
        let media = Media::read(&pair.pool.path);
        media.reference_view();
        assert!(!media.marked, "{args:?}");
        let known = ["0", "1", "2", "VOID"];
        assert!(media.kinds().iter().all(|kind| known.contains(&&**kind)), "{args:?}");
    }
    pair.famfs(&["fsck"]);
}
