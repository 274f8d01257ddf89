// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of deleted files while a program that looks like a virtual machine has the pool.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use famfs::format::{
    MEMBER_MAGIC, MEMBER_VERSION, MEMBERS_OFFSET, Member, VOIDED_OFFSET, numbered,
};
use famfs::media::PoolFile;
use famfs::replay::reclaim::{number, releasing, renumber};
use famfs::store::numbering::numbering;
use famfs::store::superblock::Superblock;
use famfs::sys::dax::Access;
use serde_json::Value;
use uuid::Uuid;
use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

const MACHINE: Uuid = Uuid::from_u128(0xabc);

/// One test at a time: what another one starts has this one's files for a moment.
static ALONE: Mutex<()> = Mutex::new(());

/// A directory with a pool.
struct Pool {
    dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Pool {
    fn new() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        File::create_new(dir.path().join("pool")).unwrap().set_len(64 << 20).unwrap();
        let pool = Self { dir, _alone: alone };
        pool.famfs(&["mkfs"]);
        pool
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("pool")
    }

    fn famfs(&self, args: &[&str]) -> (i32, Value) {
        famfs(&self.path(), args)
    }

    /// A program whose name and arguments are those of a VM, and which has the pool open.
    fn machine(&self) -> Machine {
        let program = self.dir.path().join("qemu-system-none");
        if !program.exists() {
            fs::copy(fs::canonicalize("/bin/sh").unwrap(), &program).unwrap();
        }
        let uuid = MACHINE.to_string();
        let mut command = Command::new(program);
        command.args(["-c", "read x", "-name", "vm1", "-uuid", &uuid]).stdin(Stdio::piped());
        Machine(command.stderr(File::open(self.path()).unwrap()).spawn().unwrap())
    }

    /// What a command that fails says.
    fn fails(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
        let command = command.arg("--pool").arg(self.path()).args(args).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Writes its place among the members.
    fn member(&self, applied: u64, released: u64) {
        let media = PoolFile::open(&self.path(), Access::Read).unwrap();
        let fs_uuid = Superblock::read(&media).unwrap().fs_uuid;
        let mut member = Member::new_zeroed();
        member.magic = U64::new(MEMBER_MAGIC);
        member.system_uuid = [7; 16];
        member.machine_uuid = MACHINE.into_bytes();
        member.boot_id = [9; 16];
        member.crc = U64::new(member.checksum(fs_uuid.as_bytes()));
        let numbering = numbering(&media).unwrap();
        member.version = U64::new(MEMBER_VERSION);
        member.applied = numbered(numbering, applied);
        member.released = numbered(numbering, released);
        let file = File::options().write(true).open(self.path()).unwrap();
        file.write_all_at(member.as_bytes(), MEMBERS_OFFSET).unwrap();
    }

    /// The same, by the numbers that slots have now: it has released all but the last `held`.
    fn member_now(&self, held: u64) {
        let media = PoolFile::open(&self.path(), Access::Read).unwrap();
        let published = releasing(&media).unwrap().published;
        self.member(published, published - held);
    }

    fn make(&self, name: &str) -> Value {
        assert_eq!(self.famfs(&["creat", "-s", "4m", name]).0, 0);
        self.famfs(&["getmap", name]).1["files"][0]["map"].clone()
    }

    fn published(&self) -> u64 {
        self.famfs(&["members"]).1["published"].as_u64().unwrap()
    }
}

/// Exit code and report.
fn famfs(pool: &Path, args: &[&str]) -> (i32, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    let output = command.arg("--pool").arg(pool).args(args).arg("--json").output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), report)
}

struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Machine {
    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

/// A VM that hangs, by its name.
#[test]
fn a_machine_that_is_in_the_way_is_ended_on_demand() {
    let pool = Pool::new();
    pool.make("first");
    let mut machine = pool.machine();
    kill(&machine, "STOP");
    pool.famfs(&["rm", "first"]);
    pool.member(pool.published(), 0);
    assert_eq!(pool.famfs(&["reclaim"]).0, 3);
    let said = pool.fails(&["reclaim", "--yes", "--fence", "vm2"]);
    let listed = format!("\"vm1\" {MACHINE} (process {} (qemu-system-non))", machine.0.id());
    assert!(said.contains("no VM that has ") && said.contains(&listed), "{said}");
    let said = pool.fails(&["reclaim", "--fence", "vm1"]);
    assert!(said.contains("is killed at once") && said.contains("use --yes"), "{said}");
    assert!(!machine.has_ended());

    // It does not matter what else has the pool.
    let bystander = File::open(pool.path()).unwrap();
    let (code, report) = pool.famfs(&["reclaim", "--yes", "--fence", "vm1"]);
    assert_eq!((code, &report["fenced"]["pid"]), (3, &machine.0.id().into()), "{report}");
    assert!(machine.has_ended() && report["fenced"]["name"] == "vm1", "{report}");
    drop(bystander);
    let (code, report) = pool.famfs(&["reclaim"]);
    assert_eq!((code, &report["bytes"]), (0, &(4 << 20).into()), "{report}");
    assert_eq!(pool.famfs(&["members"]).1["members"], serde_json::json!([]));
}

/// One without a place, by its machine UUID.
#[test]
fn the_memory_comes_back_after_a_machine_was_ended() {
    let pool = Pool::new();
    pool.make("first");
    let mut machine = pool.machine();
    pool.famfs(&["rm", "first"]);
    let uuid = MACHINE.to_string();
    let (code, report) = pool.famfs(&["reclaim", "--yes", "--fence", &uuid]);
    assert_eq!((code, &report["bytes"]), (0, &(4 << 20).into()), "{report}");
    assert!(machine.has_ended() && report["fenced"]["machine"] == uuid, "{report}");
    assert_eq!(pool.famfs(&["fsck"]).0, 0);
}

#[test]
fn what_is_not_one_machine_in_the_way_is_not_ended() {
    let pool = Pool::new();
    pool.make("first");
    pool.make("second");
    let uuid = MACHINE.to_string();
    let mut machine = pool.machine();
    pool.famfs(&["rm", "first"]);
    pool.member(pool.published(), pool.published());
    // It has let go, and another process is in the way.
    let reader = File::open(pool.path()).unwrap();
    let (code, report) = pool.famfs(&["reclaim", "--yes", "--fence", &uuid]);
    assert_eq!((code, report.get("fenced")), (3, None), "{report}");
    drop(reader);
    let (code, report) = pool.famfs(&["reclaim", "--yes", "--fence", &uuid]);
    assert_eq!((code, report.get("fenced")), (0, None), "{report}");
    pool.famfs(&["rm", "second"]);
    let mut twin = pool.machine();
    for wanted in ["vm1", &uuid] {
        let said = pool.fails(&["reclaim", "--yes", "--fence", wanted]);
        assert!(said.contains("more than one VM"), "{said}");
    }
    assert!(!machine.has_ended() && !twin.has_ended());
    // A program that only has the name of a VM does not have the pool.
    drop((machine, twin));
    let said = pool.fails(&["reclaim", "--yes", "--fence", "vm1"]);
    assert!(said.contains("no VM has it"), "{said}");
}

fn kill(machine: &Machine, signal: &str) {
    let id = machine.0.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
}

fn reason(report: &Value) -> &str {
    report["held"][0]["reason"].as_str().unwrap()
}

#[test]
fn a_machine_keeps_what_it_has_not_released() {
    let pool = Pool::new();
    let old = pool.make("first");
    let machine = pool.machine();
    assert_eq!(pool.famfs(&["rm", "first"]).1["freed"], 0);
    let (code, report) = pool.famfs(&["reclaim"]);
    assert_eq!((code, &report["left"]), (3, &(4 << 20).into()), "{report}");
    assert!(reason(&report).contains("is no member"), "{report}");

    let published = pool.published();
    pool.member(published, published - 1);
    let (code, report) = pool.famfs(&["reclaim", "--wait", "1"]);
    assert_eq!((code, &report["held"][0]["path"]), (3, &"first".into()), "{report}");
    assert_eq!(report["held"][0]["machine"], MACHINE.to_string());
    assert_ne!(pool.make("second"), old);
    let df = pool.famfs(&["df"]).1;
    let sum = ["used", "free", "deleted"].map(|field| df[field].as_u64().unwrap());
    assert_eq!((sum[2], sum.iter().sum::<u64>()), (4 << 20, df["capacity"].as_u64().unwrap()));

    pool.member(pool.published(), pool.published());
    assert_eq!(pool.make("third"), old, "a command that writes gives it back first");
    assert_eq!(pool.famfs(&["reclaim"]).0, 0);

    // Another program may read anything.
    let reader = File::open(pool.path()).unwrap();
    pool.famfs(&["rm", "third"]);
    pool.member(pool.published(), pool.published());
    let (code, report) = pool.famfs(&["reclaim"]);
    assert_eq!(code, 3);
    assert!(reason(&report).contains(&format!("process {}", std::process::id())), "{report}");
    drop(reader);

    // It ends, and leaves its place.
    pool.member(pool.published(), 0);
    drop(machine);
    let (code, report) = pool.famfs(&["reclaim"]);
    assert_eq!((code, &report["bytes"]), (0, &(4 << 20).into()), "{report}");
    assert_eq!(pool.famfs(&["members"]).1["members"], serde_json::json!([]));
    assert_eq!(pool.famfs(&["fsck"]).0, 0);
}

#[test]
fn machines_that_cannot_be_told_apart_release_nothing() {
    let pool = Pool::new();
    pool.make("first");
    let _machines = [pool.machine(), pool.machine()];
    pool.famfs(&["rm", "first"]);
    pool.member(pool.published(), pool.published());
    let (code, report) = pool.famfs(&["reclaim"]);
    assert_eq!(code, 3);
    assert!(reason(&report).contains("several VMs have the machine UUID"), "{report}");
}

/// A member that beats, and whose VM this process does not see, may have anything.
#[test]
fn a_member_that_nobody_sees_counts() {
    let pool = Pool::new();
    pool.make("first");
    let machine = pool.machine();
    pool.famfs(&["rm", "first"]);
    drop(machine);
    pool.member(pool.published(), 0);
    let path = pool.path();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| famfs(&path, &["reclaim"]));
        let mut beat = 0_u64;
        while !waiting.is_finished() {
            beat += 1;
            set_heartbeat(&path, beat);
            thread::sleep(Duration::from_millis(50));
        }
        let (code, report) = waiting.join().unwrap();
        assert_eq!(code, 3);
        // This process has the pool open at times.
        assert!(report.to_string().contains("run the command as root"), "{report}");
    });
}

/// Beats, without having the pool open in between.
fn set_heartbeat(pool: &Path, beat: u64) {
    let file = File::options().write(true).open(pool).unwrap();
    file.write_all_at(&beat.to_le_bytes(), MEMBERS_OFFSET + 72).unwrap();
}

/// Whoever moves entries makes what members have told mean nothing, until they tell it anew.
#[test]
fn a_machine_that_has_let_go_is_not_ended_because_entries_moved() {
    let pool = Pool::new();
    pool.make("first");
    pool.make("second");
    pool.famfs(&["rm", "first"]);
    assert_eq!(pool.famfs(&["reclaim"]).0, 0);
    let mut machine = pool.machine();
    let bystander = File::open(pool.path()).unwrap();
    pool.famfs(&["rm", "second"]);
    pool.member_now(0);
    let path = pool.path();
    let fence = ["reclaim", "--yes", "--fence", "vm1"];
    let (code, report) = thread::scope(|scope| {
        let waiting = scope.spawn(|| famfs(&path, &fence));
        thread::sleep(Duration::from_secs(4));
        let media = PoolFile::open(&path, Access::Write).unwrap();
        assert_ne!(renumber(&media, || true).unwrap(), 0);
        drop(media);
        thread::sleep(Duration::from_secs(2));
        pool.member_now(0);
        waiting.join().unwrap()
    });
    assert_eq!((code, report.get("fenced")), (3, None), "{report}");
    assert!(!machine.has_ended());
    drop(bystander);
    // One that does not tell at all is in the way.
    pool.member(0, 0);
    let media = PoolFile::open(&path, Access::Write).unwrap();
    renumber(&media, || true).unwrap();
    drop(media);
    let (code, report) = famfs(&path, &fence);
    assert_eq!((code, &report["fenced"]["name"]), (0, &"vm1".into()), "{report}");
}

#[test]
fn what_is_held_has_its_name_after_entries_have_moved() {
    let pool = Pool::new();
    pool.make("first");
    pool.make("second");
    pool.famfs(&["rm", "first"]);
    assert_eq!(pool.famfs(&["reclaim"]).0, 0);
    let _machine = pool.machine();
    pool.famfs(&["rm", "second"]);
    pool.member_now(1);
    let path = pool.path();
    let (code, report) = thread::scope(|scope| {
        let waiting = scope.spawn(|| famfs(&path, &["reclaim", "--slots"]));
        thread::sleep(Duration::from_secs(1));
        pool.member_now(1);
        waiting.join().unwrap()
    });
    assert!(code == 3 && report["slots"].as_u64() > Some(0), "{report}");
    assert_eq!(report["held"][0]["path"], "second", "{report}");
}

/// A reclamation that was killed between its first and its last store.
#[test]
fn an_interrupted_reclamation_is_ended_even_if_nothing_is_left() {
    let pool = Pool::new();
    pool.make("first");
    let file = File::options().write(true).open(pool.path()).unwrap();
    file.write_all_at(&7_u64.to_le_bytes(), VOIDED_OFFSET).unwrap();
    drop(file);
    assert_eq!(pool.famfs(&["reclaim"]).0, 0);
    let media = PoolFile::open(&pool.path(), Access::Read).unwrap();
    assert_eq!(number(&media).unwrap(), 8);
}

/// A machine needs a moment to let go, and then a full log has room again.
#[test]
fn a_command_waits_for_slots_that_come_back_and_for_no_others() {
    let pool = Pool::new();
    assert_eq!(pool.famfs(&["mkfs", "--force", "--entries", "1"]).0, 0);
    let slots = |field: &str| pool.famfs(&["df"]).1[field].as_u64().unwrap();
    let full = slots("log_slots");
    // With the head of their group, two slots remain.
    let files: Vec<String> = (3..full).map(|n| format!("file{n}")).collect();
    let touch: Vec<&str> = ["touch"].into_iter().chain(files.iter().map(|f| &**f)).collect();
    assert_eq!((pool.famfs(&touch).0, slots("log_slots_used")), (0, full - 2));
    let _machine = pool.machine();
    pool.famfs(&["rm", "file3"]);
    pool.famfs(&["mkdir", "last"]);
    assert_eq!(slots("log_slots_used"), full);
    pool.member(full - 1, 0);
    let start = Instant::now();
    let output = thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
            command.arg("--pool").arg(pool.path()).args(["mkdir", "more"]).output().unwrap()
        });
        thread::sleep(Duration::from_secs(1));
        assert!(!waiting.is_finished());
        pool.member_now(0);
        waiting.join().unwrap()
    });
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("waiting up to 30 s for the slots"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(25), "it was told when there was room");
    // The removal, what it removed and the head of its group have left room for two more.
    pool.member_now(0);
    for name in ["again", "once more"] {
        assert_eq!(pool.famfs(&["mkdir", name]).0, 0);
    }
    assert_eq!(slots("log_slots_used"), full);
    let start = Instant::now();
    let said = pool.fails(&["mkdir", "none"]);
    assert!(said.contains("the log is full") && said.contains("famfs reclaim --slots"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(25), "nothing is to come");
    assert!(!said.contains("waiting"), "{said}");
    assert_eq!(pool.famfs(&["fsck"]).0, 0);
}
