// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ends a virtual machine that does not release removed files, or does not answer.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use famfs::store::users::{Standing, Unknown, Users};
use famfs::system::holders::{self, NamedProcess};
use famfs::system::process::Handle;
use rustix::process::Signal;
use serde::Serialize;
use uuid::Uuid;

use crate::output::{confirmed, notice};

/// How long a killed process may take to be gone, and what it had.
const GONE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);
/// The most VMs that an error lists.
const MOST_LISTED: usize = 16;

/// A VM that was ended.
#[derive(Debug, Serialize)]
pub struct Fenced {
    /// Its machine UUID.
    pub machine: Uuid,
    /// Its name, as QEMU was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The process that it was.
    pub pid: u32,
}

/// One VM that has the pool.
pub struct Target {
    process: NamedProcess,
    machine: Uuid,
    name: Option<String>,
    handle: Handle,
}

impl Target {
    /// Finds the one VM with this name or machine UUID among those that, by the kernel's account,
    /// have the pool. The caller has the pool open.
    pub fn find(pool: &Path, wanted: &str) -> Result<Self> {
        let users = users(pool)?;
        let uuid = Uuid::try_parse(wanted).ok();
        let named = users.machines.into_iter().map(|(process, machine)| {
            let name = holders::machine_name(process.pid);
            (process, machine, name)
        });
        let all: Vec<_> = named.collect();
        let is_it = |(_, machine, name): &&(NamedProcess, Uuid, Option<String>)| {
            uuid == Some(*machine) || name.as_deref() == Some(wanted)
        };
        let found: Vec<_> = all.iter().filter(is_it).collect();
        let [(process, machine, name)] = found[..] else {
            let (what, listed) = match found[..] {
                [] => ("no VM", all.iter().collect()),
                _ => ("more than one VM", found),
            };
            bail!(
                "{what} that has {} is \"{wanted}\", expected the name or machine UUID of one; {}",
                pool.display(),
                list(&listed)
            );
        };
        let handle =
            Handle::open(process.pid).with_context(|| format!("cannot get hold of {process}"))?;
        // Held now, it is still that machine, or another process has got its id.
        let again = self::users(pool)?.machines;
        if !again.iter().any(|(now, uuid)| now.pid == process.pid && uuid == machine) {
            bail!("VM {machine} ({process}) has just ended: run the command again");
        }
        Ok(Self { process: process.clone(), machine: *machine, name: name.clone(), handle })
    }

    /// Whether it is this VM, perhaps beside others, that keeps from being given back what the
    /// entries below slot `published` removed. A member that has not told how far it is, by the
    /// numbers that the entries have now, must have had time for that.
    pub fn is_in_the_way(&self, standing: &Standing, published: u64) -> bool {
        let is_unknown = standing.unknown.iter().any(|unknown| match unknown {
            Unknown::NoMember { process, .. } | Unknown::OtherTools { process, .. } => {
                process.pid == self.process.pid
            }
            _ => false,
        });
        let mut members = standing.members.iter();
        let is_behind = members.any(|(member, process)| {
            process.pid == self.process.pid && member.released < published
        });
        is_unknown || is_behind
    }

    /// Ends it, after asking unless `yes`, and waits until the kernel no longer shows it.
    pub fn end(self, pool: &Path, yes: bool) -> Result<Fenced> {
        let Self { process, machine, name, handle } = self;
        let called = name.as_ref().map_or(String::new(), |name| format!(" \"{name}\""));
        let what = format!("VM{called} {machine} ({process})");
        let question = format!(
            "{what} is killed at once, like by a power cut; what it has not written is lost"
        );
        if !yes && !confirmed(&question, "--yes")? {
            return Err(anyhow!("not confirmed; {what} goes on"));
        }
        handle.signal(Signal::KILL).with_context(|| format!("cannot end {what}"))?;
        if !handle.wait(GONE) {
            bail!("{what} was killed, and is still there after {} s", GONE.as_secs());
        }
        let end = Instant::now() + GONE;
        while users(pool)?.machines.iter().any(|(now, _)| now.pid == process.pid) {
            if Instant::now() >= end {
                bail!("{what} has ended, but the kernel still shows that it has the pool");
            }
            thread::sleep(PAUSE);
        }
        notice!("ended {what}");
        Ok(Fenced { machine, name, pid: process.pid })
    }
}

fn users(pool: &Path) -> Result<Users> {
    Users::of(pool).with_context(|| format!("cannot find out who uses {}", pool.display()))
}

fn list(machines: &[&(NamedProcess, Uuid, Option<String>)]) -> String {
    if machines.is_empty() {
        return "no VM has it, as far as this user can see".to_owned();
    }
    let each = machines.iter().take(MOST_LISTED).map(|(process, machine, name)| match name {
        Some(name) => format!("\"{name}\" {machine} ({process})"),
        None => format!("{machine} ({process})"),
    });
    format!("found {}", each.collect::<Vec<_>>().join(", "))
}
