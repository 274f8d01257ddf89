// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench`: measures against a named peer in the same run, prints and records the
//! figures.

mod boot;
mod device;
mod kmod;
mod live;
mod machine;
mod measurement;
mod native;
mod sample;
mod tools;
mod ublk;
mod up;
mod watch;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;
use vm_tests::interrupt;

use crate::args::{BenchArgs, Benchmark};
use crate::paths;
use measurement::Measurement;

/// Runs the benchmarks. The exit code tells whether all of them ran, not whether the figures
/// are good: a time is a measurement, not a test.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    let dir = paths::target().join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let save = |name: &str, value: &serde_json::Value| {
        let path = dir.join(format!("{name}.json"));
        fs::write(&path, format!("{value:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))
    };
    save("machine", &machine::describe()?)?;
    for benchmark in Benchmark::value_variants() {
        if !args.names.is_empty() && !args.names.contains(benchmark) {
            continue;
        }
        interrupt::check()?;
        let (name, measurements) = match benchmark {
            Benchmark::Boot => ("boot", boot::run()?),
            Benchmark::Tools => ("tools", tools::run()?),
            Benchmark::Kmod => ("kmod", kmod::run()?),
            Benchmark::Trees => ("trees", kmod::trees()?),
            Benchmark::Device => ("device", device::run()?),
            Benchmark::Ublk => ("ublk", ublk::run()?),
            Benchmark::Watch => ("watch", watch::run()?),
            Benchmark::Live => ("live", live::run()?),
            Benchmark::Up => ("up", up::run()?),
        };
        println!("{}", measurement::table(name, &measurements));
        save(name, &serde_json::to_value(&measurements).context("cannot write JSON")?)?;
    }
    Ok(ExitCode::SUCCESS)
}
