// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tar archives out of pools and into them.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use common::Pool;
use tar::{Builder, EntryType, Header};

const MIB: u64 = 1 << 20;

fn famfs(pool: &Pool, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    command.arg("--pool").arg(&pool.path).args(args);
    command
}

fn run(pool: &Pool, args: &[&str]) -> Vec<u8> {
    let Output { status, stdout, stderr } = famfs(pool, args).output().unwrap();
    assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    stdout
}

/// Pipes an archive into a command. A command that gives up early does not read all of it.
fn pipe(pool: &Pool, args: &[&str], archive: &[u8]) -> (Option<i32>, String, String) {
    let mut command = famfs(pool, args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(archive);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn formatted(len: u64) -> Pool {
    let pool = Pool::new(&[], len);
    run(&pool, &["mkfs"]);
    pool
}

/// A file, or without bytes and with a slash at its end a directory.
fn member(builder: &mut Builder<Vec<u8>>, name: &str, mode: u32, bytes: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(1000);
    header.set_gid(100);
    header.set_size(bytes.len() as u64);
    if name.ends_with('/') {
        header.set_entry_type(EntryType::Directory);
    }
    builder.append_data(&mut header, name, bytes).unwrap();
}

/// Small files of every kind, and a large one.
fn dataset() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    member(&mut builder, "small/", 0o750, b"");
    for number in 0..40 {
        member(&mut builder, &format!("small/{number}"), 0o640, &[number; 700]);
    }
    // One without a member has the time of the import.
    member(&mut builder, "small/deep/", 0o755, b"");
    member(&mut builder, &format!("small/deep/{}", "n".repeat(120)), 0o600, b"long name");
    member(&mut builder, "small/empty", 0o600, b"");
    member(&mut builder, "large", 0o444, &vec![7; 5 << 20]);
    builder.into_inner().unwrap()
}

/// Mode, owner and bytes of every member by its name.
fn contents(archive: &[u8]) -> BTreeMap<String, (u32, u64, u64, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    let members = entries.filter(|entry| !entry.header().entry_type().is_pax_global_extensions());
    let members = members.map(|mut entry| {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let name = entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
        let header = entry.header();
        let owner = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        (name, (owner.0, owner.1, owner.2, bytes))
    });
    members.collect()
}

#[test]
fn a_stream_from_one_pool_to_another_keeps_everything() {
    let (from, to) = (formatted(256 * MIB), formatted(256 * MIB));
    let (code, stdout, stderr) = pipe(&from, &["import"], &dataset());
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout, "43 files, 2 directories, 0 skipped, 5.03 MiB\n");
    let archive = run(&from, &["export"]);
    run(&to, &["mkdir", "/copy"]);
    let (code, _, stderr) = pipe(&to, &["import", "/copy"], &archive);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(run(&to, &["export", "/copy"]), archive);
    let found = contents(&archive);
    let dataset = contents(&dataset());
    assert_eq!(found["small/7"], dataset["small/7"]);
    assert_eq!(found["large"], dataset["large"]);
    assert_eq!(found["small"], dataset["small"]);
    let one = contents(&run(&to, &["export", "/copy/small/7"]));
    assert_eq!(one.keys().collect::<Vec<_>>(), ["7"]);
    run(&to, &["fsck"]);
}

/// A pack as earlier versions made them.
fn pack() -> Vec<u8> {
    let record = b"24 comment=famfs pack 1\n";
    let mut mark = Header::new_ustar();
    mark.set_entry_type(EntryType::XGlobalHeader);
    mark.set_size(record.len() as u64);
    mark.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&mark, &record[..]).unwrap();
    member(&mut builder, "./", 0o750, b"");
    member(&mut builder, "7", 0o640, &[7; 700]);
    member(&mut builder, &"n".repeat(120), 0o600, b"long name");
    member(&mut builder, "empty", 0o600, b"");
    builder.into_inner().unwrap()
}

/// A pack comes in as it is, and goes out as the directory that it was made from.
#[test]
fn packs_of_earlier_versions_are_read() {
    let (pool, again) = (formatted(64 * MIB), formatted(64 * MIB));
    let mut builder = Builder::new(Vec::new());
    member(&mut builder, "small.tar", 0o640, &pack());
    let (code, _, stderr) = pipe(&pool, &["import"], &builder.into_inner().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    let out = run(&pool, &["export"]);
    let found = contents(&out);
    let long = format!("small/{}", "n".repeat(120));
    let names = ["small", "small/7", "small/empty", &long];
    assert_eq!(found.keys().collect::<Vec<_>>(), names);
    assert_eq!(found["small/7"], (0o640, 1000, 100, vec![7; 700]));
    let kept = run(&pool, &["export", "--keep-packs"]);
    assert_eq!(contents(&kept)["small.tar"].3, pack());
    for (archive, count) in [(out, "3 files, 1 directory"), (kept, "1 file, 0 directories")] {
        let (code, stdout, stderr) = pipe(&again, &["import"], &archive);
        assert!(code == Some(0) && stdout.starts_with(count), "{stdout} {stderr}");
    }
    // What only looks like a pack stays a file.
    let mut plain = Builder::new(Vec::new());
    member(&mut plain, "x", 0o600, b"x");
    let file = pool.path.with_file_name("plain.tar");
    std::fs::write(&file, plain.into_inner().unwrap()).unwrap();
    run(&pool, &["cp", file.to_str().unwrap(), "/plain.tar"]);
    assert!(contents(&run(&pool, &["export"])).contains_key("plain.tar"));
}

#[test]
fn hostile_archives_are_refused_before_anything_is_written() {
    let pool = formatted(64 * MIB);
    let file = pool.path.with_extension("tar");
    let import = ["import", "--input", file.to_str().unwrap()];
    let odd = |change: &dyn Fn(&mut Header)| {
        let mut header = Header::new_gnu();
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(4);
        header.as_old_mut().name[..3].copy_from_slice(b"odd");
        change(&mut header);
        header.set_cksum();
        header
    };
    let name = |name: &'static [u8]| {
        move |header: &mut Header| header.as_old_mut().name[..name.len()].copy_from_slice(name)
    };
    for (header, message) in [
        (odd(&name(b"../up")), "../up: path \"../up\" leaves the file system through \"..\""),
        (odd(&name(b"/abs")), "/abs: path \"/abs\" is absolute"),
        (odd(&name(b".meta/.log")), ".meta/.log: name \".meta\" is reserved in the root directory"),
        (odd(&|h| h.set_entry_type(EntryType::Symlink)), "odd: symbolic link with a target of 0"),
        (odd(&|h| h.set_entry_type(EntryType::Link)), "odd: path \"\" names the root"),
        (odd(&name(b".famfs/x")), ".famfs/x: name \".famfs\" is reserved in the root directory"),
        (odd(&|h| h.set_entry_type(EntryType::Block)), "odd: device"),
        (odd(&|h| h.set_uid(u64::MAX >> 1)), "odd: owner"),
        (odd(&|h| h.set_size(1 << 50)), "the archive was cut short"),
        (odd(&|h| h.set_size(u64::MAX)), "cannot read the archive"),
    ] {
        let mut builder = Builder::new(Vec::new());
        member(&mut builder, "good", 0o600, b"good");
        let mut archive = builder.into_inner().unwrap();
        archive.truncate(1024);
        archive.extend(header.as_bytes());
        archive.extend([0; 512 + 1024]);
        std::fs::write(&file, &archive).unwrap();
        let Output { status, stderr, .. } = famfs(&pool, &import).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(status.code() == Some(1) && stderr.contains(message), "{message}: {stderr}");
        assert!(run(&pool, &["ls"]).is_empty(), "{message}");
        if message.contains("archive") {
            let name = format!("cannot unpack {}: ", file.display());
            assert!(stderr.contains(&name), "{stderr}");
        }
        // From a pipe the first member is complete before the second is seen.
        let (code, _, stderr) = pipe(&pool, &["import"], &archive);
        assert_eq!(code, Some(1), "{message}: {stderr}");
        assert_eq!(run(&pool, &["cat", "/good"]), b"good", "{message}: {stderr}");
        run(&pool, &["fsck"]);
        run(&pool, &["mkfs", "--force"]);
    }
}

#[test]
fn names_that_are_taken_and_files_that_do_not_fit_are_named() {
    let pool = formatted(16 * MIB);
    let mut builder = Builder::new(Vec::new());
    member(&mut builder, "a", 0o600, b"first");
    member(&mut builder, "a", 0o600, b"again");
    member(&mut builder, "a/below", 0o600, b"below a file");
    let (code, _, stderr) = pipe(&pool, &["import"], &builder.into_inner().unwrap());
    let again = "\"a\" is in the archive twice, and its first version is already in place";
    assert!(code == Some(1) && stderr.contains(again), "{stderr}");
    let mut builder = Builder::new(Vec::new());
    member(&mut builder, "a", 0o600, b"first");
    let (code, _, stderr) = pipe(&pool, &["import"], &builder.into_inner().unwrap());
    assert!(code == Some(1) && stderr.contains("a: \"a\" exists already"), "{stderr}");
    let mut builder = Builder::new(Vec::new());
    member(&mut builder, "large", 0o600, &vec![1; 14 << 20]);
    let (code, _, stderr) = pipe(&pool, &["import"], &builder.into_inner().unwrap());
    assert!(code == Some(1) && stderr.contains("no space"), "{stderr}");
    assert_eq!(run(&pool, &["cat", "/a"]), b"first");
}

#[test]
fn a_pack_that_was_damaged_is_named_and_can_be_kept() {
    let pool = formatted(64 * MIB);
    let file = pool.path.with_extension("tar");
    let mut pack = pack();
    pack[3072..3584].fill(0x55);
    std::fs::write(&file, &pack).unwrap();
    run(&pool, &["cp", file.to_str().unwrap(), "/small.tar"]);
    let Output { status, stderr, .. } = famfs(&pool, &["export"]).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    let message = "\"small.tar\" is marked as a pack, but cannot be unpacked; use --keep-packs";
    assert!(status.code() == Some(1) && stderr.contains(message), "{stderr}");
    assert_eq!(contents(&run(&pool, &["export", "--keep-packs"]))["small.tar"].3, pack);
}

/// An archive that tar has appended to.
#[test]
fn the_last_member_of_a_name_counts() {
    let pool = formatted(64 * MIB);
    let file = pool.path.with_extension("tar");
    let mut builder = Builder::new(Vec::new());
    member(&mut builder, "d/one", 0o600, b"first");
    member(&mut builder, "gone", 0o600, b"not empty");
    member(&mut builder, "d/", 0o700, b"");
    member(&mut builder, "d/one", 0o640, b"second");
    member(&mut builder, "d/", 0o750, b"");
    member(&mut builder, "d/one", 0o644, b"third and last");
    member(&mut builder, "gone", 0o600, b"");
    std::fs::write(&file, builder.into_inner().unwrap()).unwrap();
    let import = ["import", "--json", "--input", file.to_str().unwrap()];
    let report: serde_json::Value = serde_json::from_slice(&run(&pool, &import)).unwrap();
    assert_eq!((&report["files"], &report["superseded"]), (&2.into(), &3.into()), "{report}");
    let found = contents(&run(&pool, &["export"]));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["d", "d/one", "gone"]);
    assert_eq!(found["gone"].3, b"", "the last one is empty");
    assert_eq!((found["d"].0, found["d/one"].0), (0o750, 0o644));
    assert_eq!(found["d/one"].3, b"third and last");
}

#[test]
fn a_directory_that_is_there_gets_the_attributes_of_its_member() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("d.tar");
    let mut builder = Builder::new(Vec::new());
    member(&mut builder, "d/", 0o700, b"");
    member(&mut builder, "d/secret", 0o600, b"secret");
    std::fs::write(&file, builder.into_inner().unwrap()).unwrap();
    let import = ["import", "--input", file.to_str().unwrap()];
    for reference in [false, true] {
        let pool = Pool::new(&[], 64 * MIB);
        run(&pool, if reference { &["mkfs", "--reference"] } else { &["mkfs"] });
        run(&pool, &["mkdir", "-m", "755", "/d"]);
        if !reference {
            run(&pool, &import);
            let found = contents(&run(&pool, &["export"]));
            assert_eq!((found["d"].0, found["d"].1), (0o700, 1000));
            continue;
        }
        // Without extensions it keeps its own.
        let Output { status, stderr, .. } = famfs(&pool, &import).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        let message = "d: \"d\" exists with owner and mode";
        assert!(status.code() == Some(1) && stderr.contains(message), "{stderr}");
        let done = run(&pool, &[&import[..], &["--skip-unsupported"]].concat());
        assert!(String::from_utf8_lossy(&done).contains(message), "{done:?}");
        assert_eq!(run(&pool, &["cat", "/d/secret"]), b"secret");
    }
}

#[test]
fn values_with_line_breaks_are_read_and_attributes_are_told() {
    let pool = formatted(64 * MIB);
    let file = pool.path.with_extension("tar");
    let mut builder = Builder::new(Vec::new());
    let capability = b"\x01\0\0\x02\x0a\0\0\0";
    let records = [("SCHILY.xattr.security.capability", &capability[..])];
    builder.append_pax_extensions(records).unwrap();
    member(&mut builder, "prog", 0o755, b"program");
    builder.append_pax_extensions([("SCHILY.xattr.user.a", &b"1\n2"[..])]).unwrap();
    member(&mut builder, "other", 0o755, b"other");
    std::fs::write(&file, builder.into_inner().unwrap()).unwrap();
    let import = ["import", "-v", "--input", file.to_str().unwrap()];
    let Output { status, stdout, stderr } = famfs(&pool, &import).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success(), "{stderr}");
    assert!(stdout.contains("not kept of prog: capabilities\n"), "{stdout}");
    let summary = "not kept: extended attributes of 1 file, capabilities of 1 file";
    assert!(stderr.contains(summary), "{stderr}");
    assert_eq!(run(&pool, &["cat", "/prog", "/other"]), b"programother");
}

fn compressed(kind: &str, bytes: &[u8]) -> Vec<u8> {
    match kind {
        "gz" => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::stream::encode_all(bytes, 1).unwrap(),
    }
}

#[test]
fn compressed_archives_are_unpacked_from_files_and_pipes() {
    let archive = dataset();
    let plain = formatted(256 * MIB);
    pipe(&plain, &["import", "--skip-unsupported"], &archive);
    let expected = run(&plain, &["export"]);
    for kind in ["gz", "xz", "zst"] {
        let bytes = compressed(kind, &archive);
        let file = plain.path.with_extension(kind);
        std::fs::write(&file, &bytes).unwrap();
        let by_pipe = formatted(256 * MIB);
        let (code, _, stderr) = pipe(&by_pipe, &["import", "--skip-unsupported"], &bytes);
        assert_eq!(code, Some(0), "{kind}: {stderr}");
        assert!(run(&by_pipe, &["export"]) == expected, "{kind} from a pipe");
        let by_file = formatted(256 * MIB);
        let import = ["import", "--skip-unsupported", "--input", file.to_str().unwrap()];
        run(&by_file, &[&import[..], &["--dry-run"]].concat());
        assert!(run(&by_file, &["ls"]).is_empty());
        run(&by_file, &import);
        assert!(run(&by_file, &["export"]) == expected, "{kind} from a file");
        run(&by_file, &["fsck"]);
        // An incomplete stream is refused before anything is written.
        for damaged in [&bytes[..bytes.len() - 3], &[&bytes[..], b"garbage"].concat()] {
            std::fs::write(&file, damaged).unwrap();
            let pool = formatted(256 * MIB);
            let output = famfs(&pool, &import).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{kind}: {output:?}");
            assert!(run(&pool, &["ls"]).is_empty(), "{kind}");
            let (code, ..) = pipe(&pool, &["import", "--skip-unsupported"], damaged);
            assert_eq!(code, Some(1), "{kind}");
        }
    }
}

#[test]
fn what_is_no_archive_is_described_without_its_text() {
    let pool = formatted(64 * MIB);
    for (bytes, found) in [
        (&b"password: secret\n"[..], "it is text"),
        (b"BZh91AY&SY", "it is compressed with bzip2"),
        (b"", "it is empty"),
    ] {
        let (code, _, stderr) = pipe(&pool, &["import"], bytes);
        assert!(code == Some(1) && stderr.contains(found), "{stderr}");
        assert!(!stderr.contains("secret"), "{stderr}");
    }
}
