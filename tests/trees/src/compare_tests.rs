// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Each kind of difference is seen, on the directories and in their manifests.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::plant::Plant;

const STRICT: Rules = Rules { zeros_for_holes: false, any_owner: false, any_root: false };

fn make(dir: &Path) {
    let plant = Plant::create(dir).unwrap();
    plant.file("dir/file", "some bytes").unwrap();
    plant.link("dir/same", "dir/file").unwrap();
    plant.file("dir/other", "some bytes").unwrap();
    plant.symlink("link", "dir/file").unwrap();
    plant.sparse("sparse", 5 * 4096, [(0, 4096), (4 * 4096, 10)]).unwrap();
    plant.dir("empty").unwrap();
    plant.finish().unwrap();
    set_root_time(dir);
}

/// Gives the directory itself the same time each time.
fn set_root_time(dir: &Path) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::open(dir).unwrap().set_modified(time).unwrap();
}

/// What is found after a change of the copy, of which times of directories are set back.
fn found(rules: Rules, change: impl Fn(&Path)) -> Vec<String> {
    let dir = TempDir::new().unwrap();
    let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
    make(&source);
    make(&copy);
    change(&copy);
    for inner in ["", "dir", "empty"] {
        if let (Ok(from), Ok(to)) =
            (fs::metadata(source.join(inner)), fs::File::open(copy.join(inner)))
        {
            to.set_modified(from.modified().unwrap()).unwrap();
        }
    }
    let (source, copy) = (Tree::read(&source).unwrap(), Tree::read(&copy).unwrap());
    let differences = compare(&source, &copy, rules);
    // The same through text, as from a virtual machine.
    let parsed: Tree = copy.to_string().parse().unwrap();
    assert_eq!(parsed, copy);
    differences.0
}

fn expect(rules: Rules, expected: &[&str], change: impl Fn(&Path)) {
    let found = found(rules, change);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (text, expected) in found.iter().zip(expected) {
        assert!(text.contains(expected), "{text}, expected {expected}");
    }
}

/// Changes a file and sets its time back.
fn keeping_time(path: &Path, change: impl Fn(&Path)) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    change(path);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn equal_trees_have_no_difference() {
    expect(STRICT, &[], |_| {});
}

#[test]
fn names_types_and_targets() {
    expect(STRICT, &["empty: missing"], |copy| fs::remove_dir(copy.join("empty")).unwrap());
    expect(STRICT, &["dir/a: not in the source, is a directory"], |copy| {
        fs::create_dir(copy.join("dir/a")).unwrap();
    });
    expect(STRICT, &["link: target dir/other, expected dir/file", "link: time"], |copy| {
        fs::remove_file(copy.join("link")).unwrap();
        symlink("dir/other", copy.join("link")).unwrap();
    });
    expect(STRICT, &["empty: is a symbolic link, expected a directory"], |copy| {
        fs::remove_dir(copy.join("empty")).unwrap();
        symlink("nowhere", copy.join("empty")).unwrap();
    });
}

#[test]
fn bytes_and_sizes() {
    let write = |content: &'static str| {
        move |copy: &Path| {
            keeping_time(&copy.join("dir/other"), |path| fs::write(path, content).unwrap());
        }
    };
    expect(STRICT, &["dir/other: bytes"], write("some Bytes"));
    expect(STRICT, &["dir/other: size 11, expected 10"], write("some bytes!"));
    expect(STRICT, &["dir/other: size 0, expected 10"], write(""));
}

#[test]
fn modes_owners_and_times() {
    expect(STRICT, &["dir: mode 0555, expected 0755"], |copy| {
        fs::set_permissions(copy.join("dir"), fs::Permissions::from_mode(0o555)).unwrap();
    });
    expect(STRICT, &["dir/other: mode 4644, expected 0644"], |copy| {
        fs::set_permissions(copy.join("dir/other"), fs::Permissions::from_mode(0o4644)).unwrap();
    });
    expect(STRICT, &["dir/other: time 0.000000001, expected"], |copy| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1);
        fs::File::open(copy.join("dir/other")).unwrap().set_modified(time).unwrap();
    });
    let mut source = Tree::default();
    let entry = Entry {
        kind: Kind::Directory,
        mode: 0o755,
        user: 0,
        group: 0,
        time: Time { seconds: 1, nanoseconds: 0 },
        same_as: None,
    };
    source.entries.insert(Vec::new(), entry.clone());
    source.entries.insert(b"a".to_vec(), entry.clone());
    let mut copy = source.clone();
    copy.entries.insert(b"a".to_vec(), Entry { group: 5, ..entry.clone() });
    assert_eq!(compare(&source, &copy, STRICT).0, ["a: owner 0:5, expected 0:0"]);
    let rules = Rules { any_owner: true, ..STRICT };
    assert_eq!(compare(&source, &copy, rules), Differences::default());
    copy = source.clone();
    copy.entries.insert(Vec::new(), Entry { mode: 0o700, ..entry });
    assert_eq!(compare(&source, &copy, STRICT).0, [".: mode 0700, expected 0755"]);
    let rules = Rules { any_root: true, ..STRICT };
    assert_eq!(compare(&source, &copy, rules), Differences::default());
}

#[test]
fn hard_links() {
    expect(STRICT, &["dir/same: is a file of its own, expected a hard link to dir/file"], |copy| {
        let same = copy.join("dir/same");
        keeping_time(&same, |_| {
            fs::remove_file(&same).unwrap();
            fs::copy(copy.join("dir/other"), &same).unwrap();
        });
    });
    let differences = found(STRICT, |copy| {
        fs::remove_file(copy.join("dir/other")).unwrap();
        fs::hard_link(copy.join("dir/file"), copy.join("dir/other")).unwrap();
    });
    let own = "dir/other: is a hard link to dir/file, expected a file of its own";
    assert!(differences.iter().any(|text| text == own), "{differences:?}");
}

#[test]
fn holes() {
    let fill = |copy: &Path| {
        keeping_time(&copy.join("sparse"), |path| {
            let content = fs::read(path).unwrap();
            fs::write(path, content).unwrap();
        });
    };
    expect(STRICT, &["sparse: data at 4096 to 16384, expected a hole"], fill);
    expect(Rules { zeros_for_holes: true, ..STRICT }, &[], fill);
}

#[test]
fn ranges_of_data_are_compared_by_what_they_cover() {
    // In pages; the last one is a part of one.
    let contents = |data: &[(u64, u64)]| Contents {
        size: 20 * PAGE - 1,
        digest: [0; 32],
        data: data.iter().map(|(start, end)| start * PAGE..end * PAGE).collect(),
    };
    let filled = |source: &[_], copy: &[_]| {
        filled_hole(&contents(source), &contents(copy)).map(|r| (r.start / PAGE, r.end / PAGE))
    };
    assert_eq!(filled(&[(0, 4), (4, 8), (12, 16)], &[(0, 8), (12, 16)]), None);
    assert_eq!(filled(&[(0, 4), (8, 16)], &[(2, 9)]), Some((4, 8)));
    assert_eq!(filled(&[(0, 4)], &[(0, 4), (8, 12)]), Some((8, 12)));
    assert_eq!(filled(&[(4, 8)], &[(0, 8)]), Some((0, 4)));
    assert_eq!(filled(&[], &[(0, 4)]), Some((0, 4)));
    let more_holes = [(2, 3), (4, 5), (16, 17)];
    assert_eq!(filled(&[(0, 8), (16, 20)], &more_holes), None);
    assert_eq!(filled(&[(0, 8)], &[(0, 8), (19, 20)]), None);
    assert_eq!(filled(&[(0, 8)], &[(0, 8), (18, 20)]), Some((18, 19)));
}

#[test]
fn twenty_differences_are_printed_and_all_counted() {
    let text = Differences((0..23).map(|number| format!("file {number}")).collect()).to_string();
    assert!(text.starts_with("23 differences\n  file 0\n"), "{text}");
    assert!(text.contains("file 19") && !text.contains("file 20"), "{text}");
    assert!(text.ends_with("and 3 more"), "{text}");
}
