// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Moves bytes from pipes into logs.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::pipe::make_pipe;
use super::writer::Writer;

/// Bytes to take from one pipe before turning to the next; a pipe holds as much.
const CHUNK: usize = 64 * 1024;

/// Several logs and their pipes, all open.
#[derive(Debug)]
pub struct Keeper {
    logs: Vec<(File, Writer)>,
}

impl Keeper {
    /// Creates the missing pipes, and begins the logs.
    ///
    /// # Errors
    /// A pipe or file cannot be created; the error contains its name.
    pub fn open(logs: &[PathBuf], limit: u64) -> io::Result<Self> {
        let open = |log: &PathBuf| {
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("log {}: {error}", log.display()))
            };
            let pipe = make_pipe(log).map_err(named)?;
            Ok((pipe, Writer::new(log, limit).map_err(named)?))
        };
        Ok(Self { logs: logs.iter().map(open).collect::<io::Result<_>>()? })
    }

    /// Moves data until no process can write to a pipe any more, or `stop` becomes readable.
    ///
    /// # Errors
    /// The kernel cannot wait for the pipes.
    pub fn run(mut self, stop: impl AsFd) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        while !self.logs.is_empty() {
            let ready: Vec<PollFlags> = {
                let pipes = self.logs.iter().map(|(pipe, _)| PollFd::new(pipe, PollFlags::IN));
                let mut fds: Vec<_> = pipes.chain([PollFd::new(&stop, PollFlags::IN)]).collect();
                match poll(&mut fds, None) {
                    Ok(_) => {}
                    Err(Errno::INTR) => continue,
                    Err(errno) => return Err(errno.into()),
                }
                fds.iter().map(PollFd::revents).collect()
            };
            let mut ended = false;
            let mut readiness = ready.into_iter();
            self.logs.retain_mut(|(pipe, log)| {
                let flags = readiness.next().unwrap_or(PollFlags::empty());
                let open = flags.is_empty() || move_some(pipe, log, &mut chunk);
                ended |= !open;
                open
            });
            if ended {
                // A program that ended before opening all of its pipes will not open the others: a
                // pipe without a writer is at its end.
                self.logs.retain_mut(|(pipe, log)| move_some(pipe, log, &mut chunk));
            }
            if readiness.next().is_some_and(|flags| !flags.is_empty()) {
                for (pipe, log) in &mut self.logs {
                    while rustix::io::ioctl_fionread(&*pipe).is_ok_and(|left| left > 0)
                        && move_some(pipe, log, &mut chunk)
                    {}
                }
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Moves at most one chunk; `false` if the pipe has ended.
fn move_some(pipe: &mut File, log: &mut Writer, chunk: &mut [u8]) -> bool {
    match pipe.read(chunk) {
        Ok(0) => false,
        Ok(count) => {
            log.add(&chunk[..count]);
            true
        }
        Err(error) => {
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MIN_LIMIT, older, pipe_of};
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::thread;

    fn writer(log: &Path) -> File {
        File::options().write(true).open(pipe_of(log)).unwrap()
    }

    #[test]
    fn what_comes_by_pipes_ends_up_in_logs_that_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let logs = ["a", "b", "never opened"].map(|name| dir.path().join(name));
        let keeper = Keeper::open(&logs, MIN_LIMIT).unwrap();
        let (_go_on, stop) = UnixStream::pair().unwrap();
        let mut writers = [writer(&logs[0]), writer(&logs[1])];
        let thread = thread::spawn(move || keeper.run(stop));
        writers[1].write_all(b"a word\n").unwrap();
        // A guest that writes 4 MiB as fast as it can.
        for number in 0..4096 {
            writers[0].write_all(&[b"0123456789abcdef"[number % 16]; 1024]).unwrap();
        }
        drop(writers);
        thread.join().unwrap().unwrap();
        assert_eq!(fs::read_to_string(&logs[1]).unwrap(), "a word\n");
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        assert!(size(&logs[0]) + size(&older(&logs[0])) <= MIN_LIMIT);
        assert!(fs::read(&logs[0]).unwrap().ends_with(b"fff"));
    }

    #[test]
    fn a_request_to_stop_loses_nothing_that_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let keeper = Keeper::open(std::slice::from_ref(&log), 1 << 20).unwrap();
        let (go_on, stop) = UnixStream::pair().unwrap();
        let mut pipe = writer(&log);
        pipe.write_all(&[b'x'; 60_000]).unwrap();
        drop(go_on);
        keeper.run(stop).unwrap();
        assert_eq!(fs::metadata(&log).unwrap().len(), 60_000);
    }
}
