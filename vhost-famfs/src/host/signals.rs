// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes SIGTERM and SIGINT something to wait for.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// A stream that becomes readable at the first SIGTERM or SIGINT. A second one ends the process at
/// once, in case the orderly way hangs.
pub fn stop_requests() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag still clear.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
        low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}
