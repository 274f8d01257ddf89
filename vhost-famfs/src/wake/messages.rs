// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a guest sends through its port: wake-ups and reports, or anything.

use famfs::format::report::{REPORT_LEN, Report};

/// Takes a stream apart. It keeps less than one report.
#[derive(Debug, Default)]
pub struct Messages {
    begun: Vec<u8>,
}

/// What was in a part of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// A wake-up, or bytes that mean nothing.
    pub is_wake: bool,
    /// The last report: only that one counts.
    pub report: Option<Report>,
}

impl Messages {
    /// Another connection begins.
    pub fn clear(&mut self) {
        self.begun.clear();
    }

    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Sent {
        let mut sent = Sent::default();
        for byte in bytes {
            self.begun.push(*byte);
            // What is not the start of a report goes, so that one that was cut off, or bytes of
            // another kind, hide nothing for long.
            while !self.is_start() {
                self.begun.remove(0);
                sent.is_wake = true;
            }
            let Ok(whole) = <&[u8; REPORT_LEN]>::try_from(&self.begun[..]) else { continue };
            match Report::decode(whole) {
                Some(report) => {
                    sent.report = Some(report);
                    self.begun.clear();
                }
                None => {
                    self.skip();
                    sent.is_wake = true;
                }
            }
        }
        sent
    }

    /// Whether what is there can become a report.
    fn is_start(&self) -> bool {
        let len = self.begun.len().min(Report::START.len());
        self.begun[..len] == Report::START[..len]
    }

    /// Goes on with the next place where a report can start.
    fn skip(&mut self) {
        let start = (1..self.begun.len()).find(|at| {
            let rest = &self.begun[*at..];
            let len = rest.len().min(Report::START.len());
            rest[..len] == Report::START[..len]
        });
        self.begun.drain(..start.unwrap_or(self.begun.len()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn report(applied: u64) -> Report {
        let uuid = Uuid::from_u128(7);
        Report { fs_uuid: uuid, system: uuid, boot: uuid, numbering: 0, applied, released: 0 }
    }

    #[test]
    fn wake_ups_and_reports_come_in_any_pieces() {
        let mut stream = vec![0];
        for applied in 1..=3 {
            stream.extend(report(applied).encode());
            stream.push(0);
        }
        for size in 1..=stream.len() {
            let mut messages = Messages::default();
            let mut last = None;
            for part in stream.chunks(size) {
                last = messages.take(part).report.or(last);
            }
            assert_eq!(last, Some(report(3)), "pieces of {size}");
            assert!(messages.begun.is_empty());
        }
        let mut messages = Messages::default();
        let sent = messages.take(&report(1).encode());
        assert_eq!(sent, Sent { is_wake: false, report: Some(report(1)) });
        assert_eq!(messages.take(&[0]), Sent { is_wake: true, report: None });
    }

    #[test]
    fn one_that_was_cut_off_hides_no_more_than_itself() {
        for cut in 1..REPORT_LEN {
            let mut messages = Messages::default();
            messages.take(&report(1).encode()[..cut]);
            let sent = [report(2), report(3)].map(|report| messages.take(&report.encode()).report);
            assert_eq!(sent[1].or(sent[0]), Some(report(3)), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_bounded_and_does_no_harm(parts in prop::collection::vec(
            prop::collection::vec(prop_oneof![Just(1_u8), Just(80), Just(0), any::<u8>()], 0..300),
            0..8,
        )) {
            let mut messages = Messages::default();
            for part in parts {
                messages.take(&part);
                prop_assert!(messages.begun.len() < REPORT_LEN);
            }
            messages.take(&[0xff; REPORT_LEN]);
            prop_assert_eq!(messages.take(&report(9).encode()).report, Some(report(9)));
        }
    }
}
