// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask test`: runs the suites and adds up what they counted.

mod failures;
mod fuzz;
mod image;
mod in_system;
mod kmod;
mod libvirt;
mod output;
mod package;
mod run;
mod suites;
mod tally;

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use vm_tests::interrupt;

use crate::args::{Suite, TestArgs};
use crate::packages;
use output::Output;
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
    let (vms, host): (Vec<Suite>, Vec<Suite>) =
        chosen.into_iter().partition(|suite| suites::boots_vms(*suite));
    let total = match vms.is_empty() || host.is_empty() {
        true => one_by_one(&[host, vms].concat(), args)?,
        false => side_by_side(&vms, &host, args)?,
    };
    println!("{}{total}", total.failures);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one_by_one(chosen: &[Suite], args: &TestArgs) -> Result<Tally> {
    let mut total = Tally::default();
    for suite in chosen {
        total.add(&suite_run(*suite, Run::new(args, false, Output::Direct))?.tally);
    }
    Ok(total)
}

/// Runs suites that boot VMs beside those that do not: one thread emulates all processors of most
/// VMs. What the latter print is shown after the suite of the former during which they ended.
fn side_by_side(vms: &[Suite], host: &[Suite], args: &TestArgs) -> Result<Tally> {
    let (sender, ended) = mpsc::channel();
    let mut total = Tally::default();
    thread::scope(|scope| {
        let others = scope.spawn(move || -> Result<()> {
            for suite in host {
                let kept = Output::Kept(String::new());
                // Nobody listens after an error of the other suites.
                let _ = sender.send(suite_run(*suite, Run::new(args, true, kept))?);
            }
            Ok(())
        });
        let mut show = |run: Run| {
            run.output.print();
            total.add(&run.tally);
        };
        for suite in vms {
            let run = suite_run(*suite, Run::new(args, true, Output::Direct))?;
            show(run);
            ended.try_iter().for_each(&mut show);
        }
        ended.iter().for_each(&mut show);
        others.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(total)
}

/// Runs a suite and says how it ended.
fn suite_run(suite: Suite, mut run: Run) -> Result<Run> {
    let name = name(suite);
    run.output.say(&format!("== suite {name}"));
    let start = Instant::now();
    let result = suites::run(suite, &mut run);
    interrupt::check()?;
    if let Err(error) = result {
        run.output.say(&format!("suite {name} cannot run: {error:#}"));
        run.tally.fail("cannot run", &format!("{error:#}"));
    }
    if run.tally.is_empty() {
        run.output.say(&format!("suite {name} ran no test"));
        run.tally.fail("ran no test", "");
    }
    let seconds = start.elapsed().as_secs_f64();
    run.output.say(&format!("== suite {name}: {} in {seconds:.0} s", run.tally));
    run.tally.failures.set_suite(&name);
    Ok(run)
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
        suites::has_parts(suite),
        "--only: the suite {} has no parts, only suites of scenarios in VMs have, {example}",
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
    let mut run = Run::new(args, false, Output::Direct);
    suites::on_debug_kernel(&mut run)?;
    interrupt::check()?;
    let mut tally = run.tally;
    tally.failures.set_suite("kmod");
    println!("{}{tally}", tally.failures);
    let ok = tally.failed == 0 && !tally.is_empty();
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
