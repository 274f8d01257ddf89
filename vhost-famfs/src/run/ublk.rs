// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ublk`.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use listenfd::ListenFd;
use rustix::event::{PollFd, PollFlags, poll};
use sd_notify::NotifyState;
use serde_json::json;
use signal_hook::consts::SIGHUP;
use tracing::{info, warn};

use super::bar::Bar;
use super::{device, say};
use crate::args::{LogFormat, UblkConfig};
use crate::signals;
use crate::ublk::devices;
use crate::ublk::driver::{self, Features};
use crate::ublk::export::{Changes, Export, Source};
use crate::ublk::record::{Record, Records};
use crate::ublk::server::{self, Device, Options};

/// How long the files of a server that was killed may stay locked: until the kernel has ended its
/// last request.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(config: UblkConfig) -> Result<()> {
    // Before anything is opened or made: without a driver there is nothing to do.
    Features::of_driver()?;
    let records = Records::open()?;
    match config {
        UblkConfig::List { json } => {
            let reports = devices::list(&records)?;
            if json { say(serde_json::to_string(&reports)?) } else { say(devices::table(&reports)) }
        }
        UblkConfig::Delete { id, force } => {
            devices::delete(&records, id, force)?;
            say(format_args!("{}: removed", driver::node(id).display()))
        }
        UblkConfig::Add { source, id, queues, json } => {
            serve(&records, &source, Device::New(id), queues, json)
        }
        UblkConfig::Recover { id, json } => {
            let source = devices::orphan(&records, id)?;
            serve(&records, &source, Device::Orphan(id), None, json)
        }
    }
}

fn serve(
    records: &Records,
    source: &Source,
    device: Device,
    queues: Option<u16>,
    json: bool,
) -> Result<()> {
    device::start_log(LogFormat::Text, false);
    let listener = activated()?;
    let new_overlay = NewOverlay::of(source);
    let export = open(source, device)?;
    let size = export.size();
    let stop = stop_requests().context("cannot handle signals")?;
    let options = Options {
        device,
        read_only: source.is_read_only(),
        recoverable: source.is_recoverable(),
        queues,
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
            records.put(id, &Record::new(source.clone())).map_err(io::Error::other)
        },
        move |id| {
            new_overlay.keep();
            announce(id, size, json);
            if let Some(listener) = listener {
                thread::spawn(move || tell_name(&listener, id));
            }
            // Nobody waits for it any more if that thread could not be started.
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

fn open(source: &Source, device: Device) -> Result<Export> {
    let patience = match device {
        Device::New(_) => Duration::ZERO,
        Device::Orphan(_) => PATIENCE,
    };
    let bar = Bar::new("checking the image");
    let export = source.open(patience, &mut |done, total| bar.show(done, total));
    bar.clear();
    Ok(export?)
}

/// An overlay that was not there before. It goes if no device comes of it.
struct NewOverlay(Option<PathBuf>);

impl NewOverlay {
    fn of(source: &Source) -> Self {
        Self(match source {
            Source::Image { changes: Changes::Overlay(path), .. } if !exists(path) => {
                Some(path.clone())
            }
            _ => None,
        })
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for NewOverlay {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && exists(path)
            && let Err(err) = std::fs::remove_file(path)
        {
            warn!(path = %path.display(), %err, "cannot remove the new overlay");
        }
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// SIGTERM, SIGINT, and the end of the terminal: a device whose server has gone without a word
/// would stop everybody who uses it.
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
    info!(device = id, "asked to stop");
    // What programs wrote through the page cache comes to us before we go.
    if let Err(err) = devices::flush(id) {
        warn!(device = id, %err, "cannot write back what is cached");
    }
    if let Err(err) = server::stop(id) {
        warn!(device = id, err = %format_args!("{:#}", anyhow::Error::from(err)), "cannot stop");
    }
}

/// Says that the device can be used.
fn announce(id: u32, size: u64, json: bool) {
    let node = driver::node(id).display().to_string();
    let said = if json {
        say(json!({ "id": id, "device": node, "size": size, "server": std::process::id() }))
    } else {
        say(&node)
    };
    if let Err(err) = said {
        warn!(%err, "cannot say that {node} is there");
    }
    let status = format!("serving {node}");
    if let Err(err) = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]) {
        warn!(%err, "cannot notify the service manager");
    }
}

/// The socket that systemd passes, if it does.
fn activated() -> Result<Option<UnixListener>> {
    if std::env::var_os("LISTEN_FDS").is_none() {
        return Ok(None);
    }
    let mut passed = ListenFd::from_env();
    passed.take_unix_listener(0).context("the socket that systemd passes")
}

/// Tells everybody who connects what the device is called: one line, and the end.
fn tell_name(listener: &UnixListener, id: u32) {
    for connection in listener.incoming() {
        // Who hangs up at once has no question.
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

    #[test]
    fn a_new_overlay_without_a_device_is_removed_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("overlay");
        let changes = Changes::Overlay(path.clone());
        let source = Source::Image { image: "image".into(), changes };
        let new = NewOverlay::of(&source);
        std::fs::write(&path, "new").unwrap();
        drop(new);
        assert!(!path.exists());
        let new = NewOverlay::of(&source);
        std::fs::write(&path, "new").unwrap();
        new.keep();
        drop(NewOverlay::of(&source));
        assert!(path.exists());
    }
}
