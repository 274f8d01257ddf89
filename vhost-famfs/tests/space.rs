// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Keepers give the memory of removed files back by themselves, without QEMU.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use famfs::format::VOIDED_OFFSET;
use famfs::format::report::{REPORT_LEN, Report};
use famfs::media::PoolFile;
use famfs::replay::reclaim;
use famfs::store::superblock::Superblock;
use famfs::sys::dax::Access;
use famfs::system::neighbours::PoolId;
use serde_json::{Value, json};
use uuid::Uuid;

/// A time that nothing here needs.
const LIMIT: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);
const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-famfs");

/// The machine UUID of each VM.
const MACHINE: Uuid = Uuid::from_u128(0xabc);

/// A directory with a pool, and with the programs if `famfs` is a stand-in.
struct Host {
    dir: tempfile::TempDir,
    program: PathBuf,
}

impl Host {
    fn new() -> Self {
        // Where the programs are, so that they can have a second name.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        File::create_new(dir.path().join("pool")).unwrap().set_len(64 << 20).unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        let host = Self { dir, program: PROGRAM.into() };
        host.famfs(&["mkfs"]);
        host.famfs(&["creat", "-s", "4m", "file"]);
        host
    }

    /// One whose `famfs` is a script. It notes its arguments, and does what `does` says.
    fn with_script(does: &str) -> Self {
        let mut host = Self::new();
        fs::create_dir(host.path("bin")).unwrap();
        host.program = host.path("bin/vhost-famfs");
        fs::hard_link(PROGRAM, &host.program).unwrap();
        let text = format!("#!/bin/sh\ncd \"${{0%/*}}/..\"\necho \"$@\" >> runs\n{does}\n");
        let script = host.path("bin/famfs");
        fs::write(&script, text).unwrap();
        fs::set_permissions(script, Permissions::from_mode(0o755)).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the true `famfs`, as a command of the host that keepers do not hear.
    fn famfs(&self, args: &[&str]) -> Value {
        let mut command = Command::new(Path::new(PROGRAM).with_file_name("famfs"));
        command.arg("--pool").arg(self.path("pool")).args(args).arg("--json");
        command.env("XDG_RUNTIME_DIR", self.path("elsewhere"));
        let output = command.output().expect("famfs is beside vhost-famfs: build famfs-cli");
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Removes the file, as a guest does: the memory stays.
    fn remove(&self, name: &str) {
        let _reader = File::open(self.path("pool")).unwrap();
        assert_eq!(self.famfs(&["rm", name])["freed"], 0);
    }

    /// What a guest of this pool reports.
    fn report(&self, boot: u128, applied: u64, released: u64) -> Report {
        let media = PoolFile::open(&self.path("pool"), Access::Read).unwrap();
        let fs_uuid = Superblock::read(&media).unwrap().fs_uuid;
        let (system, boot) = (Uuid::from_u128(7), Uuid::from_u128(boot));
        Report { fs_uuid, system, boot, numbering: 0, applied, released }
    }

    /// Boot, applied and released of all members, which must be of the one machine.
    fn members(&self) -> Vec<(u128, u64, u64)> {
        let report = self.famfs(&["members"]);
        let members = report["members"].as_array().unwrap().iter();
        let number = |value: &Value| value.as_u64().unwrap();
        members
            .map(|member| {
                assert_eq!(member["machine"], json!(MACHINE));
                let boot = Uuid::try_parse(member["boot"].as_str().unwrap()).unwrap();
                (boot.as_u128(), number(&member["applied"]), number(&member["released"]))
            })
            .collect()
    }

    fn deleted(&self) -> u64 {
        self.famfs(&["df"])["deleted"].as_u64().unwrap()
    }

    /// How often the stand-in was run.
    fn runs(&self) -> usize {
        fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count()
    }
}

struct Keeper {
    child: Child,
    /// Stands for QEMU and its guest.
    port: UnixStream,
    log: PathBuf,
    pipe: File,
}

impl Keeper {
    fn start(host: &Host, name: &str) -> Self {
        let (log, socket) = (host.path(name), host.path(&format!("{name}.sock")));
        let listener = UnixListener::bind(&socket).unwrap();
        let pool = host.path("pool");
        let id = PoolId::of(&pool.metadata().unwrap()).to_string();
        let mut command = Command::new(&host.program);
        command.env("XDG_RUNTIME_DIR", host.path("run")).arg("keep-logs").arg(&log);
        command.arg("--wake-port").arg(&socket).args(["--wake-pool", &id]).arg("--pool").arg(pool);
        command.args(["--machine", &MACHINE.to_string()]);
        let child = command.spawn().unwrap();
        let (port, _) = listener.accept().unwrap();
        let pipe = File::options().write(true).open(host.path(&format!("{name}.pipe"))).unwrap();
        Self { child, port, log, pipe }
    }

    /// The guest publishes something.
    fn publish(&mut self) {
        self.port.write_all(&[0]).unwrap();
    }

    /// The guest reports.
    fn report(&mut self, report: &Report) {
        self.port.write_all(&report.encode()).unwrap();
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The VM ends.
    fn end(self) {
        let Self { mut child, port, pipe, .. } = self;
        drop((port, pipe));
        assert!(child.wait().unwrap().success());
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(TICK);
    }
}

#[test]
fn what_a_guest_removes_comes_back_without_a_command_of_the_host() {
    let host = Host::new();
    let mut keepers = ["one", "two"].map(|name| Keeper::start(&host, name));
    let reader = File::open(host.path("pool")).unwrap();
    host.remove("file");
    keepers[0].publish();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(host.deleted(), 4 << 20, "this process may read it");
    drop(reader);
    // Nobody tells.
    until("the memory is free again", || host.deleted() == 0);
    host.famfs(&["fsck"]);
    host.famfs(&["creat", "-s", "4m", "file"]);
    host.remove("file");
    keepers[1].publish();
    until("the memory is free again", || host.deleted() == 0);
    for keeper in keepers {
        assert_eq!(keeper.said(), "");
        keeper.end();
    }
    assert!(!host.path("run/vhost-famfs/.wake").exists());
}

#[test]
fn nothing_runs_for_an_idle_pool_and_one_keeper_runs_for_all() {
    let host = Host::with_script("exit 0");
    let mut keepers = ["one", "two", "three"].map(|name| Keeper::start(&host, name));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(host.runs(), 0);
    // What was removed before is not known.
    keepers[1].publish();
    until("a first run", || host.runs() == 1);
    thread::sleep(Duration::from_millis(1500));
    host.famfs(&["creat", "-s", "2m", "other"]);
    for keeper in &mut keepers {
        keeper.publish();
    }
    thread::sleep(Duration::from_secs(2));
    assert_eq!(host.runs(), 1, "nothing was removed");
    host.remove("file");
    for keeper in &mut keepers {
        keeper.publish();
    }
    until("a second run", || host.runs() == 2);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(host.runs(), 2);
    let runs = fs::read_to_string(host.path("runs")).unwrap();
    let expected = format!("reclaim --pool {}", host.path("pool").display());
    assert!(runs.lines().all(|line| line == expected), "{runs}");
    // Whoever led has ended, and another one leads.
    let [one, two, mut three] = keepers;
    one.end();
    two.end();
    three.publish();
    until("the last one leads", || host.runs() == 3);
    three.end();
}

/// A guest that only adds cannot make room itself.
#[test]
fn slots_come_back_when_the_log_becomes_short() {
    let host = Host::new();
    host.famfs(&["mkfs", "--force", "--entries", "1"]);
    let slots = |field: &str| host.famfs(&["df"])[field].as_u64().unwrap();
    let full = slots("log_slots");
    let each = |command: &str, count: u64| {
        let names: Vec<String> = (0..count).map(|n| format!("file{n}")).collect();
        let args: Vec<&str> = [command].into_iter().chain(names.iter().map(|n| &**n)).collect();
        host.famfs(&args)
    };
    each("touch", full / 4);
    // What is before it stays in its slot.
    host.famfs(&["mkdir", "last"]);
    each("rm", full / 4);
    let mut keeper = Keeper::start(&host, "one");
    keeper.publish();
    thread::sleep(Duration::from_secs(2));
    // Someone who has the pool keeps commands of the host from making room themselves.
    let reader = File::open(host.path("pool")).unwrap();
    each("touch", full - slots("log_slots_used") - 1);
    assert_eq!(slots("log_slots_used"), full);
    drop(reader);
    keeper.publish();
    // Whoever looks has the pool, too, and must do so rarely.
    let used = || {
        thread::sleep(Duration::from_secs(2));
        slots("log_slots_used")
    };
    assert!((0..30).any(|_| used() < full), "there is room again");
    keeper.end();
}

#[test]
fn what_is_held_is_tried_again_with_longer_pauses_and_what_fails_is_told_once() {
    let host =
        Host::with_script("if [ -e wrong ]; then echo 'not your pool' >&2; exit 1; fi; exit 3");
    let mut keeper = Keeper::start(&host, "one");
    keeper.publish();
    thread::sleep(Duration::from_secs(9));
    let runs = host.runs();
    assert!((2..=5).contains(&runs), "{runs} runs in 9 seconds");
    fs::write(host.path("wrong"), "").unwrap();
    until("a run that fails", || keeper.said().contains("not your pool"));
    let (runs, said) = (host.runs(), keeper.said());
    host.remove("file");
    keeper.publish();
    thread::sleep(Duration::from_secs(2));
    assert_eq!((host.runs(), keeper.said()), (runs, said.clone()), "it rests");
    let expected = "vhost-famfs: memory of removed files is not given back by itself: not your \
                    pool\n";
    assert_eq!(said, expected);
    keeper.end();
}

#[test]
fn a_run_ends_with_its_keeper() {
    for how in ["end", "kill"] {
        let host = Host::with_script("echo $$ > pid; exec sleep 1000");
        let mut keeper = Keeper::start(&host, "one");
        keeper.publish();
        let pid = || fs::read_to_string(host.path("pid")).unwrap_or_default();
        until("a run", || pid().ends_with('\n'));
        // It goes on passing wake-ups meanwhile.
        let mut other = Keeper::start(&host, "two");
        other.port.set_read_timeout(Some(LIMIT)).unwrap();
        keeper.publish();
        assert_ne!(std::io::Read::read(&mut other.port, &mut [0; 64]).unwrap(), 0);
        let running = PathBuf::from("/proc").join(pid().trim());
        assert!(running.exists());
        match how {
            "end" => keeper.end(),
            _ => {
                keeper.child.kill().unwrap();
                keeper.child.wait().unwrap();
            }
        }
        until("the run has ended", || {
            let state = fs::read_to_string(running.join("stat")).unwrap_or_default();
            state.is_empty() || state.contains(" Z ")
        });
        other.end();
    }
}

/// One that is killed while it moves entries leaves a pool that no mount can write.
#[test]
fn a_run_may_come_to_its_end_when_its_keeper_stops() {
    let host = Host::with_script("echo > begun; sleep 2; echo > finished; exit 0");
    let mut keeper = Keeper::start(&host, "one");
    keeper.publish();
    until("a run", || host.path("begun").exists());
    keeper.end();
    assert!(host.path("finished").exists());
}

/// Number of processes that a process has started and that have not ended.
fn children(parent: u32) -> usize {
    let stats = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("stat"));
    let stats = stats.filter_map(|path| fs::read_to_string(path).ok());
    // The name is in parentheses and may contain anything; then come state and parent.
    let parent_of = |stat: &str| -> Option<u32> {
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    stats.filter(|stat| parent_of(stat) == Some(parent)).count()
}

/// Nobody is woken.
#[test]
fn who_begins_to_lead_ends_what_was_interrupted() {
    let host = Host::new();
    let number = || {
        let media = PoolFile::open(&host.path("pool"), Access::Read).unwrap();
        reclaim::number(&media).unwrap()
    };
    let interrupt = |number: u64| {
        let file = File::options().write(true).open(host.path("pool")).unwrap();
        file.write_all_at(&number.to_le_bytes(), VOIDED_OFFSET).unwrap();
    };
    interrupt(1);
    let mut first = Keeper::start(&host, "one");
    until("the first one has ended it", || number() == 2 && children(first.child.id()) == 0);
    let second = Keeper::start(&host, "two");
    interrupt(3);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(number(), 3, "only at the beginning");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    until("the second one has ended it", || number() == 4);
    second.end();
}

#[test]
fn a_guest_that_cannot_write_has_a_place_by_its_keeper() {
    let host = Host::with_script("exit 0");
    let mut keeper = Keeper::start(&host, "one");
    let other = Keeper::start(&host, "two");
    other.port.set_nonblocking(true).unwrap();
    keeper.report(&host.report(1, 2, 1));
    until("a place", || host.members() == [(1, 2, 1)]);
    // In two pieces, behind a wake-up.
    let bytes = [&[0][..], &host.report(1, 3, 9).encode()].concat();
    keeper.port.write_all(&bytes[..40]).unwrap();
    thread::sleep(TICK);
    keeper.port.write_all(&bytes[40..]).unwrap();
    until("it got further", || host.members() == [(1, 3, 3)]);
    let heard = || std::io::Read::read(&mut &other.port, &mut [0; 64]).is_ok();
    until("the wake-up", heard);
    thread::sleep(Duration::from_millis(200));
    while heard() {}
    keeper.report(&host.report(1, 4, 4));
    until("it got further", || host.members() == [(1, 4, 4)]);
    thread::sleep(Duration::from_millis(100));
    assert!(!heard(), "reports wake nobody");
    // Another file system's, a damaged one and one of nobody change nothing.
    let report = host.report(1, 5, 5);
    let mut damaged = report.encode();
    damaged[REPORT_LEN - 1] ^= 1;
    keeper.port.write_all(&damaged).unwrap();
    keeper.report(&Report { system: Uuid::nil(), ..report });
    thread::sleep(Duration::from_millis(500));
    assert_eq!(host.members(), [(1, 4, 4)]);
    // It boots again.
    thread::sleep(Duration::from_secs(1));
    keeper.report(&host.report(2, 1, 0));
    until("the other boot", || host.members() == [(2, 1, 0)]);
    keeper.end();
    assert_eq!(host.members(), [], "its place is free");
    other.end();
}

#[test]
fn a_guest_that_reports_without_end_has_one_place_and_holds_nothing_up() {
    let host = Host::with_script("exit 0");
    let mut keeper = Keeper::start(&host, "one");
    let mut other = Keeper::start(&host, "two");
    other.port.set_read_timeout(Some(LIMIT)).unwrap();
    let (start, mut boot) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(4) {
        boot += 1;
        let report = Report { fs_uuid: host.report(1, 0, 0).fs_uuid, ..host.report(boot, 7, 7) };
        let _ = keeper.port.write_all(&report.encode());
        if boot % 64 == 0 {
            assert!(host.members().len() <= 1);
        }
    }
    keeper.port.write_all(&[0xff, 1, 80, 0, 0, 1, 80]).unwrap();
    keeper.publish();
    assert_ne!(std::io::Read::read(&mut other.port, &mut [0; 64]).unwrap(), 0);
    let child = keeper.child.id();
    let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    let rss = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = rss.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 64 << 10, "{rss}");
    keeper.end();
    assert_eq!(host.members(), []);
    other.end();
}

#[test]
fn without_the_right_to_write_there_is_no_place_and_the_log_says_why() {
    let host = Host::with_script("exit 0");
    let mut keeper = Keeper::start(&host, "one");
    fs::set_permissions(host.path("pool"), Permissions::from_mode(0o400)).unwrap();
    for _ in 0..3 {
        keeper.report(&host.report(1, 2, 2));
        thread::sleep(Duration::from_millis(200));
    }
    until("the reason", || keeper.said().contains("Permission denied"));
    assert_eq!((host.members(), keeper.said().lines().count()), (vec![], 1));
    keeper.end();
}
