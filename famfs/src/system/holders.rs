// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which processes of this system have a file open or mapped, from /proc. Processes that may not be
//! examined (those of other users, without privileges) are not seen.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use uuid::Uuid;

use crate::system::process;

/// A process that has a file open or mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedProcess {
    /// Its id.
    pub pid: u32,
    /// Its name, as the kernel keeps it; `None` if it has ended, or may not be examined.
    pub name: Option<String>,
    /// Its user, if known.
    pub user: Option<u32>,
}

impl NamedProcess {
    fn has_ended(&self) -> bool {
        self.name.is_none()
    }
}

impl std::fmt::Display for NamedProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "process {} ({})", self.pid, name.escape_debug())?,
            None => write!(f, "process {}", self.pid)?,
        }
        match self.user {
            Some(user) if user != rustix::process::geteuid().as_raw() => {
                write!(f, " of user {user}")
            }
            _ => Ok(()),
        }
    }
}

/// The other processes that have a file open or mapped.
pub fn of(file: &Path) -> io::Result<Vec<NamedProcess>> {
    let wanted = fs::metadata(file)?;
    with_file((wanted.dev(), wanted.ino()))
}

/// What a process does with the pool that it has open or mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is a virtual machine with this machine UUID.
    Machine(Uuid),
    /// It passes the pool to a virtual machine, or watches one, and does not look into files.
    Passes,
    /// Anything else.
    Other,
}

/// Programs and their commands that only pass a pool on, or read its log only.
const PASSES: &[(&str, &[&str])] = &[
    (
        "vhost-famfs",
        &["device", "up", "start", "restart", "keep-logs", "ps", "down", "exec", "console", "logs"],
    ),
    ("vhost-user-famfs", &[]),
    ("famfs", &["reclaim"]),
];

/// What a process does with a pool, by its program and its arguments.
#[must_use]
pub fn role(pid: u32) -> Role {
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let args: Vec<&[u8]> = command.split(|byte| *byte == 0).skip(1).collect();
    role_of(&program, &args)
}

/// The name that a virtual machine was given (QEMU's `-name`); anybody may have given it.
#[must_use]
pub fn machine_name(pid: u32) -> Option<String> {
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    name_in(&command.split(|byte| *byte == 0).collect::<Vec<_>>())
}

fn name_in(args: &[&[u8]]) -> Option<String> {
    let at = args.iter().position(|arg| matches!(*arg, b"-name" | b"--name"))?;
    let value = std::str::from_utf8(args.get(at + 1)?).ok()?;
    let name = value.split(',').next()?;
    Some(name.strip_prefix("guest=").unwrap_or(name).to_owned())
}

fn role_of(program: &str, args: &[&[u8]]) -> Role {
    // The file of a program that runs may have been replaced.
    let program = program.trim_end_matches(" (deleted)");
    if program.starts_with("qemu") {
        let at = args.iter().position(|arg| matches!(*arg, b"-uuid" | b"--uuid"));
        let uuid = at.and_then(|at| std::str::from_utf8(args.get(at + 1)?).ok());
        return uuid.and_then(|uuid| Uuid::try_parse(uuid).ok()).map_or(Role::Other, Role::Machine);
    }
    let command = command_in(args);
    let passes = PASSES.iter().any(|(name, commands)| {
        let is_it = |found: &[u8]| commands.iter().any(|command| command.as_bytes() == found);
        *name == program && (commands.is_empty() || command.is_some_and(is_it))
    });
    if passes { Role::Passes } else { Role::Other }
}

/// The command among the arguments of a program of this project: the first one that is neither an
/// option nor the value of `--pool`, the only option with a value that may be in front of it.
fn command_in<'a>(args: &[&'a [u8]]) -> Option<&'a [u8]> {
    let mut args = args.iter();
    loop {
        match *args.next()? {
            b"--pool" => drop(args.next()?),
            option if option.starts_with(b"-") => {}
            command => return Some(command),
        }
    }
}

/// The other processes that have a file open or mapped, given as device and inode.
fn with_file(wanted: (u64, u64)) -> io::Result<Vec<NamedProcess>> {
    let is_it = |found: &Metadata| (found.dev(), found.ino()) == wanted;
    let has = |pid: &u32| has_open(*pid, is_it) || leads_to(*pid, "map_files", is_it);
    Ok(process::others()?.filter(has).map(named).collect())
}

/// Whether a process has a file open (proc_pid_fd(5)).
pub fn has_open(pid: u32, is_it: impl Fn(&Metadata) -> bool) -> bool {
    leads_to(pid, "fd", is_it)
}

/// Whether a link in a process's directory of /proc leads to a file.
fn leads_to(pid: u32, links: &str, is_it: impl Fn(&Metadata) -> bool) -> bool {
    let links = fs::read_dir(format!("/proc/{pid}/{links}")).into_iter().flatten().flatten();
    links.filter_map(|link| fs::metadata(link.path()).ok()).any(|found| is_it(&found))
}

/// A process with its name.
pub fn named(pid: u32) -> NamedProcess {
    let dir = format!("/proc/{pid}");
    let name = fs::read_to_string(format!("{dir}/comm")).ok();
    let user = fs::metadata(&dir).ok().map(|metadata| metadata.uid());
    NamedProcess { pid, name: name.map(|name| name.trim().to_owned()), user }
}

/// Who holds a lock that is not free: as [`of_lock`], or else all that have the file open. The
/// kernel does not list a lock whose process has ended while another one has inherited it.
pub fn of_busy_lock(device: u64, inode: u64) -> Vec<NamedProcess> {
    let holders = of_lock(device, inode);
    match holders.is_empty() {
        true => with_file((device, inode)).unwrap_or_default(),
        false => holders,
    }
}

/// The processes that hold a lock of a file, from the kernel's list of locks. If such a process has
/// ended, those that have the file open are named instead.
pub fn of_lock(device: u64, inode: u64) -> Vec<NamedProcess> {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let (gone, mut holders): (Vec<NamedProcess>, Vec<NamedProcess>) =
        lockers(&locks, device, inode).into_iter().map(named).partition(NamedProcess::has_ended);
    if !gone.is_empty() {
        holders.extend(with_file((device, inode)).unwrap_or_default());
        holders.sort_unstable_by_key(|process| process.pid);
        holders.dedup_by_key(|process| process.pid);
    }
    // Processes that may not be examined; their ids are better than nothing.
    if holders.is_empty() { gone } else { holders }
}

/// The other processes that hold a record lock of a file. The kernel's list has no process for a
/// lock that belongs to an open file, but lists it with that file's descriptors
/// (proc_pid_fdinfo(5)).
pub fn of_record_lock(device: u64, inode: u64) -> Vec<NamedProcess> {
    let has = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_to_string(file.path()).ok()).any(|info| {
            let locks = info.lines().filter_map(|line| line.strip_prefix("lock:"));
            locks.filter(|line| line.contains("OFDLCK")).any(|line| is_on(line, device, inode))
        })
    };
    process::others().into_iter().flatten().filter(has).map(named).collect()
}

/// The processes with a lock on a file, by proc_locks(5).
fn lockers(locks: &str, device: u64, inode: u64) -> Vec<u32> {
    // "1: FLOCK  ADVISORY  WRITE 1234 00:2d:42 0 EOF"; waiters have "->" as second field.
    let mut pids: Vec<u32> = locks
        .lines()
        .filter(|line| !line.contains("->"))
        .filter(|line| is_on(line, device, inode))
        .filter_map(|line| line.split_whitespace().nth(4)?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Whether a line of the kernel's about a lock is about that of a file.
fn is_on(line: &str, device: u64, inode: u64) -> bool {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    line.split_whitespace().nth(5) == Some(&format!("{major:02x}:{minor:02x}:{inode}"))
}

/// Processes as a list in words: " by ...", or nothing if none is known.
pub fn by(holders: &[NamedProcess]) -> String {
    match holders {
        [] => String::new(),
        all => {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            format!(" by {}", all.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys::record_lock;

    #[test]
    fn another_process_with_the_file_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // A program that another test starts at this moment has it briefly, too.
        let expect = |expected: &[u32]| {
            let end = Instant::now() + Duration::from_secs(60);
            loop {
                let found = of(file.path()).unwrap();
                let pids: Vec<_> = found.iter().map(|process| process.pid).collect();
                if pids == expected {
                    return;
                }
                assert!(Instant::now() < end, "{found:?}, expected {expected:?}");
            }
        };
        // This process does not count.
        expect(&[]);
        let input = File::open(file.path()).unwrap();
        rustix::fs::flock(&input, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let metadata = input.metadata().unwrap();
        let mine = || of_lock(metadata.dev(), metadata.ino());
        assert_eq!(mine()[..], [named(std::process::id())]);
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(input)).spawn().unwrap();
        expect(&[child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_lock_that_was_inherited_is_not_nobodys() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // The shell locks the file and ends; what it has started keeps the lock.
        let script = "exec 9<\"$1\"; flock 9; sleep 60 >/dev/null 2>&1 & echo $!";
        let output =
            Command::new("sh").args(["-c", script, "-"]).arg(file.path()).output().unwrap();
        let heir: u32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let text = by(&of_busy_lock(metadata.dev(), metadata.ino()));
        Command::new("kill").arg(heir.to_string()).status().unwrap();
        assert_eq!(text, format!(" by process {heir} (sleep)"));
    }

    #[test]
    fn a_record_lock_has_a_holder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = File::options().write(true).open(file.path()).unwrap();
        assert!(record_lock::take(&open).unwrap());
        let metadata = open.metadata().unwrap();
        let child = Command::new("sleep").arg("60").stdin(Stdio::from(open)).spawn();
        let mut child = child.unwrap();
        let found = of_record_lock(metadata.dev(), metadata.ino());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.iter().any(|process| process.pid == child.id()), "{found:?}");
    }

    #[test]
    fn a_machine_is_told_by_its_uuid() {
        let role = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            role_of(std::str::from_utf8(args[0]).unwrap(), &args[1..])
        };
        let uuid = Uuid::from_u128(7);
        assert_eq!(role(&format!("qemu-system-x86_64 -m 1 -uuid {uuid}")), Role::Machine(uuid));
        assert_eq!(role("qemu-kvm (deleted) -uuid x"), Role::Other);
        assert_eq!(role("qemu-kvm -m 1 -uuid"), Role::Other);
        assert_eq!(role(&format!("cat -uuid {uuid}")), Role::Other);
        assert_eq!(role("vhost-famfs device --pool x"), Role::Passes);
        assert_eq!(role("vhost-user-famfs --pool x"), Role::Passes);
        assert_eq!(role("famfs reclaim --pool x"), Role::Passes);
        assert_eq!(role("famfs --pool x reclaim --wait"), Role::Passes);
        assert_eq!(role("famfs --coherent --pool=x --foreign-pool reclaim"), Role::Passes);
        assert_eq!(role("famfs --pool x cat reclaim"), Role::Other);
        assert_eq!(role("famfs --pool reclaim cat x"), Role::Other);
        assert_eq!(role("famfs --pool"), Role::Other);
        assert_eq!(role("vhost-famfs start vm1"), Role::Passes);
        assert_eq!(role("vhost-famfs restart vm1"), Role::Passes);
        assert_eq!(role("vhost-famfs ublk add"), Role::Other);
        assert_eq!(role("vhost-famfs"), Role::Other);
    }

    #[test]
    fn a_machine_may_have_a_name() {
        let name = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            name_in(&args)
        };
        for line in ["qemu -name vm1", "qemu --name guest=vm1,process=x", "qemu -name vm1,x=y -m 1"]
        {
            assert_eq!(name(line).as_deref(), Some("vm1"), "{line}");
        }
        assert_eq!((name("qemu -m 1"), name("qemu -name")), (None, None));
    }

    #[test]
    fn reads_the_kernels_locks() {
        let locks = "\
1: FLOCK  ADVISORY  READ 4711 00:1b:23 0 EOF
2: FLOCK  ADVISORY  READ 4712 00:1b:23 0 EOF
2: -> FLOCK  ADVISORY  WRITE 4713 00:1b:23 0 EOF
3: POSIX  ADVISORY  WRITE 4712 00:1b:23 0 EOF
4: FLOCK  ADVISORY  WRITE 9 00:1b:230 0 EOF
";
        assert_eq!(lockers(locks, rustix::fs::makedev(0, 0x1b), 23), [4711, 4712]);
    }
}
