// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Passes the mounted pool from the program that reads it to the program that may attach it for all
//! to see.
//!
//! The program that mounts a pool reads a log that other machines have written. `appliance-agent
//! attach` does so while confined ([`confine`](crate::confine)), so it may not attach its mount to
//! any directory. It sends the mount as a file descriptor (unix(7), `SCM_RIGHTS`) to this program,
//! which serves the host and is not confined. This program attaches the mount to the pool's mount
//! point (move_mount(2)), which it reads from the credentials itself.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use guest::report::DIR;
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::asked::Asked;

/// In [`DIR`], for root only.
const SOCKET: &str = "pool.sock";

/// How long to wait for the other program, and for each of its messages.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(5);

/// The answer if the mount was attached. Any other answer is the reason why it was not.
const DONE: &str = "done";

/// Accepts mounts from now on, in a thread.
pub fn listen() -> Result<()> {
    let path = Path::new(DIR).join(SOCKET);
    let listener = bind(&path).with_context(|| format!("cannot listen at {}", path.display()))?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            if let Err(error) = stream.map_err(Into::into).and_then(|stream| answer(stream, place))
            {
                eprintln!("appliance-agent: cannot accept a pool: {error:#}");
            }
        }
    });
    Ok(())
}

/// Passes a mount to the program that listens; returns once all can see it.
pub fn give(mount: impl AsFd) -> Result<()> {
    let path = Path::new(DIR).join(SOCKET);
    let stream =
        reach(&path).with_context(|| format!("cannot reach the agent at {}", path.display()))?;
    ask(stream, mount.as_fd())
}

/// Creates a socket that only root may connect to, replacing one that an earlier agent left behind.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects; the other program may just be starting.
fn reach(path: &Path) -> std::io::Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Err(err)
                if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
                    && start.elapsed() < PATIENCE =>
            {
                thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

fn ask(mut stream: UnixStream, mount: BorrowedFd<'_>) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let fds = [mount];
    ensure!(rights.push(SendAncillaryMessage::ScmRights(&fds)), "no room for a descriptor");
    // A descriptor can only be sent together with at least one byte.
    sendmsg(&stream, &[IoSlice::new(b"m")], &mut rights, SendFlags::NOSIGNAL)
        .context("cannot send the mount to the agent")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("no answer from the agent")?;
    match answer.as_str() {
        DONE => Ok(()),
        "" => bail!("the agent ended before it answered"),
        reason => Err(anyhow!("the agent: {reason}")),
    }
}

/// Receives one mount, calls `place` with it, and answers with the result.
fn answer(mut stream: UnixStream, place: impl FnOnce(OwnedFd) -> Result<()>) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let result = take(&stream).and_then(place);
    let text = result.as_ref().map_or_else(|error| format!("{error:#}"), |()| DONE.to_owned());
    stream.write_all(text.as_bytes()).context("cannot answer")?;
    result
}

fn take(stream: &UnixStream) -> Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut rights, RecvFlags::CMSG_CLOEXEC)
        .context("cannot receive")?;
    let mut fds = rights.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    fds.next().and_then(|mut fds| fds.next()).context("no mount came with the message")
}

/// Attaches a mount to the pool's mount point.
fn place(mount: OwnedFd) -> Result<()> {
    let asked = Asked::read()?;
    let mount_point = asked.mount_point();
    let cannot = || format!("cannot mount on {mount_point}");
    fs::create_dir_all(mount_point).with_context(cannot)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", rustix::fs::CWD, mount_point, flags).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// Runs both ends in two threads: one sends a file, the other answers with the result of
    /// `place`.
    fn hand_over(place: impl FnOnce(OwnedFd) -> Result<()> + Send) -> Result<()> {
        let file = File::open("/proc/self/exe").unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| answer(there, place));
            ask(here, file.as_fd())
        })
    }

    #[test]
    fn the_same_file_arrives() {
        let inode = fs::metadata("/proc/self/exe").unwrap().ino();
        hand_over(|fd| {
            assert_eq!(File::from(fd).metadata()?.ino(), inode);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn the_giver_learns_why_not() {
        let error = hand_over(|_| bail!("cannot mount on /mnt/famfs")).unwrap_err();
        assert_eq!(error.to_string(), "the agent: cannot mount on /mnt/famfs");
        let (here, there) = UnixStream::pair().unwrap();
        drop(there);
        let error = ask(here, File::open("/proc/self/exe").unwrap().as_fd()).unwrap_err();
        assert!(error.to_string().starts_with("cannot send the mount"), "{error}");
    }

    #[test]
    fn a_message_without_a_mount_is_refused() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"m").unwrap();
        let error = answer(there, |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "no mount came with the message");
    }

    #[test]
    fn a_new_agent_takes_the_place_of_one_before() {
        let dir = std::env::temp_dir().join(format!("appliance-agent-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let path = dir.join(SOCKET);
        drop(bind(&path).unwrap());
        assert!(path.exists());
        let _listener = bind(&path).unwrap();
        reach(&path).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
