// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `keep-logs`.

use std::os::unix::net::UnixStream;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use vhost_famfs::args::KeepLogsConfig;
use vhost_famfs::bounded_log::Keeper;
use vhost_famfs::cluster::ends;
use vhost_famfs::cluster::host::runtime_dir;
use vhost_famfs::host::{privileges, signals};
use vhost_famfs::wake::Relay;

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
    // The process reads what guests wrote, and only writes it to files.
    privileges::drop_all().map_err(|(action, errno)| anyhow!("cannot {action}: {errno}"))?;
    let (done_waking, woken) = UnixStream::pair().context("cannot make a pair of sockets")?;
    let waking =
        relay.and_then(|relay| thread::Builder::new().spawn(move || relay.run(woken)).ok());
    let watch = record.map(|record| ends::watch(std::io::stdin(), record));
    let done = watch.transpose().context("cannot watch processes")?;
    keeper.run(&stop).context("cannot wait for the pipes")?;
    let ended = done.map_or(Ok(()), |done| wait_for_either(&done, &stop));
    drop(done_waking);
    if let Some(waking) = waking {
        // It ends in any case, and removes its socket.
        let _ = waking.join();
    }
    ended.context("cannot wait for processes")
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
