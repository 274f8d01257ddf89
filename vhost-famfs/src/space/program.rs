// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs reclaim`, as a process that does not outlive this one.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Space, Waited, take};
use crate::vm::tied;

/// How long it may take: it waits for other commands of the host, and for a master that writes, up
/// to a minute each.
const LIMIT: Duration = Duration::from_secs(180);
/// How long it may still take when this process is to end: if it is killed while it moves entries,
/// no mount can write. Less than this process has.
const GRACE: Duration = Duration::from_secs(4);
/// Pause between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(20);
/// How much of its messages to keep.
const MOST_TEXT: usize = 1024;
/// Its exit code if something is held.
const HELD: i32 = 3;

/// How it ended.
#[derive(Debug)]
pub enum Ended {
    /// Everything is given back.
    All,
    /// Something is held.
    Held,
    /// It failed, for this reason.
    Failed(String),
    /// This process is to end.
    Stopped,
}

/// Runs it until nobody holds the other end of `wakes` any more; then it has a moment to end before
/// it is killed. Tells whether something woke this meanwhile.
pub fn reclaim(space: &Space, wakes: &UnixStream, is_woken: &mut bool) -> io::Result<Ended> {
    // The first argument tells others what the process does: see `holders::role`.
    let mut command = tied(space.famfs.as_os_str());
    command.arg("reclaim").arg("--pool").arg(&space.pool);
    if space.foreign {
        command.arg("--foreign-pool");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let ended = watch(&mut child, wakes, is_woken);
    if !matches!(ended, Ok(Some(_))) && !has_ended(&mut child, Instant::now() + GRACE) {
        // It may have ended just now.
        let _ = child.kill();
    }
    let status = child.wait()?;
    Ok(match (ended?, status.code()) {
        (None, _) => Ended::Stopped,
        (Some(_), Some(0)) => Ended::All,
        (Some(_), Some(HELD)) => Ended::Held,
        (Some(text), _) if text.is_empty() => Ended::Failed(format!("famfs reclaim: {status}")),
        (Some(text), _) => Ended::Failed(text),
    })
}

/// Whether it ends by itself until then. It gets no signal: together with one from a terminal, that
/// would end it at once.
fn has_ended(child: &mut Child, end: Instant) -> bool {
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < end => thread::sleep(PAUSE),
            Ok(status) => return status.is_some(),
            Err(_) => return false,
        }
    }
}

/// Reads its messages until it ends; `None` if it is to end.
fn watch(child: &mut Child, wakes: &UnixStream, is_woken: &mut bool) -> io::Result<Option<String>> {
    let end = Instant::now() + LIMIT;
    let Some(mut messages) = child.stderr.take() else { return Ok(Some(String::new())) };
    let mut text = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // The wait that follows sees the end of a killed process.
            child.kill()?;
            return Ok(Some(format!("famfs reclaim did not end within {} s", LIMIT.as_secs())));
        }
        let pause = Timespec::try_from(left).ok();
        let mut fds = [PollFd::new(wakes, PollFlags::IN), PollFd::new(&messages, PollFlags::IN)];
        match poll(&mut fds, pause.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let [woken, said] = fds.map(|fd| !fd.revents().is_empty());
        if woken {
            match take(wakes) {
                Waited::Ended => return Ok(None),
                Waited::Woken => *is_woken = true,
                Waited::Nothing => {}
            }
        }
        if said && !keep(&mut messages, &mut text)? {
            return Ok(Some(first_line(&text)));
        }
    }
}

/// Keeps the beginning of what it says; `false` at the end.
fn keep(messages: &mut ChildStderr, text: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; MOST_TEXT];
    let count = messages.read(&mut chunk)?;
    let room = MOST_TEXT.saturating_sub(text.len());
    text.extend_from_slice(&chunk[..count.min(room)]);
    Ok(count > 0)
}

fn first_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().next().unwrap_or_default().to_owned()
}
