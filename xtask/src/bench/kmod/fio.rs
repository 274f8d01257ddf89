// SPDX-License-Identifier: Apache-2.0 OR MIT
//! fio with the command that the review of famfs compared file systems with.
//!
//! Its options are those of the review but for the sizes, which fit an emulated guest: one job
//! for each processor (48 there), 10 files of 16 MiB for each job (256 MiB there). The files are
//! there before fio is, with all their space: famfs has no others, and without that the review
//! compared allocation.

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

/// The command, run in the directory of the files.
fn command() -> String {
    format!(
        "fio -name={NAME} --nrfiles={FILES} -bs=2M --group_reporting=1 \
         --alloc-size=1048576 --filesize={FILE_SIZE} --readwrite=write --fallocate=none \
         --numjobs={JOBS} --create_on_open=0 --ioengine=psync --directory=/run/mnt \
         --output-format=json"
    )
}

/// The files that fio will look for.
fn names() -> Vec<String> {
    (0..JOBS).flat_map(|job| (0..FILES).map(move |file| format!("{NAME}.{job}.{file}"))).collect()
}

/// Runs it on each file system in turn.
pub fn run(guest: &Guest) -> Result<Vec<Measurement>> {
    let names = names();
    let medians = medians_of(ROUNDS, || {
        let mut rates = Vec::new();
        for file_system in FileSystem::ALL {
            file_system.mount(guest)?;
            file_system.allocate(guest, &names, FILE_SIZE)?;
            // The first run is the first use of the space; the second is measured.
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

/// MiB/s of the writes in fio's report.
fn rate(report: &str) -> Result<f64> {
    // Notes may come before the JSON.
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
