// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The trees are what they say, the same each time, and survive cp(1).
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use trees::{Kind, Rules, TREES, Tree, compare, compare_directories, remove_all};

const ANY_ROOT: Rules = Rules { zeros_for_holes: false, any_owner: false, any_root: true };

/// A directory that also goes where the trees in it are read-only.
struct Place(Option<TempDir>);

impl Place {
    fn new() -> Self {
        Self(Some(TempDir::new().unwrap()))
    }

    fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take() {
            remove_all(&dir.keep()).unwrap();
        }
    }
}

#[test]
fn each_tree_survives_cp_and_its_manifest_says_so() {
    let place = Place::new();
    for (name, _) in TREES {
        let (source, copy) = (place.path().join("s"), place.path().join("c"));
        trees::plant(name, &source).unwrap();
        // From inside, as the longest paths leave no room for another directory.
        let copied = Command::new("cp")
            .args(["-a", "--sparse=auto", "-T", ".", "../c"])
            .current_dir(&source)
            .status();
        assert!(copied.unwrap().success(), "{name}");
        let tree = Tree::read(&source).unwrap();
        compare(&tree, &Tree::read(&copy).unwrap(), ANY_ROOT).none().unwrap();
        let text = tree.to_string();
        assert_eq!(text.parse::<Tree>().unwrap(), tree, "{name}");
        assert_eq!(text.lines().count(), tree.entries.len(), "{name}");
        println!("{name}: {} names", tree.entries.len());
        remove_all(&source).unwrap();
        remove_all(&copy).unwrap();
    }
}

#[test]
fn a_tree_is_the_same_each_time() {
    let place = Place::new();
    // The index of Git holds inode numbers.
    for (name, _) in TREES.iter().filter(|(name, _)| *name != "git") {
        let read = |dir: &str| {
            let dir = place.path().join(dir);
            trees::plant(name, &dir).unwrap();
            let mut tree = Tree::read(&dir).unwrap();
            tree.remove(b"now");
            remove_all(&dir).unwrap();
            tree
        };
        compare(&read("a"), &read("b"), ANY_ROOT).none().unwrap();
    }
}

/// What the issue asks for is there.
#[test]
fn the_trees_have_what_is_hard() {
    let place = Place::new();
    trees::plant_all(place.path()).unwrap();
    let tree = Tree::read(place.path()).unwrap();
    let longest = tree.entries.keys().map(Vec::len).max().unwrap();
    assert!((3990..4096).contains(&longest), "{longest}");
    let parts = |path: &Vec<u8>| path.split(|byte| *byte == b'/').map(<[u8]>::len).max().unwrap();
    assert_eq!(tree.entries.keys().map(parts).max(), Some(255));
    for byte in (1..=255_u8).filter(|byte| *byte != b'/') {
        assert!(tree.entries.keys().any(|path| path.contains(&byte)), "{byte}");
    }
    let sparse = &tree.entries[&b"sparse/four GiB"[..]];
    let Kind::File(contents) = &sparse.kind else { panic!("{sparse:?}") };
    assert_eq!((contents.size, contents.data.len()), (4 << 30, 4));
    let sparse = &tree.entries[&b"sparse/only a hole"[..]];
    assert!(matches!(&sparse.kind, Kind::File(contents) if contents.data.is_empty()));
    let link = &tree.entries[&b"links/dir/file"[..]];
    assert_eq!(link.same_as.as_deref(), Some(&b"links/a first name"[..]));
    assert_eq!(tree.entries[&b"debian/usr/bin/passwd"[..]].mode, 0o4755);
    assert_eq!(tree.entries[&b"debian/tmp"[..]].mode, 0o1777);
    assert_eq!(tree.entries[&b"times/1969/dir"[..]].time.seconds, -1);
    let objects: Vec<_> = tree
        .entries
        .iter()
        .filter(|(path, _)| path.starts_with(b"git/clone/.git/objects"))
        .collect();
    assert!(objects.iter().any(|(path, _)| path.ends_with(b".pack")));
    let loose = objects.iter().filter(|(path, entry)| path.len() > 60 && entry.mode == 0o444);
    assert!(loose.count() > 2);
}

#[test]
fn many_small_files() {
    let place = Place::new();
    let bytes = trees::plant_many(place.path(), 1000).unwrap();
    let tree = Tree::read(place.path()).unwrap();
    assert_eq!(tree.entries.len(), 1 + 10 + 1000);
    let sizes = tree.entries.values().filter_map(|entry| match &entry.kind {
        Kind::File(contents) => Some(contents.size),
        _ => None,
    });
    assert_eq!(sizes.clone().sum::<u64>(), bytes);
    assert!(sizes.clone().all(|size| (1..=4096).contains(&size)));
}

/// The layers, applied by tar(1) and rm(1) in the way that the image specification says.
#[test]
fn the_image_stands_for_its_tree() {
    let place = Place::new();
    let (image, out, expected) =
        (place.path().join("image"), place.path().join("out"), place.path().join("expected"));
    trees::plant_oci_image(&image).unwrap();
    trees::plant_oci_result(&expected).unwrap();
    fs::create_dir(&out).unwrap();
    let blob = |value: &serde_json::Value| {
        let digest = value["digest"].as_str().unwrap().trim_start_matches("sha256:");
        image.join("blobs/sha256").join(digest)
    };
    let read = |path: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let manifest = read(&blob(&read(&image.join("index.json"))["manifests"][0]));
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    for layer in layers {
        let list = Command::new("tar").arg("-taf").arg(blob(layer)).output().unwrap();
        assert!(list.status.success(), "{list:?}");
        let names = String::from_utf8(list.stdout).unwrap();
        let whiteouts: Vec<_> = names.lines().filter(|name| name.contains(".wh.")).collect();
        for name in &whiteouts {
            let opaque = name.strip_suffix("/.wh..wh..opq").map(|dir| format!("{dir}/old"));
            let gone = out.join(opaque.unwrap_or_else(|| name.replace(".wh.", "")));
            assert!(Command::new("rm").arg("-rf").arg(gone).status().unwrap().success());
        }
        let mut tar = Command::new("tar");
        tar.args(["--exclude=.wh.*", "--numeric-owner", "-xpaf"]).arg(blob(layer));
        assert!(tar.arg("-C").arg(&out).status().unwrap().success());
    }
    // The times of directories are those of their last change, and some are in no layer.
    let mut out = Tree::read(&out).unwrap();
    let expected = Tree::read(&expected).unwrap();
    for (path, entry) in &mut out.entries {
        if entry.kind == Kind::Directory {
            entry.time = expected.entries[path].time;
        }
    }
    compare(&expected, &out, ANY_ROOT).none().unwrap();
}

#[test]
fn a_change_is_found_on_disk() {
    let place = Place::new();
    let (source, copy) = (place.path().join("a"), place.path().join("b"));
    trees::plant("maven", &source).unwrap();
    trees::plant("maven", &copy).unwrap();
    fs::write(copy.join("settings.xml"), "<Settings/>\n").unwrap();
    let error = compare_directories(&source, &copy, ANY_ROOT).unwrap_err().to_string();
    assert!(error.starts_with("2 differences\n  settings.xml: bytes with digest"), "{error}");
}
