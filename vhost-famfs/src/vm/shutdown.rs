// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ends a VM: asks the guest to power off, then the VMM to end, then kills the VMM.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::deadline::Deadline;
use super::qmp::{Qmp, QmpError};

/// How long a VMM may take to end when asked to.
pub(super) const QUIT_LIMIT: Duration = Duration::from_secs(5);

/// How a VM ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// The guest shut itself down.
    Orderly,
    /// The guest did not shut down; the VMM ended when asked to.
    Quit,
    /// The VMM did not end either, and was killed.
    Killed,
}

/// A VM that can be ended.
pub trait Ending {
    /// Asks the guest to power off, within `limit`.
    fn ask(&self, limit: Duration);
    /// Waits up to `limit` for the VMM to end, and returns whether it did.
    fn ended(&self, limit: Duration) -> bool;
    /// Asks the VMM to end without its guest, and returns whether it may do so.
    fn quit(&self) -> bool;
    /// Kills the VMM.
    fn kill(&self);
}

/// Ends a VM. The guest has `limit` to power off; each step is taken only if the previous one
/// failed.
pub fn end_vm(vm: &impl Ending, limit: Duration) -> Shutdown {
    let deadline = Deadline::after(limit);
    // If the agent does not accept the request, the next steps handle it.
    vm.ask(limit);
    if vm.ended(deadline.left().unwrap_or_default()) {
        return Shutdown::Orderly;
    }
    let limit = if vm.quit() { QUIT_LIMIT } else { Duration::ZERO };
    if vm.ended(limit) {
        return Shutdown::Quit;
    }
    vm.kill();
    Shutdown::Killed
}

/// Asks the QEMU that listens on the control socket `qmp` to end, and returns whether it may do so.
#[must_use]
pub fn quit_by_qmp(qmp: &Path) -> bool {
    let quit = Qmp::connect(qmp, QUIT_LIMIT)
        .and_then(|mut qmp| qmp.execute("quit", json!({}), QUIT_LIMIT));
    // QEMU may end before it answers, or before it is asked.
    matches!(quit, Ok(_) | Err(QmpError::Ended { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    /// A VM that may have ended, and whether it was killed.
    #[derive(Default)]
    struct Fake {
        qmp: PathBuf,
        gone: AtomicBool,
        killed: AtomicBool,
    }

    impl Ending for Fake {
        fn ask(&self, _limit: Duration) {}

        fn ended(&self, _limit: Duration) -> bool {
            self.gone.load(Ordering::SeqCst)
        }

        fn quit(&self) -> bool {
            quit_by_qmp(&self.qmp)
        }

        fn kill(&self) {
            self.killed.store(true, Ordering::SeqCst);
        }
    }

    /// QEMU ends at `quit` without an answer.
    #[test]
    fn a_qemu_that_leaves_without_a_word_was_not_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let vm = Fake { qmp: path, ..Fake::default() };
        let end = thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = listener.accept().unwrap();
                (&stream).write_all(b"{\"QMP\": {}}\r\n").unwrap();
                let mut requests = BufReader::new(&stream).lines();
                requests.next().unwrap().unwrap();
                (&stream).write_all(b"{\"return\": {}}\r\n").unwrap();
                requests.next().unwrap().unwrap();
                vm.gone.store(true, Ordering::SeqCst);
            });
            end_vm(&vm, Duration::ZERO)
        });
        assert_eq!(end, Shutdown::Quit);
        assert!(!vm.killed.into_inner());
    }

    #[test]
    fn the_first_step_that_helps_is_told() {
        for (gone, end) in [(true, Shutdown::Orderly), (false, Shutdown::Killed)] {
            let vm = Fake { gone: gone.into(), ..Fake::default() };
            assert_eq!(end_vm(&vm, Duration::ZERO), end);
            assert_eq!(vm.killed.into_inner(), !gone);
        }
    }
}
