// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the keeper of a VM does for wake-ups, in a thread of this process.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use famfs::system::neighbours::PoolId;
use famfs::system::runtime::runtime_dir;
use vhost_famfs::wake::Relay;

use crate::Pool;

/// Passes wake-ups between a VM and all others of its pool until it is dropped.
#[derive(Debug)]
pub struct RunningRelay {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl RunningRelay {
    /// Starts it for the VM whose wake-up port has this socket.
    pub fn start(pool: &Pool, port: &Path) -> Result<Self> {
        let metadata = pool.path().metadata().context("cannot look at the pool")?;
        let relay = Relay::join(&runtime_dir()?, PoolId::of(&metadata), port.to_owned())
            .context("cannot use the runtime directory")?;
        let (stop, stopped) = UnixStream::pair()?;
        let thread = thread::spawn(move || relay.run(stopped));
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for RunningRelay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A test that needs it has noticed.
            let _ = thread.join();
        }
    }
}
