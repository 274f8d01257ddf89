// SPDX-License-Identifier: Apache-2.0 OR MIT
//! fio, with the command that was used in the review of famfs to compare file systems.
//!
//! Its options are those of the review, except for the sizes, which suit an emulated guest: one job
//! per processor (48 in the review), 10 files of 16 MiB per job (256 MiB in the review). The files
//! exist before fio starts, with all their space allocated: famfs has no other files, and without
//! that, the review compared allocation.

use anyhow::{Context, Result};
use serde_json::Value;

use super::file_system::FileSystem;
use super::guest::Guest;
use crate::bench::measurement::{Better, Measurement};
use crate::bench::sample::{ROUNDS, medians_of};

const NAME: &str = "ten-16m-per-thread";
const JOBS: u64 = 2;
const FILES: u64 = 10;
const FILE_SIZE: u64 = 16 << 20;

/// The command, to be run in the directory of the files.
fn command() -> String {
    format!(
        "fio -name={NAME} --nrfiles={FILES} -bs=2M --group_reporting=1 \
         --alloc-size=1048576 --filesize={FILE_SIZE} --readwrite=write --fallocate=none \
         --numjobs={JOBS} --create_on_open=0 --ioengine=psync --directory=/run/mnt \
         --output-format=json"
    )
}

/// The names that fio gives to its files.
fn names() -> Vec<String> {
    (0..JOBS).flat_map(|job| (0..FILES).map(move |file| format!("{NAME}.{job}.{file}"))).collect()
}

/// Runs fio on each file system in turn.
pub fn run(guest: &Guest) -> Result<Vec<Measurement>> {
    let names = names();
    let medians = medians_of(ROUNDS, || {
        let mut rates = Vec::new();
        for file_system in FileSystem::ALL {
            file_system.mount(guest)?;
            file_system.allocate(guest, &names, FILE_SIZE)?;
            // The first run touches the space for the first time; the second one is measured.
            guest.shell(&command())?;
            rates.push(rate(&guest.shell(&command())?)?);
            guest.shell("umount /run/mnt")?;
        }
        Ok(rates)
    })?;
    let peers = FileSystem::ALL[1..].iter().zip(&medians[1..]);
    Ok(peers
        .map(|(peer, rate)| {
            Measurement::new(
                &format!("kmod.fio.{}", peer.id()),
                "fio, psync, write by 2 MiB, 20 files",
                "MiB/s",
                medians[0],
                (peer.name(), *rate),
                (Better::Higher, None),
            )
        })
        .collect())
}

/// The write rate in fio's report, in MiB/s.
fn rate(report: &str) -> Result<f64> {
    // The JSON may be preceded by notes.
    let json = report.find('{').map_or("", |start| &report[start..]);
    let report: Value = serde_json::from_str(json).context("cannot parse fio's report")?;
    let field = |name: &str| report.pointer(name).and_then(Value::as_f64);
    anyhow::ensure!(field("/jobs/0/error") == Some(0.0), "fio reports an error: {report}");
    let rate = field("/jobs/0/write/bw_bytes").context("fio reports no write bandwidth")?;
    anyhow::ensure!(rate > 0.0, "fio wrote nothing: {report}");
    Ok(rate / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn the_rate_of_a_report_without_errors() {
        let report = |error, bytes| {
            format!(
                "note: from fio\n{{\"jobs\": [{{\"error\": {error}, \
                 \"write\": {{\"bw_bytes\": {bytes}}}}}]}}"
            )
        };
        assert_eq!(rate(&report(0, 3 << 20)).unwrap(), 3.0);
        for bad in [report(5, 3 << 20), report(0, 0), "{}".to_owned(), "no JSON".to_owned()] {
            assert!(rate(&bad).is_err(), "{bad}");
        }
    }
}
