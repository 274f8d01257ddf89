// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ublk`.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use listenfd::ListenFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::CapabilitySet;
use sd_notify::NotifyState;
use serde_json::json;
use signal_hook::consts::SIGHUP;
use tracing::{info, warn};
use ublk::devices;
use ublk::driver::{self, DriverError, Features};
use ublk::export::{self, Export, Opened};
use ublk::record::{Record, Records};
use ublk::server::{self, Device, Options};
use ublk::source::Source;

use super::bar::Bar;
use super::report::{self, json_list};
use super::{device, say};
use vhost_famfs::args::{LogFormat, UblkConfig};
use vhost_famfs::host::{privileges, signals};
use vhost_famfs::pool::{Owners, Pool};

/// How long the files of a killed server may stay locked: until the kernel has completed its last
/// request.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(config: UblkConfig) -> Result<()> {
    // Before anything is opened or created: without a driver, nothing can be done.
    match (Features::of_driver(), &config) {
        (Err(DriverError::Missing), UblkConfig::List { json: true }) => {
            return json_list::<devices::Report>("devices", &[]);
        }
        (Err(DriverError::Missing), UblkConfig::List { json: false }) => {
            return say("no devices: the ublk driver is not loaded");
        }
        (features, _) => features?,
    };
    let records = Records::open()?;
    match config {
        UblkConfig::List { json } => {
            let reports = devices::list(&records)?;
            if json { json_list("devices", &reports) } else { say(devices::table(&reports)) }
        }
        UblkConfig::Delete { id, force } => {
            devices::delete(&records, id, force)?;
            say(format_args!("{}: removed", driver::node(id).display()))
        }
        UblkConfig::Add { source, id, queues, copy, owner, json } => {
            device::start_log(LogFormat::Text, false);
            let opened = open(&source, Duration::ZERO)?;
            let record = Record::new(source, opened.overlay, owner);
            serve(&records, &record, opened, Device::New { id, queues, copy }, json)
        }
        UblkConfig::Recover { id, json } => {
            device::start_log(LogFormat::Text, false);
            let record = devices::orphan(&records, id)?;
            let opened = open(&record.source, PATIENCE)?;
            devices::check_same(id, &record, &opened)?;
            serve(&records, &record, opened, Device::Orphan(id), json)
        }
    }
}

/// The capabilities that a server run by root keeps. The driver accepts commands only from an
/// administrator; `PR_SET_IO_FLUSHER`, which tells the kernel that I/O depends on the process,
/// needs the second; the buffers of requests are locked in memory; and a new overlay may be in a
/// directory of another user.
const SERVES: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::DAC_OVERRIDE);

fn open(source: &Source, patience: Duration) -> Result<Opened> {
    let (image, changes) = match source {
        Source::Pool { pool, foreign, .. } => {
            return Ok(open_pool(pool, Owners::foreign(*foreign))?.into());
        }
        Source::Image { image, changes } => (image, changes),
    };
    let bar = Bar::new("checking the image");
    let opened = export::open(image, changes, patience, &mut |done, total| bar.show(done, total));
    bar.clear();
    Ok(opened?)
}

fn open_pool(path: &Path, owners: Owners) -> Result<Export> {
    let pool = Pool::open(path, owners)?;
    ensure!(
        pool.kind().has_write(),
        "pool {}: is {}, which has no write(2); a pool in tmpfs or in a file can be exported",
        path.display(),
        pool.kind().name()
    );
    let size = pool.size();
    Ok(Export::pool(path, pool.into_file(), size)?)
}

fn serve(
    records: &Records,
    record: &Record,
    opened: Opened,
    device: Device,
    json: bool,
) -> Result<()> {
    let listener = activated()?;
    // Before there is another thread: new threads inherit these limits.
    privileges::keep_only(SERVES).map_err(|(action, errno)| anyhow!("cannot {action}: {errno}"))?;
    let Opened { export, new_overlay, .. } = opened;
    let size = export.size();
    let stop = stop_requests().context("cannot handle signals")?;
    let options = Options {
        device,
        read_only: record.source.is_read_only(),
        recoverable: record.source.is_recoverable(),
        unprivileged: !rustix::process::geteuid().is_root(),
    };
    let (tell_started, started) = mpsc::channel();
    thread::spawn(move || {
        if let Ok(id) = started.recv() {
            stop_when_asked(&stop, id);
        }
    });
    let mut known = None;
    let result = server::serve(
        export,
        options,
        |id| {
            known = Some(id);
            records.put(id, record).map_err(io::Error::other)
        },
        move |id| {
            if let Some(new) = new_overlay {
                new.keep();
            }
            announce(id, size, json);
            if let Some(listener) = listener {
                thread::spawn(move || tell_name(&listener, id));
            }
            // If that thread could not be started, nobody waits for the answer.
            let _ = tell_started.send(id);
        },
    );
    if let Some(id) = known
        && !driver::exists(id)
    {
        records.remove(id)?;
    }
    Ok(result?)
}

/// SIGTERM, SIGINT, and the end of the terminal: if a server vanished without removing its device,
/// all users of the device would hang.
fn stop_requests() -> io::Result<UnixStream> {
    let stop = signals::stop_requests()?;
    let (reader, writer) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGHUP, writer.try_clone()?)?;
    thread::spawn(move || {
        let mut polls = [PollFd::new(&stop, PollFlags::IN)];
        while poll(&mut polls, None).is_err() {}
        let mut writer = writer;
        let _ = writer.write_all(b"s");
    });
    Ok(reader)
}

fn stop_when_asked(stop: &UnixStream, id: u32) {
    let mut polls = [PollFd::new(stop, PollFlags::IN)];
    while poll(&mut polls, None).is_err() {}
    info!(device = id, "stop requested");
    // Data that programs wrote through the page cache must reach the server before it ends.
    if let Err(err) = devices::flush(id) {
        warn!(device = id, %err, "cannot write back the page cache");
    }
    if let Err(err) = server::stop(id) {
        warn!(device = id, err = %format_args!("{:#}", anyhow::Error::from(err)), "cannot stop");
    }
}

/// Announces that the device is ready.
fn announce(id: u32, size: u64, json: bool) {
    let node = driver::node(id).display().to_string();
    let said = if json {
        report::json(
            &json!({ "id": id, "device": node, "size": size, "server": std::process::id() }),
        )
    } else {
        say(&node)
    };
    if let Err(err) = said {
        warn!(%err, "cannot announce {node}");
    }
    let status = format!("serving {node}");
    if let Err(err) = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]) {
        warn!(%err, "cannot notify the service manager");
    }
}

/// Returns the socket that systemd passes, if any.
fn activated() -> Result<Option<UnixListener>> {
    if std::env::var_os("LISTEN_FDS").is_none() {
        return Ok(None);
    }
    let mut passed = ListenFd::from_env();
    passed.take_unix_listener(0).context("the socket that systemd passes")
}

/// Sends the device's name, as one line, to everyone who connects.
fn tell_name(listener: &UnixListener, id: u32) {
    for connection in listener.incoming() {
        // A client that hangs up at once needs no answer.
        let _ = connection.and_then(|mut c| writeln!(c, "{}", driver::node(id).display()));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn whoever_connects_gets_the_name_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || tell_name(&listener, 7));
        for _ in 0..2 {
            let mut said = String::new();
            UnixStream::connect(&path).unwrap().read_to_string(&mut said).unwrap();
            assert_eq!(said, "/dev/ublkb7\n");
        }
    }
}
