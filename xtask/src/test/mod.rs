// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask test`: runs the suites and adds up what they counted.

mod failures;
mod fuzz;
mod image;
mod kmod;
mod run;
mod suites;
mod tally;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use vm_tests::interrupt;

use crate::args::{Suite, TestArgs};
use crate::packages;
use run::Run;
use tally::Tally;

/// Runs the suites, lists what failed, and closes with one plain line. A suite that cannot run
/// counts as failed.
pub fn run(args: &TestArgs) -> Result<ExitCode> {
    if args.debug_kernel {
        return debug_kernel(args);
    }
    check_only(args)?;
    let chosen: Vec<Suite> = Suite::value_variants()
        .iter()
        .copied()
        .filter(|suite| args.suites.is_empty() || args.suites.contains(suite))
        .collect();
    packages::install_missing_for_build()?;
    let mut total = Tally::default();
    for suite in chosen {
        let name = name(suite);
        println!("== suite {name}");
        let start = Instant::now();
        let mut run = Run::new(args);
        let result = suites::run(suite, &mut run);
        interrupt::check()?;
        let mut tally = run.tally;
        if let Err(error) = result {
            println!("suite {name} cannot run: {error:#}");
            tally.fail("cannot run", &format!("{error:#}"));
        }
        if tally.is_empty() {
            println!("suite {name} ran no test");
            tally.fail("ran no test", "");
        }
        println!("== suite {name}: {tally} in {:.0} s", start.elapsed().as_secs_f64());
        tally.failures.set_suite(&name);
        total.add(&tally);
    }
    println!("{}{total}", total.failures);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Refuses parts that no chosen suite has.
fn check_only(args: &TestArgs) -> Result<()> {
    if args.only.is_empty() {
        return Ok(());
    }
    let example = "as in 'cargo xtask test kmod --only devdax/storm'";
    let [suite] = args.suites[..] else {
        bail!("--only chooses parts of one suite: name one, {example}");
    };
    ensure!(
        suites::boots_vms(suite),
        "--only: the suite {} has no parts, only suites that boot VMs have, {example}",
        name(suite)
    );
    Ok(())
}

fn name(suite: Suite) -> String {
    suite.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Runs the kmod suite's programs on the debug kernel.
fn debug_kernel(args: &TestArgs) -> Result<ExitCode> {
    println!("== suite kmod on the debug kernel");
    let mut run = Run::new(args);
    suites::on_debug_kernel(&mut run)?;
    interrupt::check()?;
    let mut tally = run.tally;
    tally.failures.set_suite("kmod");
    println!("{}{tally}", tally.failures);
    let ok = tally.failed == 0 && !tally.is_empty();
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
