// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `keep-logs`.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use famfs::media::allow_foreign_pools;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use vhost_famfs::args::KeepLogsConfig;
use vhost_famfs::bounded_log::{Keeper, add_line};
use vhost_famfs::cluster::ends;
use vhost_famfs::cluster::host::runtime_dir;
use vhost_famfs::host::{privileges, signals};
use vhost_famfs::pool::Owners;
use vhost_famfs::space::{Place, Space};
use vhost_famfs::wake::Relay;

/// Reports of a guest that wait; the relay passes fewer on while one is written.
const MOST_REPORTS: usize = 8;

pub(super) fn run(config: &KeepLogsConfig) -> Result<()> {
    let stop = signals::stop_requests().context("cannot handle signals")?;
    let record = config.ends.as_ref().map(|path| {
        ends::open(path).with_context(|| format!("cannot open the record {}", path.display()))
    });
    let record = record.transpose()?;
    let keeper = Keeper::open(&config.logs, config.limit)?;
    // Without one, the guest looks at the log by itself.
    let relay = config.wake.clone().and_then(|(pool, port)| {
        let base = runtime_dir().ok()?;
        Relay::join(&base, pool, port).ok()
    });
    let (relay, space) = match (relay, space(config)) {
        (Some(relay), Some(space)) => {
            let (wakes, listener) = UnixStream::pair().context("cannot make a pair of sockets")?;
            let relay = relay.telling(listener).context("cannot set up a socket")?;
            let log = config.logs.last().cloned();
            (Some(relay), give_back(space, wakes, log))
        }
        (relay, _) => (relay, None),
    };
    let (relay, place) = match (relay, place(config)) {
        (Some(relay), Some(place)) => {
            let (sender, reports) = mpsc::sync_channel(MOST_REPORTS);
            let log = config.logs.last().cloned();
            allow_foreign_pools(config.pool.as_ref().is_some_and(|(_, of)| *of == Owners::Any));
            (Some(relay.reporting(sender)), Some((place, reports, log)))
        }
        (relay, _) => (relay, None),
    };
    // The process reads what guests wrote, and only writes it to files. Only its thread for the
    // memory of removed files keeps more.
    privileges::drop_all().map_err(|(action, errno)| anyhow!("cannot {action}: {errno}"))?;
    let (done_waking, woken) = UnixStream::pair().context("cannot make a pair of sockets")?;
    let waking =
        relay.and_then(|relay| thread::Builder::new().spawn(move || relay.run(woken)).ok());
    let place = place.and_then(|(place, reports, log)| {
        let keep = move || {
            place.run(&reports, |text| _ = log.as_ref().map(|log| add_line(log, text)));
        };
        thread::Builder::new().spawn(keep).ok()
    });
    let watch = record.map(|record| ends::watch(std::io::stdin(), record));
    let done = watch.transpose().context("cannot watch processes")?;
    keeper.run(&stop).context("cannot wait for the pipes")?;
    let ended = done.map_or(Ok(()), |done| wait_for_either(&done, &stop));
    drop(done_waking);
    if let Some(waking) = waking {
        // It ends in any case, and removes its socket.
        let _ = waking.join();
    }
    for thread in [space, place].into_iter().flatten() {
        // The relay has closed its ends.
        let _ = thread.join();
    }
    ended.context("cannot wait for processes")
}

/// What gives memory back, if the pool's path is known.
fn space(config: &KeepLogsConfig) -> Option<Space> {
    let ((id, _), (pool, owners)) = config.wake.clone().zip(config.pool.clone())?;
    // Both programs are installed in one directory.
    let famfs = std::env::current_exe().ok()?.with_file_name("famfs");
    let foreign = owners == Owners::Any;
    Some(Space { pool, id, base: runtime_dir().ok()?, famfs, foreign })
}

/// What keeps a place for a VM that cannot write the pool.
fn place(config: &KeepLogsConfig) -> Option<Place> {
    let ((id, _), (pool, _)) = config.wake.clone().zip(config.pool.clone())?;
    // The memory of a device is not this kernel's file.
    pool.is_file().then_some(Place { pool, id, machine: config.machine? })
}

/// Gives memory back in a thread of its own, which reads nothing that a guest sent. It needs to see
/// whose processes have the pool, and QEMU's belong to another user if this is root.
fn give_back(space: Space, wakes: UnixStream, log: Option<PathBuf>) -> Option<JoinHandle<()>> {
    let give_back = move || {
        let tell = |text: &str| {
            if let Some(log) = &log {
                add_line(log, text);
            }
        };
        let seeing = CapabilitySet::SYS_PTRACE
            | CapabilitySet::DAC_READ_SEARCH
            | CapabilitySet::CHECKPOINT_RESTORE;
        match privileges::keep_for_programs(seeing) {
            // Nobody waits for it.
            Ok(()) => drop(space.run(&wakes, tell)),
            Err((action, errno)) => tell(&format!("cannot {action}: {errno}")),
        }
    };
    thread::Builder::new().spawn(give_back).ok()
}

fn wait_for_either(one: &UnixStream, other: &UnixStream) -> rustix::io::Result<()> {
    loop {
        let mut fds = [one, other].map(|stream| PollFd::new(stream, PollFlags::IN));
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            result => return result.map(drop),
        }
    }
}
