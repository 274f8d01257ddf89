// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ending a VM: the guest is asked, then QEMU; the last step, killing it, is the caller's.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::deadline::Deadline;
use super::qmp::{Qmp, QmpError};

/// Time for QEMU to leave after `quit`.
pub(super) const QUIT_LIMIT: Duration = Duration::from_secs(5);

/// How a VM ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// The guest shut itself down.
    Orderly,
    /// The guest did not; QEMU left when it was told to.
    Quit,
    /// QEMU did not either and was killed.
    Killed,
}

/// Lets `ask` tell the guest to power off, for which it has `limit`, then tells QEMU to leave.
/// `ended` waits so long for QEMU's end, and tells whether it came. [`Shutdown::Killed`] means that
/// QEMU is still there and is to be killed.
pub fn end_vm(
    ask: impl FnOnce(Duration),
    ended: impl Fn(Duration) -> bool,
    qmp: &Path,
    limit: Duration,
) -> Shutdown {
    let deadline = Deadline::after(limit);
    // An agent that does not take the request is the case that the next steps are for.
    ask(limit);
    if ended(deadline.left().unwrap_or_default()) {
        return Shutdown::Orderly;
    }
    let quit = Qmp::connect(qmp, QUIT_LIMIT)
        .and_then(|mut qmp| qmp.execute("quit", json!({}), QUIT_LIMIT));
    // It may be gone before it answers, or before it is asked.
    let left = match quit {
        Ok(_) | Err(QmpError::Ended { .. }) => ended(QUIT_LIMIT),
        Err(_) => ended(Duration::ZERO),
    };
    if left { Shutdown::Quit } else { Shutdown::Killed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    /// A QEMU that leaves at `quit` without an answer.
    #[test]
    fn a_qemu_that_leaves_without_a_word_was_not_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let gone = AtomicBool::new(false);
        let end = thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = listener.accept().unwrap();
                (&stream).write_all(b"{\"QMP\": {}}\r\n").unwrap();
                let mut requests = BufReader::new(&stream).lines();
                requests.next().unwrap().unwrap();
                (&stream).write_all(b"{\"return\": {}}\r\n").unwrap();
                requests.next().unwrap().unwrap();
                gone.store(true, Ordering::SeqCst);
            });
            let ended = |_| gone.load(Ordering::SeqCst);
            end_vm(|_| (), ended, &path, Duration::ZERO)
        });
        assert_eq!(end, Shutdown::Quit);
    }

    #[test]
    fn the_first_step_that_helps_is_told() {
        let none = Path::new("/nonexistent/qmp");
        assert_eq!(end_vm(|_| (), |_| true, none, Duration::ZERO), Shutdown::Orderly);
        assert_eq!(end_vm(|_| (), |_| false, none, Duration::ZERO), Shutdown::Killed);
    }
}
