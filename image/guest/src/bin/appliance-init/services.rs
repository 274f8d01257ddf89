// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The services for the host and the pool. They are started as early as possible, and not by
//! systemd, whose own start takes longer than all of this.
//!
//! ```text
//! modules  ->  network  ->  agent                    serves the host
//! agent attach                                     mounts the pool
//!            |-- without systemd: agent watch (famfs watch); with it, famfs-watch.service
//!            |-- modules of the power button  ->  when it is pressed: power-off
//! ```
//!
//! Next to systemd, this is a separate process, which systemd does not supervise.

use std::fs::{self, DirBuilder};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use famfs::guest::{bind_fsdev, dax_devices};
use guest::{given, report};
use protocol::attach::Attach;
use protocol::credentials::{NETWORK, NO_POOL};
use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, kill_process, setrlimit, setsid, wait,
};
use rustix::termios::tcdrain;

use crate::{modules, network, power_button};

/// Serves the host, and mounts and follows the pool.
pub const AGENT: &str = "/usr/bin/appliance-agent";

/// This program's file in the root. The one in the initrd is memory that each VM would have to
/// keep.
const MYSELF: &str = "/usr/bin/appliance-init";

/// The argument that makes it run the services next to systemd.
pub const BESIDE: &str = "services";

/// The home directory, if there is one.
const HOME: &str = "/root";

/// Limit of open files for the host's commands, as systemd sets it for its services.
const FILES: Rlimit = Rlimit { current: Some(1024), maximum: Some(524_288) };

/// Pause before a failed agent is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// What process 1 is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// This program: the services run until the agent ends.
    None,
    /// systemd: the services run until it ends the machine.
    Systemd,
}

/// Stores the credentials from the command line and the firmware where the services look for them.
pub fn take_credentials(command_line: &str) -> Result<()> {
    fs::create_dir_all(report::DIR).with_context(|| format!("cannot create {}", report::DIR))?;
    let dir = given::DIR;
    DirBuilder::new().mode(0o700).create(dir).with_context(|| format!("cannot create {dir}"))?;
    for (name, value) in given::by_host(command_line) {
        let path = Path::new(dir).join(name);
        fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Starts a process that runs the services next to systemd, without waiting for it: it becomes a
/// child of systemd.
pub fn start_beside_systemd() -> Result<()> {
    let child = Command::new(MYSELF).arg(BESIDE).spawn();
    child.with_context(|| format!("cannot run {MYSELF}")).map(drop)
}

/// The main function of that process.
pub fn run_beside_systemd() -> Result<()> {
    setsid().context("cannot begin a session")?;
    thread::scope(|scope| {
        let kinds = modules::kinds_of_this_machine();
        run(Manager::Systemd, scope.spawn(move || modules::load(modules::ROOT, &kinds)))
    })
}

/// Starts the services while a thread loads the modules, then supervises them.
pub fn run(manager: Manager, modules: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    setrlimit(Resource::Nofile, FILES).context("cannot set the limit of open files")?;
    // It takes as long to start as the modules take to load, and then waits for its device.
    let attach = match given::has(NO_POOL) {
        true => None,
        false => Some(start(&["attach"])?),
    };
    let loaded = modules.join();
    match loaded.unwrap_or_else(|_| Err(anyhow!("the thread that loads modules panicked"))) {
        Err(error) if manager == Manager::Systemd => {
            eprintln!("appliance-init: {error:#}; continuing without them");
        }
        loaded => loaded?,
    }
    if attach.is_some() {
        bind_dax_devices();
    }
    if let Some(text) = given::credentials().get(NETWORK) {
        // The host reaches this machine without it.
        network::set_up(text).unwrap_or_else(|error| {
            eprintln!("appliance-init: {error:#}; continuing without a network");
        });
    }
    // Started last, because it is needed last: it receives the mount.
    let agent = start_agent(manager)?;
    look_after(manager, agent, attach)
}

/// Does what `attach` would do next, while `attach` is still starting: the kernel takes a while to
/// create the page structures of a pool. An error here occurs there again, and is reported there.
fn bind_dax_devices() {
    for device in dax_devices() {
        let _ = bind_fsdev(&device, false);
    }
}

/// Waits for the services and, as process 1, reaps all orphaned processes.
fn look_after(manager: Manager, mut agent: Pid, mut attach: Option<Pid>) -> Result<()> {
    if attach.is_none() {
        heed_power_button(manager, agent);
    }
    while let Some((pid, status)) = next_end()? {
        if pid == agent {
            if manager == Manager::None {
                return Ok(());
            }
            eprintln!("appliance-init: {AGENT} ended ({}); starting it again", in_words(status));
            thread::sleep(PAUSE);
            agent = start_agent(manager)?;
        } else if attach == Some(pid) {
            attach = None;
            heed_power_button(manager, agent);
            match status.exit_status() {
                Some(0) if manager == Manager::None => drop(start(&["watch"])?),
                Some(0) => {}
                code => report_failure(code)
                    .unwrap_or_else(|error| eprintln!("appliance-init: {error:#}")),
            }
        }
    }
    Ok(())
}

/// Powers the machine off when its power button is pressed. This comes after the pool, which is
/// waited for.
fn heed_power_button(manager: Manager, agent: Pid) {
    let list = match manager {
        Manager::None => modules::INITRD,
        Manager::Systemd => modules::ROOT,
    };
    let pressed = move || match manager {
        // Its end is the end of all.
        Manager::None => {
            kill_process(agent, Signal::TERM).context("cannot end the agent")?;
            Ok(ControlFlow::Break(()))
        }
        // If systemd could not be asked, the next press asks again.
        Manager::Systemd => {
            start(&["power-off"])?;
            Ok(ControlFlow::Continue(()))
        }
    };
    let heed = move || {
        modules::load(list, &[power_button::MODULES])?;
        power_button::open()?.map_or(Ok(()), |button| power_button::on_presses(button, pressed))
    };
    thread::spawn(move || {
        heed().unwrap_or_else(|error: anyhow::Error| {
            eprintln!("appliance-init: {error:#}; continuing without the power button");
        });
    });
}

fn start_agent(manager: Manager) -> Result<Pid> {
    match manager {
        Manager::None => start(&["diskless"]),
        Manager::Systemd => start(&[]),
    }
}

/// Starts the agent with these arguments.
fn start(arguments: &[&str]) -> Result<Pid> {
    let child = Command::new(AGENT)
        .args(arguments)
        .env_clear()
        .env("HOME", if Path::new(HOME).exists() { HOME } else { "/" })
        .env("LANG", "C.UTF-8")
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
        .spawn()
        .with_context(|| format!("cannot run {AGENT}"))?;
    Ok(Pid::from_child(&child))
}

/// Reports to the host, through the agent, that the pool could not be mounted.
fn report_failure(code: Option<i32>) -> Result<()> {
    let result = if code.is_some() { "exit-code" } else { "signal" };
    let status = code.map_or_else(String::new, |code| code.to_string());
    let uptime_ms = report::uptime_ms().context("cannot read the time")?;
    // By now, the reason is on the console.
    let _ = tcdrain(io::stderr());
    report::leave(&Attach::Failed { result: result.into(), status, uptime_ms })
        .context("cannot report that the pool is not mounted")
}

/// Waits for the next process to end; `None` if there is none left.
fn next_end() -> Result<Option<(Pid, WaitStatus)>> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(ended) => return Ok(ended),
            Err(Errno::CHILD) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for programs"),
        }
    }
}

fn in_words(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "for an unknown reason".into(),
    }
}
