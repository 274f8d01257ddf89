// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives up privileges before the back-end reads the first byte from a VMM.
//!
//! Everything that the process needs is already open, so no namespace is needed. It has no new
//! privileges, no capabilities and limited resources, and a list of allowed system calls: the
//! kernel kills the process at any other. The list has no way to open, create or remove a file or a
//! socket, to run a program, or to make memory executable. It takes effect in three steps:
//! [`Sandbox::enter`] when the process listens, [`Entered::connecting`] when the VMM connects and
//! before a byte from it is read, and [`Entered::connected`] as soon as the connection is accepted.

mod filter;

use std::io;

use rustix::process::Resource;
use seccompiler::BpfProgram;

use crate::host::privileges;

/// Number of open descriptors that a connection may need: two memory tables of at most 32 regions
/// each (a new one is mapped before the old one is dropped), and about twenty of our own.
const MAX_DESCRIPTORS: u64 = 128;

/// What happens at a system call that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The kernel kills the process.
    Kill,
    /// The kernel logs it (audit) and allows it.
    Log,
}

/// Why a back-end could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The filter cannot be built, for example on an unknown architecture.
    #[error("sandbox: cannot build the system call filter; --sandbox none runs without it")]
    Build(#[source] seccompiler::Error),
    /// The kernel does not accept the filter.
    #[error(
        "sandbox: the kernel does not accept the system call filter (CONFIG_SECCOMP_FILTER?); \
         --sandbox none runs without it"
    )]
    Load(#[source] seccompiler::Error),
    /// A privilege cannot be given up.
    #[error("sandbox: cannot {action}; --sandbox none runs without it")]
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

/// A sandbox that has been entered but not yet closed.
pub struct Entered {
    connecting: BpfProgram,
    serving: BpfProgram,
}

impl Sandbox {
    /// Builds the filters. Gives up nothing yet.
    pub fn prepare(violation: Violation) -> Result<Self, SandboxError> {
        Ok(Self {
            compatibility: filter::compatibility()?,
            waiting: filter::waiting(violation)?,
            connecting: filter::connecting(violation)?,
            serving: filter::serving(violation)?,
        })
    }

    /// Drops what a listening process does not need: it can still remove a file and create a
    /// socket. Most of the work is done here, while no VM waits for it.
    ///
    /// Applies to the calling thread and to threads that it starts from now on, and cannot be
    /// undone. Call it while the process has one thread.
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
    /// Drops what is not needed to accept the VMM's connection, for all threads.
    pub fn connecting(&self) -> Result<(), SandboxError> {
        seccompiler::apply_filter_all_threads(&self.connecting).map_err(SandboxError::Load)
    }

    /// Drops the rest for all threads, including those that read from the connection.
    pub fn connected(&self) -> Result<(), SandboxError> {
        seccompiler::apply_filter_all_threads(&self.serving).map_err(SandboxError::Load)
    }
}
