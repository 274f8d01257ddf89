// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The virtio-serial port.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use protocol::exec::PORT;

/// Where the kernel lists its ports.
const PORTS: &str = "/sys/class/virtio-ports";

/// How long to wait for the port: the driver asks the host for port names after it has probed.
const LIMIT: Duration = Duration::from_secs(20);

/// Opens the port for reading and writing.
pub fn open() -> Result<File> {
    let start = Instant::now();
    let path = loop {
        if let Some(path) = find() {
            break path;
        }
        if start.elapsed() > LIMIT {
            bail!("no virtio-serial port named {PORT} after {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(20));
    };
    File::options()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Without udev there is no /dev/virtio-ports, but the name is in sysfs.
fn find() -> Option<PathBuf> {
    let entries = fs::read_dir(PORTS).ok()?;
    entries.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim_end() == PORT).then(|| Path::new("/dev").join(entry.file_name()))
    })
}
