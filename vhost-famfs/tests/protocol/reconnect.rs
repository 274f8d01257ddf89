// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Many connections to back-ends in this process, so that leaks of a connection show here; and
//! front-ends that pass bad descriptors or memory.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use vhost::VhostBackend;
use vhost_famfs::device::listen::Socket;
use vhost_famfs::device::server::{self, End};
use vhost_famfs::pool::{Owners, Pool, Window};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::backend::{Backend, MIB, TestPool, until};
use crate::process::LIFE;
use crate::vmm::{Vmm, WINDOW_ADDR};

/// Serves one connection to a back-end in this process.
fn serve(pool: &TestPool, talk: impl FnOnce(&mut Vmm)) {
    let path = pool.socket("here");
    let socket = Socket::bind(&path).unwrap();
    let open = Pool::open(&pool.path(), Owners::Trusted).unwrap();
    let window = Window::new(open.size(), open.unit(), 0, None).unwrap();
    let (stop, _running) = UnixStream::pair().unwrap();
    let backend = thread::spawn(move || server::serve(socket, open, window, stop, None, || ()));
    let mut vmm = Vmm::connect_to(&path);
    talk(&mut vmm);
    drop(vmm);
    assert_eq!(backend.join().unwrap().unwrap(), End::Disconnected);
}

fn count(directory: &str) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// `VmRSS` of this process in KiB.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// In a separate process, which no other test disturbs.
#[test]
fn a_thousand_connections_leave_nothing_behind() {
    const CHILD: &str = "VHOST_FAMFS_RECONNECT";
    const TEST: &str = "reconnect::a_thousand_connections_leave_nothing_behind";
    if std::env::var_os(CHILD).is_none() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", TEST, "--nocapture"]).env(CHILD, "1");
        // The number of arenas depends on how many threads exist at the same time.
        let output = child.env("MALLOC_ARENA_MAX", "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let line = text.lines().find(|line| line.contains("connections:"));
        println!("{}", line.expect("the child says what it measured"));
        return;
    }
    const ROUNDS: usize = 1000;
    /// The allocator keeps some memory of ended threads; a leak of 100 bytes per connection is more
    /// than that.
    const SLACK_KIB: u64 = 512;
    let pool = TestPool::tmpfs(16 * MIB);
    let open = || count("/proc/self/fd");
    let threads = || count("/proc/self/task");
    let (fds_before, threads_before) = (open(), threads());
    // The mapper is told to end together with its device, but nobody waits for it.
    let settle = || until("end of the threads", || (threads() == threads_before).then_some(()));
    let mut base = 0;
    for round in 0..ROUNDS {
        // Every stage of a VM's life in turn; half of them run to the end.
        let steps = if round % 2 == 0 { LIFE.len() } else { round / 2 % LIFE.len() };
        serve(&pool, |vmm| LIFE[..steps].iter().for_each(|step| step(vmm)));
        if round == ROUNDS / 10 {
            settle();
            base = resident_kib();
        }
    }
    settle();
    assert_eq!(open(), fds_before, "descriptors");
    let now = resident_kib();
    println!("{ROUNDS} connections: {fds_before} descriptors, {base} -> {now} KiB");
    assert!(now <= base + SLACK_KIB, "{base} KiB grew to {now} KiB");
}

/// An announced kick is missing when the queue's thread reads it: the front-end has read it, or
/// replaced the descriptor.
#[test]
fn a_kick_that_vanishes_does_not_end_the_queue() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.expect_flush();
    let kick = vmm.kick_descriptor();
    for _ in 0..2000 {
        kick.write(1).unwrap();
        // Whoever is faster gets it. The back-end set the flag: our end was blocking.
        let _ = kick.read();
    }
    let blocking = EventFd::new(0).unwrap();
    for _ in 0..200 {
        vmm.kick();
        vmm.frontend.set_vring_kick(0, &blocking).unwrap();
        vmm.set_kick();
    }
    vmm.expect_flush();
}

/// A full call descriptor must not stop the queue, which would hold the ring's lock.
#[test]
fn a_full_call_descriptor_does_not_stop_the_queue() {
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.expect_flush();
    let full = EventFd::new(0).unwrap();
    full.write(u64::MAX - 1).unwrap();
    vmm.frontend.set_vring_call(0, &full).unwrap();
    let before = vmm.used_index();
    vmm.offer_flush();
    vmm.kick();
    until("answer", || (vmm.used_index() != before).then_some(()));
    vmm.stop();
    drop(vmm);
    backend.wait_for_success();
}

#[test]
fn memory_that_its_file_does_not_have_is_refused() {
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    let short = tempfile::tempfile_in("/dev/shm").unwrap();
    short.set_len(2 * MIB).unwrap();
    vmm.add_file_as_window(short, 4 * MIB);
    vmm.try_set_mem_table().unwrap_err();
    assert_eq!(backend.wait().code(), Some(1), "not killed by SIGBUS");
    backend.expect_log("of a file of 2097152 bytes");
}

/// Another VM writes to the shared pool while this one's request is in it.
#[test]
fn requests_in_the_window_may_change_while_they_are_read() {
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.add_window(&pool);
    vmm.set_mem_table();
    vmm.use_rings_at(WINDOW_ADDR);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    thread::scope(|scope| {
        let window = vmm.window().clone();
        let stop = &stop;
        scope.spawn(move || {
            let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
            while !stop.load(relaxed) {
                noise = noise.rotate_left(7).wrapping_mul(0x2545_f491_4f6c_dd1d);
                let at = WINDOW_ADDR + noise % 0x4000 / 8 * 8;
                window.write_obj(noise, GuestAddress(at)).unwrap();
            }
        });
        for _ in 0..300 {
            vmm.kick();
            thread::sleep(std::time::Duration::from_millis(1));
            vmm.stop();
            vmm.start_with_rings_at(WINDOW_ADDR);
        }
        stop.store(true, relaxed);
    });
    assert!(backend.is_running(), "{}", backend.log());
    // The rings in RAM, which nobody else writes, are served again.
    vmm.stop();
    vmm.forget_queue();
    vmm.start();
    vmm.expect_flush();
}

/// Programs that find the same stale socket at the same time.
#[test]
fn of_two_back_ends_on_one_stale_socket_one_serves() {
    let pool = TestPool::tmpfs(16 * MIB);
    for round in 0..10 {
        let path = pool.socket(&format!("stale{round}"));
        drop(UnixListener::bind(&path).unwrap());
        let mut children: Vec<_> = (0..2)
            .map(|_| {
                let mut command = crate::backend::program();
                command.args(["device", "--pool"]).arg(pool.path()).arg("--socket-path").arg(&path);
                command.stderr(std::process::Stdio::null()).spawn().unwrap()
            })
            .collect();
        let loser = until("loser", || {
            children.iter_mut().position(|child| child.try_wait().unwrap().is_some())
        });
        let mut winner = children.remove(1 - loser);
        drop(until("winner's socket", || UnixStream::connect(&path).ok()));
        assert!(winner.wait().unwrap().success());
        assert_eq!(children[0].wait().unwrap().code(), Some(1));
    }
}
