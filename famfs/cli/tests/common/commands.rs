// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs commands on a pool while something else changes it: each must end by itself, in time, and
//! in bounded memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::hostile_writer::HostileWriter;

/// How long a command may take on a busy host.
const LIMIT: Duration = Duration::from_secs(60);
/// Address space for a command: the pool, its threads, and some more.
const MEMORY: u64 = 2 << 30;
/// Rust's exit code of a panic.
const PANICKED: i32 = 101;

/// Runs the command lines one after the other, again and again for a time, in `dir`, while the
/// writer works; returns how many ran. Afterwards `dir` may hold nothing new, except `may_appear`.
pub fn run_all(
    program: &str,
    lines: &[String],
    dir: &Path,
    may_appear: &[&str],
    time: Duration,
    mut writer: HostileWriter,
) -> u64 {
    let before = names(dir);
    let done = AtomicBool::new(false);
    let mut count = 0;
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                writer.step();
            }
            writer.restore();
            writer.writes()
        });
        let end = Instant::now() + time;
        // Each of them at least once, however slow the host.
        let ran = std::panic::catch_unwind(|| {
            let mut count = 0;
            for line in lines.iter().cycle() {
                if Instant::now() > end && count >= lines.len() as u64 {
                    break;
                }
                run(program, line, dir);
                count += 1;
            }
            count
        });
        done.store(true, Ordering::Relaxed);
        let writes = writing.join().unwrap();
        println!("{writes} hostile writes");
        count = ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(writes > 100, "only {writes} hostile writes");
    });
    let appeared: Vec<_> = names(dir).difference(&before).cloned().collect();
    let outside: Vec<_> =
        appeared.iter().filter(|name| !may_appear.contains(&name.as_str())).collect();
    assert!(outside.is_empty(), "{outside:?} appeared in {}", dir.display());
    count
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Runs one command line to its end, whatever it finds; panics if it ends in a wrong way.
pub fn run(program: &str, line: &str, dir: &Path) {
    let said = tempfile::tempfile().unwrap();
    let mut command = Command::new("prlimit");
    command.arg(format!("--as={MEMORY}")).arg("--core=0").arg(program);
    command.args(line.split_whitespace()).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{program} {line}: has not ended after {LIMIT:?}: {}", text(said));
        }
        thread::sleep(Duration::from_millis(1));
    };
    let text = text(said);
    assert_eq!(status.signal(), None, "{program} {line}: {status}: {text}");
    let panicked = status.code() == Some(PANICKED) || text.contains("panicked at");
    assert!(!panicked, "{program} {line}: {status}: {text}");
}

/// The end of a command's output.
fn text(mut file: File) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    let length = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(length.saturating_sub(4000))).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
