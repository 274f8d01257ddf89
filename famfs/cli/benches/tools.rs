// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The speed and memory use that the tools promise, each against a limit or against plain file work
//! in the same run. Prints one JSON object per line; `cargo xtask bench tools` makes a table.
//!
//! Pools are sparse files in memory, so that no disk is measured.
#![allow(clippy::unwrap_used, reason = "a benchmark may end where it fails")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use famfs::format::map::{Extent, FileMap};
use famfs::format::path::RelPath;
use famfs::format::{ALLOC_UNIT, ENTRY_LEN, EntryKind, FileBody};
use famfs::media::{Media, PoolFile};
use famfs::replay::{NodeKind, Owner, Plan};
use famfs::store::log::Log;
use famfs::store::mkfs::{self, mkfs};
use famfs::store::superblock::Superblock;
use famfs::sys::dax::{Access, Mapping};
use famfs::write::prng::SeededBytes;
use famfs::write::volume::OfflineVolume;
use famfs::write::writer::{WriteError, Writer};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use uuid::Uuid;
use zerocopy::{FromZeros, IntoBytes, little_endian::U64};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// How often a value is measured; the median counts.
const ROUNDS: usize = 5;
/// Files of one byte that an 8 MiB log has slots for, with what holds their pages.
const SMALL_LOG: u64 = 15_380;
/// Files that a 512 MiB log has slots for.
const LARGE_LOG: u64 = 986_894;
/// Size of the file that is copied.
const COPIED: usize = 512 << 20;
/// Small files that are copied, and the directories that they are in.
const SMALL_FILES: usize = 100_000;
const SMALL_DIRS: usize = 1000;
/// Bytes that a thread of the plain copy moves at a time.
const STEP: usize = 2 << 20;

fn main() {
    // Cargo passes this for a benchmark, but not for a test of it.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
    create(dir.path());
    large_log(dir.path());
    copy(dir.path());
    small_files(dir.path());
    mkfs_of_a_tebibyte(dir.path());
}

/// A value that must not pass a limit.
fn limited(id: &str, what: &str, unit: &str, value: f64, lower: bool, limit: f64) {
    report(id, what, unit, value, ("the limit", limit), (lower, 1.0));
}

fn report(
    id: &str,
    what: &str,
    unit: &str,
    value: f64,
    (peer, peer_value): (&str, f64),
    (lower, goal): (bool, f64),
) {
    println!(
        "{}",
        json!({
            "id": id, "what": what, "unit": unit, "value": value,
            "peer": peer, "peer_value": peer_value, "lower_is_better": lower, "goal": goal,
        })
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn seconds(op: impl FnOnce()) -> f64 {
    let start = Instant::now();
    op();
    start.elapsed().as_secs_f64()
}

/// Processor time that this thread used, whatever else the machine does.
fn processor_seconds(op: impl FnOnce()) -> f64 {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
    };
    let start = now();
    op();
    now() - start
}

/// A new pool file of `len` bytes with an empty file system.
fn pool(dir: &Path, len: u64, log_len: u64) -> PathBuf {
    let path = dir.join("pool");
    File::create(&path).unwrap().set_len(len).unwrap();
    let options = mkfs::Options {
        log_len: Some(log_len),
        extensions: true,
        force: false,
        fs_uuid: Uuid::nil(),
        dev_uuid: Uuid::nil(),
        system_uuid: Uuid::nil(),
        dev_name: "pool".into(),
    };
    mkfs(&PoolFile::open(&path, Access::Write).unwrap(), &options).unwrap();
    path
}

/// A path as in real trees, in the root: "data-0000123.parquet".
fn name(number: u64) -> RelPath {
    RelPath::new(format!("data-{number:07}.parquet").as_bytes()).unwrap()
}

/// Creates files in one session until the log is full: no file's cost may grow with their number.
fn create(dir: &Path) {
    let owner = Owner { uid: 1000, gid: 1000, mode: 0o644 };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let path = pool(dir, (SMALL_LOG + 5) * ALLOC_UNIT, 8 * MIB);
        let volume = OfflineVolume::new(PoolFile::open(&path, Access::Write).unwrap());
        let time = processor_seconds(|| {
            let mut writer = Writer::open(&volume, None).unwrap();
            for number in 0..SMALL_LOG {
                let path = name(number);
                let map = writer.allocate(&path, 1).unwrap();
                let nothing = |_: &dyn famfs::write::volume::FileBytes| Ok::<(), WriteError>(());
                writer.create(&path, owner, map, nothing).unwrap();
            }
            writer.commit().unwrap();
        });
        rounds.push(time / SMALL_LOG as f64 * 1e6);
    }
    limited(
        "tools.create",
        "one of 15,380 creates in a session, 8 MiB log",
        "us",
        median(rounds),
        true,
        20.0,
    );
}

/// Scans, plans and checks a full log of 512 MiB.
fn large_log(dir: &Path) {
    let path = pool(dir, (LARGE_LOG + 300) * ALLOC_UNIT, 512 * MIB);
    fill_log(&path);
    let media = PoolFile::open(&path, Access::Read).unwrap();
    let superblock = Superblock::read(&media).unwrap();
    let log = Log::open(&media, superblock.log_len).unwrap();
    assert_eq!(log.published(), LARGE_LOG);
    let scans = (0..ROUNDS)
        .map(|_| processor_seconds(|| assert!(log.entries_from(0).all(|entry| entry.is_ok()))));
    let rate = LARGE_LOG as f64 / median(scans.collect());
    limited(
        "tools.scan",
        "scan and validation of a log on one core",
        "M entries/s",
        rate / 1e6,
        false,
        2.5,
    );
    let bytes = rate * ENTRY_LEN as f64;
    limited("tools.scan-bytes", "the same in bytes of log", "GB/s", bytes / 1e9, false, 1.5);

    let area = superblock.data_area(media.len());
    let mut files = 0;
    let plans =
        (0..ROUNDS).map(|_| processor_seconds(|| files = Plan::read(&log, area, false).counts().0));
    let rate = LARGE_LOG as f64 / median(plans.collect());
    assert_eq!(files as u64, LARGE_LOG);
    limited("tools.plan", "the same, and a plan of it", "M entries/s", rate / 1e6, false, 0.5);

    let (time, peak) = checks(&path);
    limited("tools.fsck", "fsck of a full 512 MiB log", "s", time, true, 2.0);
    limited("tools.fsck-memory", "its peak memory", "MiB", peak, true, 256.0);
    fs::remove_file(path).unwrap();
}

/// Fills the log with files of one unit each.
fn fill_log(path: &Path) {
    let media = PoolFile::open(path, Access::Write).unwrap();
    let superblock = Superblock::read(&media).unwrap();
    let mut log = Log::open(&media, superblock.log_len).unwrap();
    let start = superblock.data_start();
    let entry = |number: u64| {
        let mut body = FileBody::new_zeroed();
        body.size = U64::new(1);
        body.path = name(number).to_field().expect("a short path");
        let extent = Extent { offset: start + number * ALLOC_UNIT, len: ALLOC_UNIT };
        FileMap::Simple(extent.into()).encode(&mut body);
        (EntryKind::File as u32, body.as_bytes().try_into().unwrap())
    };
    for first in (0..LARGE_LOG).step_by(10_000) {
        let batch: Vec<_> = (first..LARGE_LOG.min(first + 10_000)).map(entry).collect();
        log.append(&batch).unwrap();
    }
}

/// Copies a file into a pool, compared with copying the same bytes from memory into a mapping of
/// the same part of the pool, on every processor. All that memory was used before, so that no page
/// has to be made.
fn copy(dir: &Path) {
    let mut bytes = vec![0; COPIED];
    SeededBytes::new(1).fill(&mut bytes);
    let source = dir.join("source");
    fs::write(&source, &bytes).unwrap();
    let path = pool(dir, COPIED as u64 + 16 * MIB, 8 * MIB);
    let wipe = || drop(quiet(famfs(&path).args(["mkfs", "--force"])));
    quiet(famfs(&path).arg("cp").arg(&source).arg("/copy"));
    let offset = copy_offset(&path);
    let pool = File::options().read(true).write(true).open(&path).unwrap();

    let (mut ours, mut memcpys) = (Vec::new(), Vec::new());
    let rate = |time: f64| COPIED as f64 / time / 1e9;
    for _ in 0..ROUNDS {
        wipe();
        ours.push(rate(seconds(|| {
            quiet(famfs(&path).arg("cp").arg(&source).arg("/copy"));
        })));
        memcpys.push(rate(seconds(|| memcpy(&bytes, &pool, offset))));
    }
    let what = "famfs cp of a 512 MiB file into a pool";
    let peer = ("parallel memcpy into a mapping of it", median(memcpys));
    report("tools.cp", what, "GB/s", median(ours), peer, (false, 0.9));
}

/// Where the copied file lies in the pool.
fn copy_offset(path: &Path) -> usize {
    let media = PoolFile::open(path, Access::Read).unwrap();
    let plan = famfs::replay::Contents::read(&media).unwrap().plan;
    // The file fills whole units, which are a store file of its own.
    let map = plan.nodes().iter().find_map(|node| match &node.kind {
        NodeKind::File { map, .. } => Some(map),
        NodeKind::Dir => None,
    });
    usize::try_from(map.unwrap().extents()[0].offset + media.origin()).unwrap()
}

/// Copies `bytes` into a new mapping of the pool, on every processor.
fn memcpy(bytes: &[u8], pool: &File, offset: usize) {
    let mapping = Mapping::new(pool, offset + bytes.len(), Access::Write).unwrap();
    let threads = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| {
        for first in 0..threads {
            let mapping = &mapping;
            scope.spawn(move || {
                for (number, step) in bytes.chunks(STEP).enumerate().skip(first).step_by(threads) {
                    mapping.write(offset + number * STEP, step).unwrap();
                }
            });
        }
    });
}

/// Copies a tree of small files into a new pool, compared with cp(1) into another directory of the
/// same tmpfs; then measures the memory of the pool, and checks it.
fn small_files(dir: &Path) {
    let source = dir.join("tree");
    let pages = small_tree(&source);
    let copy = dir.join("copy");
    let log_len = 64 * MIB;
    let (mut ours, mut cps, mut path) = (Vec::new(), Vec::new(), PathBuf::new());
    for _ in 0..ROUNDS {
        path = pool(dir, GIB, log_len);
        ours.push(seconds(|| {
            quiet(famfs(&path).args(["cp", "-r"]).arg(&source).arg("/tree"));
        }));
        cps.push(seconds(|| {
            quiet(Command::new("cp").arg("-r").arg(&source).arg(&copy));
        }));
        fs::remove_dir_all(&copy).unwrap();
    }
    let what = "famfs cp -r of 100,000 files of up to 4 KiB into a new pool";
    let peer = ("cp -r into tmpfs", median(cps));
    report("tools.cp-small", what, "s", median(ours), peer, (true, 1.5));

    let used = fs::metadata(&path).unwrap().blocks() * 512;
    let peer = ("their pages, and the log", (pages + log_len) as f64 / 1e6);
    let goal = (pages as f64 * 1.1 + log_len as f64) / (pages + log_len) as f64;
    let what = "memory of that pool";
    report("tools.cp-small-memory", what, "MB", used as f64 / 1e6, peer, (true, goal));

    let (times, _) = checks(&path);
    limited("tools.fsck-small", "fsck of that pool", "s", times, true, 0.5);
    fs::remove_dir_all(&source).unwrap();
}

/// Makes the tree; returns the bytes of the pages of its files.
fn small_tree(source: &Path) -> u64 {
    let mut bytes = [0; 4096];
    SeededBytes::new(2).fill(&mut bytes);
    let mut pages = 0;
    for number in 0..SMALL_FILES {
        let dir = source.join(format!("dir-{:04}", number % SMALL_DIRS));
        if number < SMALL_DIRS {
            fs::create_dir_all(&dir).unwrap();
        }
        // All sizes from 1 to 4,096, in no order.
        let len = number * 2_654_435_761 % 4096 + 1;
        fs::write(dir.join(format!("file-{number:06}.json")), &bytes[..len]).unwrap();
        pages += len.next_multiple_of(4096) as u64;
    }
    pages
}

/// Checks a pool with the program; returns the seconds of processor time, and the peak memory in
/// MiB.
fn checks(path: &Path) -> (f64, f64) {
    let (mut times, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (time, peak) = run_and_watch(famfs(path).arg("fsck"));
        times.push(time);
        peaks.push(peak as f64 / 1024.0);
    }
    (median(times), median(peaks))
}

/// Makes a file system on a sparse pool.
fn mkfs_of_a_tebibyte(dir: &Path) {
    let path = dir.join("large");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        File::create(&path).unwrap().set_len(TIB).unwrap();
        times.push(seconds(|| drop(quiet(famfs(&path).arg("mkfs")))) * 1e3);
        fs::remove_file(&path).unwrap();
    }
    limited("tools.mkfs", "mkfs of a sparse pool of 1 TiB", "ms", median(times), true, 100.0);
}

/// The program, with a pool to work on.
fn famfs(pool: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    command.arg("--pool").arg(pool);
    command
}

/// Runs a command that must succeed.
fn quiet(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    output.stdout
}

/// Runs a command that must succeed; returns the seconds of processor time that it took, and the
/// peak of its resident memory in KiB. Both only grow, and are sampled until the end.
fn run_and_watch(command: &mut Command) -> (f64, u64) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let of_child = PathBuf::from(format!("/proc/{}", child.id()));
    let file = |name: &str| fs::read_to_string(of_child.join(name)).unwrap_or_default();
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let (mut time, mut peak) = (0.0, 0);
    loop {
        let status = file("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = kib.unwrap_or(peak);
        // User and system time are fields 14 and 15; the name, field 2, ends with the last ")".
        let stat = file("stat");
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
        let ticks: u64 =
            fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        time = f64::max(time, ticks as f64 / ticks_per_second);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{command:?}: {status}");
            return (time, peak);
        }
        thread::sleep(Duration::from_millis(2));
    }
}
