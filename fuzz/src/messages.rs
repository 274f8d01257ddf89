// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Target: the messages of a front-end, in any order, with any sizes and descriptors. Input: a
//! sequence of records. A record is four bytes (request, flags in bits 0 to 3 and the number of
//! descriptors in bits 4 to 7, the first descriptor, length of the body) and the body, which is
//! filled up with zeros at the end of the input.
//!
//! Invariants:
//! * no panic in any thread of the back-end;
//! * the back-end ends when the connection does (libFuzzer's time limit finds a hang);
//! * then its descriptors are closed.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::MemfdFlags;
use vhost_famfs::device::listen::Socket;
use vhost_famfs::device::server::{self, ServerError};
use vhost_famfs::pool::{Pool, Window};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

const MIB: u64 = 1 << 20;
const POOL: u64 = 16 * MIB;
/// More than the requests of the vhost-user specification.
const REQUESTS: u8 = 48;
/// A message's header: request, flags, length of the body; the version is 1.
const VERSION: u32 = 1;
const NEED_REPLY: u32 = 8;
const MAX_RECORDS: usize = 64;

fn memfd(len: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("no memory file");
    let file = File::from(fd);
    file.set_len(len).expect("no memory for a hole");
    file.into()
}

/// Runs the target.
///
/// # Panics
/// When an invariant does not hold, or the system has no memory or descriptors.
pub fn run(data: &[u8]) {
    let directory = tempfile::tempdir().expect("no temporary directory");
    let path = directory.path().join("s");
    let before = descriptors();
    converse(&path, data);
    assert_eq!(descriptors(), before, "descriptors are left open");
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn converse(path: &Path, data: &[u8]) {
    let pool = memfd(POOL);
    let window = Window::new(POOL, 2 * MIB, 0, None).expect("the whole pool is a window");
    let ours = [
        memfd(MIB),
        eventfd(0, EventfdFlags::NONBLOCK).expect("no event descriptor"),
        eventfd(1, EventfdFlags::empty()).expect("no event descriptor"),
        rustix::io::dup(&pool).expect("no descriptor"),
        File::open("/dev/null").expect("no /dev/null").into(),
    ];
    let pool = Pool::from_fd(pool).expect("a memfd is a pool");
    let socket = Socket::bind(path).expect("a new directory has room for a socket");
    let (stop, _running) = UnixStream::pair().expect("no sockets");
    let backend = thread::spawn(move || server::serve(socket, pool, window, stop, None, || ()));
    let stream = UnixStream::connect(path).expect("the back-end listens");
    send(&stream, data, &ours);
    drop(stream);
    let result = backend.join().expect("the back-end panicked");
    assert!(!matches!(result, Err(ServerError::Daemon(_))), "a thread panicked: {result:?}");
}

/// Sends the records until the back-end hangs up.
fn send(mut stream: &UnixStream, mut data: &[u8], descriptors: &[OwnedFd]) {
    stream.set_nonblocking(true).expect("a socket can be non-blocking");
    for _ in 0..MAX_RECORDS {
        let Some((&[request, bits, which, len], rest)) = data.split_first_chunk() else { return };
        let (body, rest) = rest.split_at(rest.len().min(len.into()));
        data = rest;
        let flags = VERSION | u32::from(bits & 0b1011) | NEED_REPLY;
        let mut message = Vec::new();
        for field in [u32::from(request % REQUESTS), flags, len.into()] {
            message.extend(field.to_ne_bytes());
        }
        message.extend(body);
        message.resize(12 + usize::from(len), 0);
        let count = usize::from(bits >> 4).min(descriptors.len());
        let fds: Vec<_> = descriptors
            .iter()
            .cycle()
            .skip(usize::from(which) % descriptors.len())
            .take(count)
            .map(AsRawFd::as_raw_fd)
            .collect();
        if stream.send_with_fds(&[&message[..]], &fds).is_err() {
            return;
        }
        // Replies are not tested; one that nobody takes must not stop the back-end either.
        let _ = stream.read(&mut [0; 4096]);
    }
}
