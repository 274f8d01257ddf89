// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Waits for a file's lock, flock(2), but not for ever and not in silence: any user who may read a
//! file may hold its lock. So an error names the holder and the way out.

use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, fstat};
use rustix::io::Errno;

use crate::sys::record_lock;
use crate::system::holders::{self, NamedProcess};

/// How long to wait for a lock.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for a lock that its holders keep until their work on the file is done: enough
/// for a process that only looks.
pub const BRIEF: Duration = Duration::from_millis(500);
/// How long to wait before that is reported.
const SILENCE: Duration = Duration::from_secs(1);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// How many may have a file's lock at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One alone.
    Exclusive,
    /// All that take it in this mode.
    Shared,
}

/// Why a lock cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process kept it.
    #[error(
        "{name} is locked{}, and was not free within {} s: wait for that process, or end it{}",
        holders::by(.holders), .waited.as_secs(), others(.holders)
    )]
    Busy {
        /// The file.
        name: String,
        /// Who holds it, as far as known.
        holders: Vec<NamedProcess>,
        /// How long the wait lasted.
        waited: Duration,
    },
    /// The system refused.
    #[error("cannot lock {name}")]
    System {
        /// The file.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
}

/// Advice about holders that are other users.
pub fn others(holders: &[NamedProcess]) -> &'static str {
    let me = rustix::process::geteuid().as_raw();
    match holders.iter().filter_map(|process| process.user).any(|user| user != me && user != 0) {
        true => " (every user who may read the file can lock it: `chmod go-r` prevents that)",
        false => "",
    }
}

/// Takes a file's exclusive lock. After a second it reports to `tell` whom it waits for; after
/// `patience` it gives up.
pub fn exclusive(
    file: impl AsFd,
    name: &str,
    patience: Duration,
    tell: impl FnOnce(&str),
) -> Result<(), LockError> {
    take(file, Mode::Exclusive, name, patience, tell)
}

/// Takes a file's shared lock, likewise.
pub fn shared(
    file: impl AsFd,
    name: &str,
    patience: Duration,
    tell: impl FnOnce(&str),
) -> Result<(), LockError> {
    take(file, Mode::Shared, name, patience, tell)
}

/// Takes a file's lock if it is free within `patience`; returns whether it was. Reports nothing.
///
/// # Errors
/// The system refuses.
pub fn within(file: impl AsFd, mode: Mode, patience: Duration) -> io::Result<bool> {
    let operation = match mode {
        Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Mode::Shared => FlockOperation::NonBlockingLockShared,
    };
    poll(patience, || match flock(&file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
        Err(err) => Err(err.into()),
    })
}

/// Tries until it succeeds, for at most `patience`; returns whether it did.
fn poll(patience: Duration, mut attempt: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    let end = Instant::now() + patience;
    loop {
        match attempt()? {
            true => return Ok(true),
            false if Instant::now() < end => thread::sleep(PAUSE),
            false => return Ok(false),
        }
    }
}

/// Takes the lock that those who write a file have among themselves, whoever has the others
/// ([`record_lock`]). It reports and gives up as [`exclusive`] does.
pub fn writers(
    file: impl AsFd,
    name: &str,
    patience: Duration,
    tell: impl FnOnce(&str),
) -> Result<(), LockError> {
    let by = || {
        fstat(&file)
            .map_or_else(|_| Vec::new(), |stat| holders::of_record_lock(stat.st_dev, stat.st_ino))
    };
    let take = |patience| poll(patience, || record_lock::take(&file));
    take_patiently(take, by, name, patience, tell)
}

fn take(
    file: impl AsFd,
    mode: Mode,
    name: &str,
    patience: Duration,
    tell: impl FnOnce(&str),
) -> Result<(), LockError> {
    let take = |patience| within(&file, mode, patience);
    take_patiently(take, || holders_of(&file), name, patience, tell)
}

fn take_patiently(
    take: impl Fn(Duration) -> io::Result<bool>,
    holders_now: impl Fn() -> Vec<NamedProcess>,
    name: &str,
    patience: Duration,
    tell: impl FnOnce(&str),
) -> Result<(), LockError> {
    let error = |source| LockError::System { name: name.to_owned(), source };
    let start = Instant::now();
    let mut taken = take(patience.min(SILENCE)).map_err(error)?;
    if !taken && patience > SILENCE {
        let left = patience - SILENCE;
        let by = holders::by(&holders_now());
        tell(&format!("waiting up to {} s for {name}, locked{by}", left.as_secs()));
        taken = take(left).map_err(error)?;
    }
    if taken {
        return Ok(());
    }
    let holders = holders_now();
    Err(LockError::Busy { name: name.to_owned(), holders, waited: start.elapsed() })
}

/// Who holds the lock of an open file, as far as known.
pub fn holders_of(file: impl AsFd) -> Vec<NamedProcess> {
    fstat(file).map_or_else(|_| Vec::new(), |stat| holders::of_busy_lock(stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_kept_lock_is_told_and_given_up() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let [first, second] = [(); 2].map(|()| File::open(file.path()).unwrap());
        exclusive(&first, "x", Duration::ZERO, |_| panic!("it is free")).unwrap();
        let mut told = String::new();
        let patience = SILENCE * 2;
        let error = exclusive(&second, "x", patience, |text| told = text.to_owned()).unwrap_err();
        let me = format!("by process {} (", std::process::id());
        assert!(told.starts_with("waiting up to ") && told.contains(&me), "{told}");
        let error = error.to_string();
        assert!(error.starts_with("x is locked by process") && error.contains("end it"), "{error}");
        drop(first);
        // A program that another test starts just now has it for a moment, too.
        exclusive(&second, "x", PATIENCE, |_| {}).unwrap();
    }

    #[test]
    fn a_writer_is_named_and_waited_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let [first, second] =
            [(); 2].map(|()| File::options().write(true).open(file.path()).unwrap());
        exclusive(&second, "x", PATIENCE, |_| {}).unwrap();
        writers(&first, "x", Duration::ZERO, |_| panic!("it is free")).unwrap();
        let error = writers(&second, "x", Duration::ZERO, |_| {}).unwrap_err().to_string();
        // The test itself is no other process.
        assert!(error.starts_with("x is locked, and was not free within 0 s"), "{error}");
        drop(first);
        writers(&second, "x", PATIENCE, |_| {}).unwrap();
    }
}
