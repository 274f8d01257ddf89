// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Coverage-guided fuzzing with the stable compiler, using libFuzzer and LLVM's own
//! instrumentation.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use vm_tests::interrupt;

use super::run::Run;
use super::tally::Tally;
use crate::{build, exec, paths};

/// How many seconds each target runs in continuous integration, and with `--all`.
const SECONDS: u64 = 60;
const SECONDS_ALL: u64 = 600;
/// How many targets run at the same time, unless another suite runs beside them.
const AT_A_TIME: usize = 2;
/// Seconds that one input may take, and MiB of memory that a target may use.
const INPUT_SECONDS: u64 = 10;
const MEMORY_MIB: u64 = 1024;
/// Setting the target explicitly keeps build scripts from being instrumented.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The instrumentation that libFuzzer expects: a counter for each edge, and a hook for each
/// comparison.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// How much of a failed target's output to show: from a panic on, or the end.
const PANIC_LINES: usize = 4;
const TAIL_LINES: usize = 20;

/// Builds all targets and runs each for its time. Each target counts as one test.
pub fn run(run: &mut Run) -> Result<()> {
    ensure!(exec::in_path("c++"), "libFuzzer needs a C++ compiler: install the package g++");
    let programs = build()?;
    let mut names: Vec<String> = fs::read_dir(sources().join("fuzz_targets"))
        .context("cannot list fuzz/fuzz_targets")?
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort_unstable_by(|one, other| other.cmp(one));
    let seconds = if run.all { SECONDS_ALL } else { SECONDS };
    let waiting = Mutex::new(names);
    let output = Mutex::new(&mut run.output);
    let say = |text: &str| output.lock().unwrap_or_else(PoisonError::into_inner).say(text);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let results: Vec<Result<Tally>> = thread::scope(|scope| {
        let worker = || {
            let mut tally = Tally::default();
            while let Some(name) = next() {
                interrupt::check()?;
                say(&fuzz(&name, &programs, seconds, &mut tally)?);
            }
            Ok(tally)
        };
        let at_a_time = if run.beside { 1 } else { AT_A_TIME };
        let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(worker)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Result<Tally>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().map(join).collect()
    });
    for result in results {
        run.tally.add(&result?);
    }
    Ok(())
}

/// The crate of the targets.
fn sources() -> PathBuf {
    paths::root().join("fuzz")
}

/// Builds the targets and returns the directory of their programs.
fn build() -> Result<PathBuf> {
    let target = paths::target().join("fuzz");
    exec::step(
        "build-fuzz",
        "Building the fuzz targets",
        build::cargo()
            .args(["build", "-p", "fuzz", "--bins", "--features", "libfuzzer"])
            .args(["--profile", "fuzz", "--target", TARGET, "--target-dir"])
            .arg(&target)
            .env("RUSTFLAGS", RUSTFLAGS),
    )?;
    Ok(target.join(TARGET).join("fuzz"))
}

/// Runs one target, which fails if it finds something. Its corpus is kept in target/fuzz/corpus,
/// where the next run continues. Returns what there is to say of it.
fn fuzz(name: &str, programs: &Path, seconds: u64, tally: &mut Tally) -> Result<String> {
    let target = paths::target().join("fuzz");
    let (learned, found) = (target.join("corpus").join(name), target.join("crashes").join(name));
    for dir in [&learned, &found] {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let program = programs.join(name);
    let log_path = target.join(format!("{name}.log"));
    let log =
        File::create(&log_path).with_context(|| format!("cannot create {}", log_path.display()))?;
    let status = Command::new(&program)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg("-print_final_stats=1")
        .arg(&learned)
        .arg(sources().join("corpus").join(name))
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the log between streams")?)
        .stderr(log)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&fs::read(&log_path).unwrap_or_default()).into_owned();
    if status.success() {
        let runs =
            text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        tally.pass();
        let runs = runs.unwrap_or("?").trim();
        return Ok(format!("fuzz {name} ... ok ({runs} inputs in {seconds} s)"));
    }
    let lines: Vec<&str> = text.lines().collect();
    // A panic message says what is wrong; if there is none, the end of the output does.
    let tail = lines.len().saturating_sub(TAIL_LINES);
    let shown = match lines.iter().position(|line| line.contains(" panicked at ")) {
        Some(at) => &lines[at..lines.len().min(at + PANIC_LINES)],
        None => &lines[tail..],
    };
    let shown = shown.join("\n");
    tally.fail(&format!("fuzz {name}"), &shown);
    let mut said = format!("fuzz {name} ... FAILED ({status})\n{shown}\n");
    said += &format!("output: {}", log_path.display());
    let written = "Test unit written to ";
    if let Some((_, input)) = lines.iter().find_map(|line| line.split_once(written)) {
        said += &format!("\ninput:  {input}\nreplay: {} {input}", program.display());
        said += &format!(
            "\nkeep:   cp {input} fuzz/crashes/{name}/  (`cargo test -p fuzz` replays it)"
        );
    }
    Ok(said)
}
