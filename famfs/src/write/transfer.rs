// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Moves the bytes of many files on several threads.
//!
//! Files are cut into pieces of [`COPY_STEP`], so that one large file keeps all threads as busy as
//! many small ones. A bounded number of pieces waits, so few files are open at a time.
//!
//! A thread that panics fails its file like any other error: the leader learns the result of every
//! file that it handed over, and never waits for a thread that is gone.

use std::any::Any;
use std::fs::File;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::write::volume::{FileBytes, TransferError, steps_of};

/// Bytes of a thread's buffers: they stay in its CPU's second-level cache.
const BUFFER: usize = 256 << 10;
/// Highest default number of threads: that many fill the memory's bandwidth.
const DEFAULT_THREADS: usize = 8;
/// Pieces that wait for each thread.
const WAITING: usize = 2;

/// How bytes are moved.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Number of threads.
    pub threads: usize,
    /// Read everything back from memory and compare it with the source.
    pub verify: bool,
}

impl Default for How {
    fn default() -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        Self { threads: threads.min(DEFAULT_THREADS), verify: false }
    }
}

/// A file whose bytes are to be moved.
pub struct Job<'v> {
    /// What the caller knows it by.
    pub index: usize,
    /// Where the bytes come from.
    pub source: File,
    /// Which ranges of bytes; at least one.
    pub ranges: Vec<Range<u64>>,
    /// Where they go.
    pub bytes: Box<dyn FileBytes + 'v>,
    /// What is to be done with them.
    pub task: Task,
}

/// What is to be done with the bytes of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Write all of them.
    Write,
    /// Write what differs.
    Replace,
    /// Write nothing: what differs is a [`Problem::Differs`].
    Compare,
}

/// Why a file's bytes are not complete.
#[derive(Debug)]
pub enum Problem {
    /// The source cannot be read.
    Source(io::Error),
    /// The target cannot be read or written.
    Target(io::Error),
    /// The target does not hold what was written to this offset.
    Differs(u64),
    /// The user asked to stop, or another file failed.
    Stopped,
    /// The thread panicked, with this message.
    Panicked(String),
}

impl From<TransferError> for Problem {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Source(err) => Self::Source(err),
            TransferError::Target(err) => Self::Target(err),
        }
    }
}

/// The result of a [`Job`]: whether anything was written, or what went wrong first.
#[derive(Debug)]
pub struct Moved {
    /// The job's.
    pub index: usize,
    /// True if bytes were written.
    pub result: Result<bool, Problem>,
}

struct Open<'v> {
    job: Job<'v>,
    /// Pieces that are not done.
    left: AtomicU64,
    written: AtomicBool,
    failed: AtomicBool,
}

struct Piece<'v> {
    file: Arc<Open<'v>>,
    offset: u64,
    len: usize,
}

/// Threads at work.
pub struct Crew<'s, 'v> {
    pieces: SyncSender<Piece<'v>>,
    moved: Receiver<Moved>,
    stop: &'s AtomicBool,
}

impl<'v> Crew<'_, 'v> {
    /// Hands over a file; waits while the threads have enough to do.
    pub fn give(&self, job: Job<'v>) {
        let pieces: Vec<_> = job.ranges.iter().flat_map(steps_of).collect();
        let count = pieces.len() as u64;
        let (left, written, failed) = (AtomicU64::new(count), false.into(), false.into());
        let file = Arc::new(Open { job, left, written, failed });
        for (offset, len) in pieces {
            // The threads end only after this sender.
            let _ = self.pieces.send(Piece { file: file.clone(), offset, len });
        }
    }

    /// Files that are done since the last call.
    pub fn finished(&self) -> impl Iterator<Item = Moved> + '_ {
        self.moved.try_iter()
    }

    /// Whether the threads have stopped working.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits for everything that was handed over.
    pub fn wait(self) -> impl Iterator<Item = Moved> {
        drop(self.pieces);
        self.moved.into_iter()
    }
}

/// Starts threads, lets `lead` hand files to them, and ends with them. `progress` gets the bytes of
/// each piece, and returns whether to go on. Fewer threads than requested will do, but one is
/// needed.
pub fn with_crew<'v, R>(
    how: &How,
    progress: &(dyn Fn(u64) -> bool + Sync),
    lead: impl FnOnce(Crew<'_, 'v>) -> R,
) -> io::Result<R> {
    let threads = how.threads.max(1);
    let (pieces, waiting) = sync_channel(threads * WAITING);
    let (tell, moved) = channel();
    let (waiting, stop) = (Mutex::new(waiting), AtomicBool::new(false));
    thread::scope(|scope| {
        for number in 0..threads {
            let worker =
                Worker { waiting: &waiting, tell: tell.clone(), stop: &stop, verify: how.verify };
            let thread = thread::Builder::new().name("transfer".to_owned());
            match thread.spawn_scoped(scope, move || worker.run(progress)) {
                Err(err) if number == 0 => return Err(err),
                Err(_) => break,
                Ok(_) => {}
            }
        }
        drop(tell);
        Ok(lead(Crew { pieces, moved, stop: &stop }))
    })
}

struct Worker<'s, 'v> {
    waiting: &'s Mutex<Receiver<Piece<'v>>>,
    tell: Sender<Moved>,
    stop: &'s AtomicBool,
    verify: bool,
}

impl<'v> Worker<'_, 'v> {
    fn run(self, progress: &(dyn Fn(u64) -> bool + Sync)) {
        let mut buffers = [vec![0; BUFFER], vec![0; BUFFER]];
        while let Some(Piece { file, offset, len }) = self.next() {
            let work = || {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Problem::Stopped);
                }
                self.carry(&file, offset, len, &mut buffers)?;
                match progress(len as u64) {
                    true => Ok(()),
                    false => Err(Problem::Stopped),
                }
            };
            // The next piece overwrites what is left in the buffers.
            let moved = catch_unwind(AssertUnwindSafe(work))
                .unwrap_or_else(|panic| Err(Problem::Panicked(message(&*panic))));
            self.settle(file, moved);
        }
    }

    fn next(&self) -> Option<Piece<'v>> {
        // No thread panics while it holds the lock; the queue would be intact anyway.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
    }

    /// Reports the first problem of a file, or its end.
    fn settle(&self, file: Arc<Open<'_>>, moved: Result<(), Problem>) {
        let index = file.job.index;
        if let Err(problem) = moved {
            self.stop.store(true, Ordering::Relaxed);
            if !file.failed.swap(true, Ordering::AcqRel) {
                // Nobody listens once the leader has given up.
                let _ = self.tell.send(Moved { index, result: Err(problem) });
            }
        }
        let last = file.left.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && !file.failed.load(Ordering::Acquire) {
            let written = file.written.load(Ordering::Acquire);
            let result = match file.job.task {
                Task::Write => file.job.bytes.clear_tail().map_err(Problem::Target),
                Task::Replace | Task::Compare => Ok(()),
            };
            if result.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            drop(file);
            let _ = self.tell.send(Moved { index, result: result.map(|()| written) });
        }
    }

    fn carry(
        &self,
        file: &Open<'_>,
        offset: u64,
        len: usize,
        buffers: &mut [Vec<u8>; 2],
    ) -> Result<(), Problem> {
        let Job { source, bytes, task, .. } = &file.job;
        let written = match task {
            Task::Write => {
                bytes.write_from(source, offset, len, &mut buffers[0])?;
                true
            }
            Task::Replace => write_differences(source, &**bytes, offset, len, buffers)?,
            Task::Compare => {
                verify(source, &**bytes, offset, len, buffers)?;
                false
            }
        };
        if written {
            file.written.store(true, Ordering::Release);
            bytes.write_back(offset, len).map_err(Problem::Target)?;
        }
        match self.verify && written {
            true => verify(source, &**bytes, offset, len, buffers),
            false => Ok(()),
        }
    }
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// Writes the parts of a piece that differ from the source; true if there are any.
fn write_differences(
    source: &File,
    bytes: &dyn FileBytes,
    offset: u64,
    len: usize,
    buffers: &mut [Vec<u8>; 2],
) -> Result<bool, Problem> {
    let mut written = false;
    bytes.refresh(offset, len).map_err(Problem::Target)?;
    for_each_pair(source, bytes, offset, len, buffers, |at, wanted, found| {
        if wanted != found {
            written = true;
            bytes.write(at, wanted).map_err(Problem::Target)?;
        }
        Ok(())
    })?;
    Ok(written)
}

/// Compares what memory holds with the source.
fn verify(
    source: &File,
    bytes: &dyn FileBytes,
    offset: u64,
    len: usize,
    buffers: &mut [Vec<u8>; 2],
) -> Result<(), Problem> {
    bytes.refresh(offset, len).map_err(Problem::Target)?;
    for_each_pair(source, bytes, offset, len, buffers, |at, wanted, found| {
        match wanted.iter().zip(found).position(|(a, b)| a != b) {
            Some(byte) => Err(Problem::Differs(at + byte as u64)),
            None => Ok(()),
        }
    })
}

/// Reads source and target side by side: calls `each` with offset, source's and target's bytes.
fn for_each_pair(
    source: &File,
    bytes: &dyn FileBytes,
    offset: u64,
    len: usize,
    [wanted, found]: &mut [Vec<u8>; 2],
    mut each: impl FnMut(u64, &[u8], &[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    for start in (0..len).step_by(BUFFER) {
        let (at, len) = (offset + start as u64, BUFFER.min(len - start));
        let (wanted, found) = (&mut wanted[..len], &mut found[..len]);
        source.read_exact_at(wanted, at).map_err(Problem::Source)?;
        bytes.read(at, found).map_err(Problem::Target)?;
        each(at, wanted, found)?;
    }
    Ok(())
}
