// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The states of a device as a pure state machine: when to map the window, and how to answer a
//! flush.
//!
//! ```text
//! IDLE --(back-end channel and regions)--> READY
//! READY, STOPPED --(SET_FEATURES)--> STARTING
//! STARTING --(SET_MEM_TABLE: window in it)--> MAPPED          a resumed VM kept the mapping
//! STARTING --(SET_MEM_TABLE: not in it)--> send the map --(ack 0)--> MAPPED
//!                                                       --(else)--> FAILED
//! MAPPED, FAILED, STARTING --(GET_VRING_BASE)--> STOPPED
//! ```
//!
//! QEMU 11.1 dereferences a null pointer if a map arrives while the device is not started, so
//! nothing is sent before SET_FEATURES or after a stop. It drops all mappings on reset and keeps
//! them over stop/cont; only the memory table tells the two apart. The window is never unmapped: in
//! between, the guest's accesses would be lost.

use super::pmem::DEVICE_ID;

/// Number of starts so far. It tells acknowledgements of this start from those of an earlier start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation(u64);

/// The state of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The front-end has not yet set up the back-end channel and requested the regions.
    #[default]
    Idle,
    /// Ready to be started by the guest's driver.
    Ready,
    /// The driver started the device; the window is not mapped yet.
    Starting,
    /// The guest sees the pool.
    Mapped,
    /// The guest does not see the pool; flushes fail.
    Failed,
    /// The driver or the VMM stopped the device.
    Stopped,
}

/// Why a device cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// SHMEM_MAP cannot be sent.
    #[error(
        "the front-end did not open a back-end channel (VHOST_USER_PROTOCOL_F_BACKEND_REQ): this \
         device needs QEMU 11.1 or newer with vhost-user-test-device-pci,virtio-id={DEVICE_ID}; \
         other VMMs map the pool themselves, without this program (virtio-pmem-pci of an older QEMU, \
         --pmem file=POOL,discard_writes=off of cloud-hypervisor)"
    )]
    NoChannel,
    /// The front-end does not support shared memory regions.
    #[error(
        "the front-end did not ask for the shared memory regions (VHOST_USER_PROTOCOL_F_SHMEM): \
         this device needs QEMU 11.1 or newer with vhost-user-test-device-pci,virtio-id={DEVICE_ID}; \
         other VMMs map the pool themselves, without this program (virtio-pmem-pci of an older QEMU, \
         --pmem file=POOL,discard_writes=off of cloud-hypervisor)"
    )]
    NoRegions,
}

/// What to do after a new memory table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTable {
    /// Nothing.
    Nothing,
    /// Send the map for this start.
    Send(Generation),
    /// Nothing: the table shows that the window is already mapped.
    Kept,
}

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAck {
    /// The guest sees the pool from now on.
    Mapped,
    /// The guest does not see the pool.
    Failed,
    /// The answer was negative, but a memory table had already shown the window: it is mapped.
    AlreadyMapped,
    /// It belongs to an earlier start.
    Stale,
}

/// How to answer a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFlush {
    /// Leave it in the queue until the next start.
    Wait,
    /// Sync the pool and answer with the result.
    Sync,
    /// Answer with an error: the guest's stores did not reach the pool.
    Refuse,
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Lifecycle {
    phase: Phase,
    generation: Generation,
    has_channel: bool,
    has_regions: bool,
    table_seen: bool,
}

impl Lifecycle {
    /// The current phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The current start.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// SET_BACKEND_REQ_FD.
    pub fn on_channel(&mut self) {
        self.has_channel = true;
        self.leave_idle();
    }

    /// GET_SHMEM_CONFIG.
    pub fn on_regions(&mut self) {
        self.has_regions = true;
        self.leave_idle();
    }

    fn leave_idle(&mut self) {
        if self.phase == Phase::Idle && self.has_channel && self.has_regions {
            self.phase = Phase::Ready;
        }
    }

    /// SET_FEATURES: the guest's driver starts the device.
    pub fn on_start(&mut self) -> Result<Generation, StartError> {
        self.generation.0 += 1;
        self.table_seen = false;
        let result = if !self.has_channel {
            Err(StartError::NoChannel)
        } else if !self.has_regions {
            Err(StartError::NoRegions)
        } else {
            Ok(self.generation)
        };
        self.phase = if result.is_ok() { Phase::Starting } else { Phase::Failed };
        result
    }

    /// SET_MEM_TABLE; `holds_window` is set if one of its regions is the window.
    ///
    /// A table that contains the window proves the mapping, no matter what was acknowledged: a fast
    /// stop and start can overtake an acknowledgement.
    pub fn on_table(&mut self, holds_window: bool) -> OnTable {
        let first = !std::mem::replace(&mut self.table_seen, true);
        match self.phase {
            Phase::Starting | Phase::Failed if holds_window => {
                self.phase = Phase::Mapped;
                OnTable::Kept
            }
            Phase::Starting if first => OnTable::Send(self.generation),
            _ => OnTable::Nothing,
        }
    }

    /// Whether a map requested for `generation` should still be sent.
    pub fn wants_map(&self, generation: Generation) -> bool {
        self.phase == Phase::Starting && self.generation == generation
    }

    /// The front-end answered the map of `generation`.
    pub fn on_ack(&mut self, generation: Generation, mapped: bool) -> OnAck {
        if generation != self.generation {
            return OnAck::Stale;
        }
        match (self.phase, mapped) {
            (Phase::Starting, true) => {
                self.phase = Phase::Mapped;
                OnAck::Mapped
            }
            (Phase::Starting, false) => {
                self.phase = Phase::Failed;
                OnAck::Failed
            }
            (Phase::Mapped, true) => OnAck::Mapped,
            (Phase::Mapped, false) => OnAck::AlreadyMapped,
            _ => OnAck::Stale,
        }
    }

    /// GET_VRING_BASE: the device stops; a map that has not been sent is dropped.
    pub fn on_stop(&mut self) {
        if self.phase != Phase::Idle {
            self.generation.0 += 1;
            self.phase = Phase::Stopped;
        }
    }

    /// How to answer a flush request now.
    pub fn on_flush(&self) -> OnFlush {
        match self.phase {
            Phase::Mapped => OnFlush::Sync,
            // Stores to an unmapped window are lost, so the stores before this flush are lost even
            // if the map succeeds later.
            Phase::Starting | Phase::Failed => OnFlush::Refuse,
            Phase::Idle | Phase::Ready | Phase::Stopped => OnFlush::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Lifecycle {
        let mut life = Lifecycle::default();
        life.on_channel();
        life.on_regions();
        assert_eq!(life.phase(), Phase::Ready);
        life
    }

    fn mapped() -> Lifecycle {
        let mut life = ready();
        let start = life.on_start().unwrap();
        assert_eq!(life.on_table(false), OnTable::Send(start));
        assert_eq!(life.on_ack(start, true), OnAck::Mapped);
        life
    }

    #[test]
    fn maps_at_the_first_table_after_the_features() {
        let mut life = ready();
        assert_eq!(life.on_table(false), OnTable::Nothing, "before the features");
        let start = life.on_start().unwrap();
        assert_eq!(life.on_flush(), OnFlush::Refuse, "earlier stores are lost");
        assert_eq!(life.on_table(false), OnTable::Send(start));
        assert!(life.wants_map(start));
        assert_eq!(life.on_table(false), OnTable::Nothing, "the map is being sent");
        assert_eq!(life.on_ack(start, true), OnAck::Mapped);
        assert_eq!(life.on_flush(), OnFlush::Sync);
        assert_eq!(life.on_table(true), OnTable::Nothing, "QEMU's own update after the map");
    }

    #[test]
    fn a_refused_map_fails_flushes_until_the_next_start() {
        let mut life = ready();
        let start = life.on_start().unwrap();
        life.on_table(false);
        assert_eq!(life.on_ack(start, false), OnAck::Failed);
        assert_eq!(life.on_flush(), OnFlush::Refuse);
        life.on_stop();
        let start = life.on_start().unwrap();
        assert_eq!(life.on_table(false), OnTable::Send(start));
    }

    #[test]
    fn stop_and_cont_keep_the_window() {
        let mut life = mapped();
        life.on_stop();
        assert_eq!(life.on_flush(), OnFlush::Wait);
        life.on_start().unwrap();
        assert_eq!(life.on_table(true), OnTable::Kept);
        assert_eq!(life.phase(), Phase::Mapped);
    }

    #[test]
    fn reset_maps_again() {
        let mut life = mapped();
        life.on_stop();
        let start = life.on_start().unwrap();
        assert_eq!(life.on_table(false), OnTable::Send(start));
    }

    #[test]
    fn a_stop_drops_a_map_that_was_not_sent() {
        let mut life = ready();
        let start = life.on_start().unwrap();
        life.on_table(false);
        life.on_stop();
        assert!(!life.wants_map(start));
        assert_eq!(life.on_ack(start, true), OnAck::Stale);
        assert_eq!(life.phase(), Phase::Stopped);
    }

    #[test]
    fn an_overtaken_acknowledgement_does_not_fail_a_mapped_window() {
        let mut life = ready();
        let first = life.on_start().unwrap();
        life.on_table(false);
        life.on_stop();
        let second = life.on_start().unwrap();
        assert_eq!(life.on_table(false), OnTable::Send(second));
        // The front-end processes the first map only now, and shows it in a table.
        assert_eq!(life.on_table(true), OnTable::Kept);
        assert_eq!(life.on_ack(first, true), OnAck::Stale);
        assert!(!life.wants_map(second), "it would be refused as an overlap");
        assert_eq!(life.on_ack(second, false), OnAck::AlreadyMapped);
        assert_eq!(life.phase(), Phase::Mapped);
    }

    #[test]
    fn names_the_missing_feature() {
        let mut life = Lifecycle::default();
        assert_eq!(life.on_start(), Err(StartError::NoChannel));
        assert_eq!(life.on_flush(), OnFlush::Refuse);
        life.on_channel();
        assert_eq!(life.on_start(), Err(StartError::NoRegions));
    }

    #[test]
    fn a_stop_before_the_set_up_changes_nothing() {
        let mut life = Lifecycle::default();
        life.on_stop();
        assert_eq!(life.phase(), Phase::Idle);
    }
}
