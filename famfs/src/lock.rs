// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Waiting for a file's lock, flock(2), but not for ever and not in silence: any user who may
//! read a file may hold its lock.

use std::fmt::Write;
use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, fstat};
use rustix::io::Errno;

use crate::holders::{self, Process};

/// How long a lock is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long the wait goes on before it is told.
const SILENCE: Duration = Duration::from_secs(1);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Why a lock is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process kept it.
    #[error(
        "{name} is locked{}, and was not free within {} s; wait for that process, or end it",
        by(.holder.as_ref()), .waited.as_secs()
    )]
    Busy {
        /// The file.
        name: String,
        /// Who holds it, if that can be told.
        holder: Option<Process>,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The system refused.
    #[error("cannot lock {name}")]
    System {
        /// The file.
        name: String,
        /// What the system says.
        source: io::Error,
    },
}

fn by(holder: Option<&Process>) -> String {
    let mut text = String::new();
    if let Some(holder) = holder {
        // Writing to a string cannot fail.
        let _ = write!(text, " by {holder}");
    }
    text
}

/// Takes a file's exclusive lock. If that takes more than a second, `tell` is told whom it waits
/// for; after `patience` it gives up.
pub fn exclusive(
    file: impl AsFd,
    name: &str,
    patience: Duration,
    tell: impl FnOnce(&str),
) -> Result<(), LockError> {
    let error = |err: Errno| LockError::System { name: name.to_owned(), source: err.into() };
    let start = Instant::now();
    let holder = || {
        let stat = fstat(&file).ok()?;
        holders::of_lock(stat.st_dev, stat.st_ino)
    };
    let mut tell = Some(tell);
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(err) => return Err(error(err)),
        }
        let waited = start.elapsed();
        if waited >= patience {
            return Err(LockError::Busy { name: name.to_owned(), holder: holder(), waited });
        }
        if waited >= SILENCE
            && let Some(tell) = tell.take()
        {
            let left = (patience - waited).as_secs();
            tell(&format!("waiting up to {left} s for {name}, locked{}", by(holder().as_ref())));
        }
        thread::sleep(PAUSE);
    }
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
}
