// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The master's lease: a guard against two running systems that both take themselves for the
//! master, such as clones of one virtual machine.
//!
//! The superblock's system UUID says which system is the master, but a copied disk image has the
//! same UUID. So a writer also holds the lease: a block after the superblock that names the
//! *running* system ([`Identity`]) and has a heartbeat, which changes once in [`Timing::interval`].
//! Others do not compare clocks: they watch whether the heartbeat changes while their own clock
//! advances by [`Timing::expiry`]. If it does not, the holder is dead.
//!
//! All programs of one running system share its lease; the log's lock keeps them apart. A writer
//! checks the lease again before each publication, so that one that was paused for longer than the
//! expiry stops instead of writing over its successor, and so does a clone of it. Between that
//! check and the store there is no protection: memory that is not coherent between hosts has no
//! atomic exchange.
//!
//! The host of a pool file may always write, whoever is the master: it asks for the lease
//! ([`lease_request`]), and a master that only follows the log gives it back meanwhile.

use std::io;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use uuid::Uuid;
use zerocopy::little_endian::U64;
use zerocopy::{IntoBytes, transmute};

use crate::format::{self, LEASE_MAGIC, LEASE_OFFSET};
use crate::media::{Media, MediaError};
use crate::store::identity::{Identity, IdentityError, RunningSystem};
use crate::store::lease_request;
use crate::system::lock::PATIENCE;

const LEN: usize = size_of::<format::Lease>();
/// Bytes that identify the holder; the heartbeat follows them.
const IDENTITY_LEN: usize = offset_of!(format::Lease, rest);
const HEARTBEAT_OFFSET: u64 = LEASE_OFFSET + offset_of!(format::Lease, heartbeat) as u64;
/// How long a block with a wrong checksum may be one that is being written: a VM may stall in
/// between, because its host is busy.
const TORN: Duration = Duration::from_millis(250);

/// The lease's times.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Longest time between two beats.
    pub interval: Duration,
    /// A heartbeat that has not changed for this long belongs to a dead system.
    pub expiry: Duration,
    /// Time between taking the lease and checking whether another system took it at the same
    /// moment.
    pub settle: Duration,
    /// How long the host waits for a master that writes, and a master for the host. Zero: a living
    /// holder is an error at once, and the host does not ask.
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            expiry: Duration::from_secs(5),
            settle: Duration::from_millis(20),
            patience: PATIENCE,
        }
    }
}

/// What the media says about its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Who held it last.
    pub holder: RunningSystem,
    /// Its number, which a living holder changes; zero if the holder released the lease.
    pub heartbeat: u64,
}

/// Why the lease cannot be acquired, or was lost.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The bytes cannot be accessed.
    #[error("cannot access the master's lease")]
    Media(#[from] MediaError),
    /// It is not known who this system is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Another running system is the master.
    #[error(
        "another master is at work: {holder} (its heartbeat changes); stop it, or take the role \
         from it with `famfs takeover --yes --force`{}", kin(*is_kin)
    )]
    Held {
        /// The other system.
        holder: RunningSystem,
        /// Whether it has this system's UUIDs.
        is_kin: bool,
    },
    /// Another system has taken it.
    #[error("the master's lease was taken by {holder}; nothing was published since")]
    Lost {
        /// The other system.
        holder: RunningSystem,
    },
    /// This system is no longer the one that took it.
    #[error(
        "this VM was resumed from a snapshot, and the master's lease is that of the VM that was \
         saved; nothing was published since; run the command again"
    )]
    Resumed,
    /// It no longer exists.
    #[error(
        "the master's lease of file system {fs_uuid} is gone: the file system was formatted again \
         or damaged; nothing was published since"
    )]
    Gone {
        /// The file system.
        fs_uuid: Uuid,
    },
    /// The thread that keeps it cannot be started.
    #[error("cannot start the thread that keeps the master's lease")]
    Thread(#[source] io::Error),
}

fn kin(is_kin: bool) -> &'static str {
    match is_kin {
        true => {
            "; it has the UUIDs of this system: it is a clone, or a watch here of another version, \
             or without /sys/firmware/qemu_fw_cfg; that needs `famfs watch` to be started again"
        }
        false => "",
    }
}

/// Reads the lease of a file system; `None` if it never had one.
pub fn read(media: &dyn Media, fs_uuid: Uuid) -> Result<Option<Found>, MediaError> {
    let start = Instant::now();
    loop {
        let mut bytes = [0; LEN];
        media.refresh(LEASE_OFFSET, LEN as u64)?;
        media.read_at(LEASE_OFFSET, &mut bytes)?;
        let raw: format::Lease = transmute!(bytes);
        if raw.magic.get() != LEASE_MAGIC || Uuid::from_bytes(raw.fs_uuid) != fs_uuid {
            return Ok(None);
        }
        if raw.crc.get() == raw.checksum() {
            let machine = Uuid::from_bytes(raw.machine_uuid);
            let holder = RunningSystem {
                system: Uuid::from_bytes(raw.system_uuid),
                machine: (!machine.is_nil()).then_some(machine),
                boot: Uuid::from_bytes(raw.boot_id),
            };
            return Ok(Some(Found { holder, heartbeat: raw.heartbeat.get() }));
        }
        // It may be being written right now; one that stays wrong has no holder.
        if start.elapsed() > TORN {
            return Ok(None);
        }
        thread::sleep(TORN / 100);
    }
}

/// Watches the heartbeat until it changes (the holder lives) or the expiry has passed (it does
/// not). Returns the living holder, if any. It does not wait for `me`.
pub fn living(
    media: &dyn Media,
    fs_uuid: Uuid,
    me: Option<&RunningSystem>,
    timing: Timing,
    mut waiting: impl FnMut(&RunningSystem),
) -> Result<Option<RunningSystem>, MediaError> {
    let mut first: Option<Found> = None;
    let mut since = Instant::now();
    loop {
        let found = match read(media, fs_uuid)? {
            Some(found) if found.heartbeat != 0 => found,
            _ => return Ok(None),
        };
        let Found { holder, heartbeat } = found;
        if me.is_some_and(|me| me.boot == holder.boot) {
            return Ok(Some(holder));
        }
        match first {
            Some(seen) if seen.holder == holder && seen.heartbeat != heartbeat => {
                return Ok(Some(holder));
            }
            Some(seen) if seen.holder == holder => {
                if since.elapsed() >= timing.expiry {
                    return Ok(None);
                }
            }
            // The first look, or a new holder.
            _ => {
                waiting(&holder);
                (first, since) = (Some(found), Instant::now());
            }
        }
        thread::sleep(timing.interval / 20);
    }
}

/// Waits until the lease is free, this system's, or a dead one's. The host asks for it; a master
/// waits for the host. Any other living holder is an error. Returns the lease that was found dead
/// or this system's; `None` if it is free.
fn wait_for_holder(
    media: &dyn Media,
    fs_uuid: Uuid,
    me: &RunningSystem,
    timing: Timing,
    mut waiting: impl FnMut(&RunningSystem),
) -> Result<Option<Found>, LeaseError> {
    let start = Instant::now();
    let mut told = None;
    let mut waiting = |holder: &RunningSystem| {
        if told.replace(*holder) != Some(*holder) {
            waiting(holder);
        }
    };
    let asks = me.is_host() && !timing.patience.is_zero();
    loop {
        let found = read(media, fs_uuid)?.filter(|found| found.heartbeat != 0);
        match found {
            Some(found) if found.holder.boot == me.boot => return Ok(Some(found)),
            Some(_) if asks => {
                lease_request::ask(media)?;
                let released = || Ok(read(media, fs_uuid)?.is_none_or(|now| now.heartbeat == 0));
                if lease_request::wait_until(released)? {
                    return Ok(None);
                }
            }
            // A master may be about to take it; it gives way to who asks.
            None if asks => {
                lease_request::ask(media)?;
                thread::sleep(timing.settle);
                if read(media, fs_uuid)?.is_none_or(|now| now.heartbeat == 0) {
                    return Ok(None);
                }
                if start.elapsed() < timing.patience {
                    // It has taken it just before that: it is asked like any other holder.
                    continue;
                }
            }
            None if !me.is_host() => {
                // The host is about to take what was released for it.
                let unasked = || Ok(!lease_request::is_asked(media)?);
                if !lease_request::wait_until(unasked)? {
                    lease_request::clear(media)?;
                }
            }
            _ => {}
        }
        match living(media, fs_uuid, Some(me), timing, &mut waiting)? {
            Some(holder) if holder.boot != me.boot => {
                let waits = me.is_host() || holder.is_host();
                if !waits || start.elapsed() >= timing.patience {
                    let is_kin = (holder.system, holder.machine) == (me.system, me.machine);
                    return Err(LeaseError::Held { holder, is_kin });
                }
            }
            // What was seen first, and not what somebody has taken in this moment.
            _ => return Ok(found),
        }
    }
}

/// The lease, held by this process: a thread keeps its heartbeat going until it is dropped.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Whether this process took the lease, and so releases it.
    taken: bool,
}

struct Shared {
    media: Box<dyn Media>,
    fs_uuid: Uuid,
    identity: Identity,
    me: RunningSystem,
    /// The next heartbeat; the first is random, because programs of one system may beat in turn.
    next: AtomicU64,
    /// Who was seen to have taken it. It stays lost even if a program of this system takes it back:
    /// what was read while it was held may have changed.
    lost: OnceLock<RunningSystem>,
    stop: Mutex<bool>,
    wake: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("fs_uuid", &self.fs_uuid).field("me", &self.me).finish()
    }
}

impl Keeper {
    /// Takes the lease, or joins the program of this running system that holds it. If another
    /// system's name is on it, this waits for [`Timing::expiry`] to see whether that system lives,
    /// and passes it to `waiting`; `force` takes the lease from a living system too. Between the
    /// host and a master, a living holder is waited for: see [`Timing::patience`].
    ///
    /// `media` must be open for writing and belongs to this keeper alone.
    pub fn acquire(
        media: Box<dyn Media>,
        fs_uuid: Uuid,
        identity: Identity,
        force: bool,
        timing: Timing,
        mut waiting: impl FnMut(&RunningSystem),
    ) -> Result<Self, LeaseError> {
        let me = identity.system();
        let stop = Mutex::new(false);
        let next = AtomicU64::new(Uuid::new_v4().as_u64_pair().1);
        let (lost, wake) = (OnceLock::new(), Condvar::new());
        let shared = Shared { media, fs_uuid, identity, me, next, lost, stop, wake };
        let taken = shared.acquire(force, timing, &mut waiting);
        if me.is_host() {
            let cleared = lease_request::clear(&*shared.media);
            // The first error counts; a request that stays is cleared by whoever waits for it.
            taken.as_ref().map_or(Ok(()), |_| cleared)?;
        }
        let mut keeper = Self { shared: Arc::new(shared), thread: None, taken: taken? };
        let shared = keeper.shared.clone();
        let thread = thread::Builder::new().name("lease".to_owned());
        let thread = thread.spawn(move || shared.keep(timing.interval / 2));
        keeper.thread = Some(thread.map_err(LeaseError::Thread)?);
        Ok(keeper)
    }

    /// Whether the host asks for the lease.
    ///
    /// # Errors
    /// The media cannot be read.
    pub fn is_asked_for(&self) -> Result<bool, LeaseError> {
        Ok(lease_request::is_asked(&*self.shared.media)?)
    }

    /// Gives the lease back, even if another program of this system took it. No program of this
    /// system may be writing.
    pub fn release(mut self) {
        self.taken = true;
    }

    /// Checks that the lease is still this system's. Call it before each publication.
    pub fn check(&self) -> Result<(), LeaseError> {
        self.shared.check()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // It holds nothing that a panic could break.
            let _ = thread.join();
        }
        if self.taken && self.shared.check().is_ok() {
            // A lease that cannot be released expires.
            let _ = self.shared.store_heartbeat(0);
        }
    }
}

impl Shared {
    /// Acquires the lease. Returns whether this process took it, and did not join another program
    /// of this system.
    fn acquire(
        &self,
        force: bool,
        timing: Timing,
        waiting: &mut dyn FnMut(&RunningSystem),
    ) -> Result<bool, LeaseError> {
        let start = Instant::now();
        loop {
            let judged = match force {
                true => None,
                false => {
                    wait_for_holder(&*self.media, self.fs_uuid, &self.me, timing, &mut *waiting)?
                }
            };
            let (found, taken) = self.claim(force, judged, timing)?;
            match found {
                None => {
                    self.beat()?;
                    return Ok(taken);
                }
                Some(_) if !force && start.elapsed() < timing.patience => {}
                Some(holder) => return Err(LeaseError::Lost { holder }),
            }
        }
    }

    /// Puts this system's name on the lease, if it is not there, and waits whether another system
    /// does so at the same moment, or the host asks: then that one has it, and is returned. Also
    /// returns whether nobody held the lease. `judged` is the lease that was found dead, if any:
    /// one that somebody else has taken since is left alone.
    fn claim(
        &self,
        force: bool,
        judged: Option<Found>,
        timing: Timing,
    ) -> Result<(Option<RunningSystem>, bool), LeaseError> {
        self.check_identity()?;
        let mine = |found: &Found| found.holder.boot == self.me.boot;
        let now = read(&*self.media, self.fs_uuid)?;
        let since = now.filter(|now| now.heartbeat != 0 && !mine(now) && Some(*now) != judged);
        if let (Some(other), false) = (since, force) {
            // Another system was faster.
            return Ok((Some(other.holder), true));
        }
        let found = now.filter(mine);
        if found.is_some_and(|found| found.heartbeat != 0) {
            return Ok((None, false));
        }
        let host = RunningSystem { system: Uuid::nil(), ..self.me };
        let yields = || {
            Ok::<_, MediaError>(
                !force && !self.me.is_host() && lease_request::is_asked(&*self.media)?,
            )
        };
        if found.is_none() {
            if yields()? {
                // The host may have put its name there, and not have beaten yet.
                return Ok((Some(host), true));
            }
            self.write_name()?;
        }
        // Another program of this system may have written the name a moment ago.
        thread::sleep(timing.settle);
        let holder = match read(&*self.media, self.fs_uuid)? {
            Some(found) if mine(&found) => None,
            Some(found) => Some(found.holder),
            None => return Err(LeaseError::Gone { fs_uuid: self.fs_uuid }),
        };
        let yields = yields()?;
        Ok((holder.or_else(|| yields.then_some(host)), true))
    }

    /// Beats until it is told to stop, or the lease is lost or that of the system which this one
    /// was; [`Keeper::check`] reports both. After any other error the next beat may succeed; to
    /// stop then would let another system take this one for dead.
    fn keep(&self, pause: Duration) {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stop {
            let waited = self.wake.wait_timeout(stop, pause);
            stop = waited.unwrap_or_else(PoisonError::into_inner).0;
            let ends = |err| matches!(err, LeaseError::Lost { .. } | LeaseError::Resumed);
            if !*stop && self.beat().is_err_and(ends) {
                return;
            }
        }
    }

    /// Renews the lease. Another program of this system may have released it.
    fn beat(&self) -> Result<(), LeaseError> {
        self.check()?;
        // A different number each time, and never zero, which means free.
        let number = self.next.fetch_add(1, Ordering::Relaxed).max(1);
        Ok(self.store_heartbeat(number)?)
    }

    fn check(&self) -> Result<(), LeaseError> {
        self.check_identity()?;
        if let Some(holder) = self.lost.get() {
            return Err(LeaseError::Lost { holder: *holder });
        }
        match read(&*self.media, self.fs_uuid)? {
            Some(found) if found.holder.boot == self.me.boot => Ok(()),
            Some(Found { holder, .. }) => {
                Err(LeaseError::Lost { holder: *self.lost.get_or_init(|| holder) })
            }
            None => Err(LeaseError::Gone { fs_uuid: self.fs_uuid }),
        }
    }

    fn check_identity(&self) -> Result<(), LeaseError> {
        if self.identity.has_changed()? { Err(LeaseError::Resumed) } else { Ok(()) }
    }

    fn write_name(&self) -> Result<(), MediaError> {
        let mut raw = format::Lease {
            magic: U64::new(LEASE_MAGIC),
            pad: U64::ZERO,
            fs_uuid: self.fs_uuid.into_bytes(),
            system_uuid: self.me.system.into_bytes(),
            machine_uuid: self.me.machine.unwrap_or_default().into_bytes(),
            boot_id: self.me.boot.into_bytes(),
            crc: U64::ZERO,
            rest: [0; 40],
            heartbeat: U64::ZERO,
        };
        raw.crc = U64::new(raw.checksum());
        self.media.write_at(LEASE_OFFSET, &raw.as_bytes()[..IDENTITY_LEN])?;
        self.media.show(LEASE_OFFSET, IDENTITY_LEN as u64)
    }

    fn store_heartbeat(&self, number: u64) -> Result<(), MediaError> {
        self.media.write_at(HEARTBEAT_OFFSET, &number.to_le_bytes())?;
        self.media.show(HEARTBEAT_OFFSET, size_of::<u64>() as u64)
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
