// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ends a VM: asks the guest, then QEMU. The last step, killing QEMU, is left to the caller.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::deadline::Deadline;
use super::qmp::{Qmp, QmpError};

/// How long QEMU may take to end after `quit`.
pub(super) const QUIT_LIMIT: Duration = Duration::from_secs(5);

/// How a VM ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// The guest shut itself down.
    Orderly,
    /// The guest did not shut down; QEMU ended when asked to.
    Quit,
    /// QEMU did not end either, and was killed.
    Killed,
}

/// Calls `ask` to request the guest's power-off, with a limit of `limit`, then tells QEMU to quit.
/// `ended` waits for QEMU to end, at most as long as it is told, and returns whether it did.
/// [`Shutdown::Killed`] means that QEMU is still running and must be killed.
pub fn end_vm(
    ask: impl FnOnce(Duration),
    ended: impl Fn(Duration) -> bool,
    qmp: &Path,
    limit: Duration,
) -> Shutdown {
    let deadline = Deadline::after(limit);
    // If the agent does not accept the request, the next steps handle it.
    ask(limit);
    if ended(deadline.left().unwrap_or_default()) {
        return Shutdown::Orderly;
    }
    let quit = Qmp::connect(qmp, QUIT_LIMIT)
        .and_then(|mut qmp| qmp.execute("quit", json!({}), QUIT_LIMIT));
    // QEMU may end before it answers, or before it is asked.
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

    /// QEMU ends at `quit` without an answer.
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
