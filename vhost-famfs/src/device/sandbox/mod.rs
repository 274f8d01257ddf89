// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a back-end gives up before it reads the first byte from a VMM.
//!
//! Everything that it needs is open by then, so no name space is needed: no new privileges, no
//! capabilities, resource limits, and a list of system calls outside of which the kernel kills
//! the process. The list has no way to open, make or remove a file or a socket, to run a
//! program, or to make memory executable. It is put in force in three steps: [`Sandbox::enter`] when
//! the process listens, [`Entered::connecting`] when the VMM connects and before a byte from it is read,
//! [`Entered::connected`] as soon as its connection is accepted.

mod filter;

use std::io;

use rustix::process::Resource;
use seccompiler::BpfProgram;

use crate::host::privileges;

/// Open descriptors that a connection can need: two memory tables of at most 32 regions each (a
/// new one is mapped before the old one goes), and some twenty of our own.
const MAX_DESCRIPTORS: u64 = 128;

/// What happens to a system call that is not on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The kernel kills the process.
    Kill,
    /// The kernel logs it (audit) and lets it through.
    Log,
}

/// Why a back-end could not be locked down.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The filter cannot be built, as on an architecture that it does not know.
    #[error("sandbox: cannot build the system call filter; --sandbox none runs without")]
    Build(#[source] seccompiler::Error),
    /// The kernel does not take the filter.
    #[error(
        "sandbox: the kernel does not take the system call filter (CONFIG_SECCOMP_FILTER?); --sandbox none runs without"
    )]
    Load(#[source] seccompiler::Error),
    /// A privilege cannot be given up.
    #[error("sandbox: cannot {action}; --sandbox none runs without")]
    GiveUp {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// A sandbox that is ready to be entered.
pub struct Sandbox {
    compatibility: BpfProgram,
    waiting: BpfProgram,
    connecting: BpfProgram,
    serving: BpfProgram,
}

/// A sandbox that has been entered and is not closed yet.
pub struct Entered {
    connecting: BpfProgram,
    serving: BpfProgram,
}

impl Sandbox {
    /// Builds the filters. Nothing is given up yet.
    pub fn prepare(violation: Violation) -> Result<Self, SandboxError> {
        Ok(Self {
            compatibility: filter::compatibility()?,
            waiting: filter::waiting(violation)?,
            connecting: filter::connecting(violation)?,
            serving: filter::serving(violation)?,
        })
    }

    /// Gives up what a process does not need that listens and waits for its VM: it can still remove a
    /// file, and make a socket. Most of the work is here, where no VM waits for it.
    ///
    /// For the calling thread, and every thread that it starts from now on; there is no way back. Call
    /// it while the process has one thread.
    pub fn enter(self) -> Result<Entered, SandboxError> {
        privileges::limit(Resource::Nofile, MAX_DESCRIPTORS).map_err(|errno| {
            let action = "limit the number of descriptors";
            SandboxError::GiveUp { action, source: errno.into() }
        })?;
        privileges::drop_all()
            .map_err(|(action, source)| SandboxError::GiveUp { action, source: source.into() })?;
        for program in [&self.compatibility, &self.waiting] {
            seccompiler::apply_filter(program).map_err(SandboxError::Load)?;
        }
        Ok(Entered { connecting: self.connecting, serving: self.serving })
    }
}

impl Entered {
    /// Gives up what is not needed to accept the VMM's connection, for all threads.
    pub fn connecting(&self) -> Result<(), SandboxError> {
        seccompiler::apply_filter_all_threads(&self.connecting).map_err(SandboxError::Load)
    }

    /// Gives up the rest, for all threads, those that read from the connection too.
    pub fn connected(&self) -> Result<(), SandboxError> {
        seccompiler::apply_filter_all_threads(&self.serving).map_err(SandboxError::Load)
    }
}
