// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a system that cannot write the memory says of itself through its wake-up port, so that its
//! host can keep a place among the members for it.

use std::mem::{offset_of, size_of};

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`RawReport::kind`]. A byte of 0 is a wake-up.
pub const REPORT_KIND: u8 = 1;
/// Bytes of a report.
pub const REPORT_LEN: usize = size_of::<RawReport>();

/// A report as bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RawReport {
    /// [`REPORT_KIND`].
    pub kind: u8,
    /// [`REPORT_LEN`].
    pub len: u8,
    /// Zero.
    pub zero: [u8; 2],
    /// CRC-32 of all bytes, with zeros here.
    pub crc: U32,
    /// What the slots are of.
    pub numbering: U64,

    /// Which file system it is about.
    pub fs_uuid: [u8; 16],
    /// The system.
    pub system_uuid: [u8; 16],
    /// Which run of it.
    pub boot_id: [u8; 16],

    /// Its mount shows every entry below this slot.
    pub applied: U64,
    /// Nothing there uses what the entries below this slot removed.
    pub released: U64,
}

const _: () = {
    assert!(REPORT_LEN == 80);
    assert!(offset_of!(RawReport, crc) == 4);
    assert!(offset_of!(RawReport, numbering) == 8);
    assert!(offset_of!(RawReport, fs_uuid) == 16);
    assert!(offset_of!(RawReport, boot_id) == 48);
    assert!(offset_of!(RawReport, released) == 72);
};

/// A report that is complete. What it says may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which file system it is about.
    pub fs_uuid: Uuid,
    /// The system, which is not the host.
    pub system: Uuid,
    /// Which run of it.
    pub boot: Uuid,
    /// What the slots are of.
    pub numbering: u64,
    /// Its mount shows every entry below this slot.
    pub applied: u64,
    /// Nothing there uses what the entries below this slot removed.
    pub released: u64,
}

impl Report {
    /// The first bytes of each.
    pub const START: [u8; 4] = [REPORT_KIND, 80, 0, 0];

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; REPORT_LEN] {
        let mut raw = RawReport {
            kind: Self::START[0],
            len: Self::START[1],
            zero: [0; 2],
            crc: U32::ZERO,
            numbering: U64::new(self.numbering),
            fs_uuid: self.fs_uuid.into_bytes(),
            system_uuid: self.system.into_bytes(),
            boot_id: self.boot.into_bytes(),
            applied: U64::new(self.applied),
            released: U64::new(self.released),
        };
        raw.crc = U32::new(crc32fast::hash(raw.as_bytes()));
        zerocopy::transmute!(raw)
    }

    /// Reads one; `None` if it is none, or a system without an identity says it.
    #[must_use]
    pub fn decode(bytes: &[u8; REPORT_LEN]) -> Option<Self> {
        let mut raw: RawReport = zerocopy::transmute!(*bytes);
        let crc = raw.crc.get();
        raw.crc = U32::ZERO;
        if bytes[..4] != Self::START || crc32fast::hash(raw.as_bytes()) != crc {
            return None;
        }
        let [fs_uuid, system, boot] =
            [raw.fs_uuid, raw.system_uuid, raw.boot_id].map(Uuid::from_bytes);
        let (numbering, applied) = (raw.numbering.get(), raw.applied.get());
        let released = raw.released.get();
        let is_named = !system.is_nil() && !boot.is_nil();
        is_named.then_some(Self { fs_uuid, system, boot, numbering, applied, released })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: Report = Report {
        fs_uuid: Uuid::from_u128(1),
        system: Uuid::from_u128(2),
        boot: Uuid::from_u128(3),
        numbering: 4,
        applied: 5,
        released: 6,
    };

    #[test]
    fn a_report_comes_back_and_no_other_bytes_are_one() {
        let bytes = REPORT.encode();
        assert_eq!(Report::decode(&bytes), Some(REPORT));
        for bit in 0..REPORT_LEN * 8 {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Report::decode(&wrong), None, "bit {bit}");
        }
        for nobody in
            [Report { system: Uuid::nil(), ..REPORT }, Report { boot: Uuid::nil(), ..REPORT }]
        {
            assert_eq!(Report::decode(&nobody.encode()), None);
        }
    }

    #[test]
    fn each_byte_has_its_place() {
        let bytes = REPORT.encode();
        assert_eq!(bytes[..4], [1, 80, 0, 0]);
        assert_eq!(bytes[8..16], 4_u64.to_le_bytes());
        for (at, value) in [(31, 1), (47, 2), (63, 3), (64, 5), (72, 6)] {
            assert_eq!(bytes[at], value, "{at}");
        }
    }
}
