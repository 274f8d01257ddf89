// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files between host and guest, and commands beside each other, in a VM.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use vm_tests::{Artifacts, Session};

use super::program::{LIMIT, Program, end_of, until};
use super::shell;

/// More than was once the most for standard input.
const LARGE: u64 = 20 << 20;

pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let program = Program::new(artifacts)?;
    let dir = tempfile::tempdir().context("no directory for copies")?;
    let dir = dir.path();
    program.json(&["up", "--name", "copies", "--vms", "1", "--json"])?;
    session.check("standard input has no limit", || {
        let mut child = piped(&program, &["exec", "vm1", "--", "sh", "-c", "wc -c; cat"])?;
        let mut input = child.stdin.take().context("no input")?;
        io::copy(&mut io::repeat(b'x').take(LARGE), &mut input)?;
        drop(input);
        let output = end_of(child, &["exec", "wc"])?;
        ensure!(output.stdout == format!("{LARGE}\n").as_bytes(), "{output:?}");
        Ok(())
    });
    session.check("commands run beside each other, also if one does not read", || {
        side_by_side(&program)
    });
    session
        .check("commands run as users, in directories, or say why not", || shell::users(&program));
    session.check("a terminal has its size and its keys in the guest, and is restored", || {
        shell::terminal(&program)
    });
    session.check("files and trees go in and out as they are", || trees(&program, dir));
    session.check("what cannot be written is named, and leaves nothing", || full(&program, dir));
    session
        .check("a copy that is interrupted leaves nothing in the guest", || interrupted(&program));
    session.check("the end of the agent is the end of its commands", || agent(&program));
    session.check("the end of the VM is the end of a copy", || ended(&program, dir));
    program.run(&["down", "--timeout", "60"])?;
    Ok(())
}

/// Starts the program with all its streams in pipes.
fn piped(program: &Program<'_>, words: &[&str]) -> Result<Child> {
    let mut command = program.command(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("cannot run vhost-famfs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs it, which must fail and say something.
fn fails(program: &Program<'_>, words: &[&str], expected: &str) -> Result<()> {
    let output = program.run(words)?;
    ensure!(output.status.code() == Some(1), "{words:?}: {output:?}");
    ensure!(said(&output).contains(expected), "{words:?}: {}", said(&output));
    Ok(())
}

fn side_by_side(program: &Program<'_>) -> Result<()> {
    // It gets as much as is sent ahead, and reads nothing.
    let mut deaf = piped(program, &["exec", "vm1", "--", "sh", "-c", "echo on; sleep 54321"])?;
    let mut input = deaf.stdin.take().context("no input")?;
    std::thread::spawn(move || io::copy(&mut io::repeat(b'x'), &mut input));
    // Nobody reads what this one says.
    let mut loud = piped(program, &["exec", "-n", "vm1", "--", "cat", "/dev/zero"])?;
    loud.stdout.as_mut().context("no output")?.read_exact(&mut [0])?;
    deaf.stdout.as_mut().context("no output")?.read_exact(&mut [0; 3])?;
    let mut children = Vec::new();
    for number in 1..=4_u8 {
        let script = format!("cat; echo {number} >&2; exit {number}");
        children.push((number, piped(program, &["exec", "vm1", "--", "sh", "-c", &script])?));
    }
    for (number, child) in &mut children {
        child.stdin.take().context("no input")?.write_all(&[*number])?;
    }
    for (number, child) in children {
        let output = end_of(child, &["exec", "cat"])?;
        ensure!(output.status.code() == Some(number.into()), "{number}: {output:?}");
        ensure!(output.stdout == [number], "{number}: {output:?}");
        ensure!(output.stderr == format!("{number}\n").as_bytes(), "{number}: {output:?}");
    }
    for child in [&mut deaf, &mut loud] {
        let pid = Pid::from_child(child);
        kill_process(pid, Signal::INT)?;
        child.wait()?;
    }
    until("both commands end with Ctrl-C", LIMIT, || {
        let running =
            program.shell("vm1", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' || :")?;
        Ok(!running.contains("sleep 54321") && !running.contains("cat /dev/zero"))
    })
}

fn trees(program: &Program<'_>, dir: &Path) -> Result<()> {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("sub"))?;
    fs::write(tree.join("sub/large"), vec![5; usize::try_from(LARGE)?])?;
    fs::write(tree.join("empty"), "")?;
    std::os::unix::fs::symlink("sub/large", tree.join("link"))?;
    let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
    program.ok(&["cp", "-r", &at("tree"), "vm1:/tmp"])?;
    let seen = program.shell(
        "vm1",
        "cd /tmp/tree; stat -c '%a %u %Y %s' sub/large; tr -d '\\5' < link | wc -c; ls -A . ..",
    )?;
    let meta = fs::metadata(tree.join("sub/large"))?;
    let expected = format!("{:o} 0 {} {LARGE}\n0\n", meta.mode() & 0o777, meta.mtime());
    ensure!(seen.starts_with(&expected), "{seen:?}, expected {expected:?}");
    ensure!(!seen.contains(".vhost-famfs"), "{seen:?}");
    program.ok(&["cp", "-r", "vm1:/tmp/tree", &at("back")])?;
    let diff = std::process::Command::new("diff")
        .args(["-r", "--no-dereference", &at("tree"), &at("back")])
        .output()?;
    ensure!(diff.status.success(), "{diff:?}");
    ensure!(fs::metadata(dir.join("back/sub/large"))?.mtime_nsec() == meta.mtime_nsec());
    // A file whose size nobody knows, and standard output.
    let kernel = program.ok(&["cp", "vm1:/proc/version", "-"])?;
    ensure!(kernel.starts_with("Linux version "), "{kernel:?}");
    let mut child = piped(program, &["cp", "-", "vm1:/tmp/stream"])?;
    child.stdin.take().context("no input")?.write_all(b"through")?;
    let output = end_of(child, &["cp", "-"])?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(program.shell("vm1", "cat /tmp/stream")? == "through");
    Ok(())
}

fn full(program: &Program<'_>, dir: &Path) -> Result<()> {
    program.shell("vm1", "mkdir /tmp/small; mount -t tmpfs -o size=1M small /tmp/small")?;
    let large = dir.join("tree/sub/large").to_string_lossy().into_owned();
    fails(program, &["cp", &large, "vm1:/tmp/small"], "No space left on device")?;
    ensure!(program.shell("vm1", "ls -A /tmp/small")?.is_empty(), "something is left");
    fails(program, &["cp", &large, "vm1:/proc/x"], "cannot write /proc/x")?;
    fails(program, &["cp", &large, "vm1:/none/x"], "/none: No such file")?;
    fails(program, &["cp", &large, "vm1:/mnt/famfs/x"], "only the famfs tools make files")?;
    let seen = program.shell("vm1", "ls /mnt/famfs")?;
    ensure!(!seen.contains('x'), "{seen:?}");
    Ok(())
}

fn interrupted(program: &Program<'_>) -> Result<()> {
    let mut child = piped(program, &["cp", "-", "vm1:/tmp/part"])?;
    let mut input = child.stdin.take().context("no input")?;
    // More than both ends hold in memory, so the file has begun.
    io::copy(&mut io::repeat(b'x').take(8 << 20), &mut input)?;
    child.kill()?;
    child.wait()?;
    until("the guest's end of the copy ends", LIMIT, || {
        let running =
            program.shell("vm1", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' || :")?;
        Ok(!running.contains("appliance-agent receive"))
    })?;
    let left = program.shell("vm1", "ls -A /tmp")?;
    ensure!(!left.contains("part") && !left.contains(".vhost-famfs"), "{left:?}");
    Ok(())
}

fn agent(program: &Program<'_>) -> Result<()> {
    let mut copy = piped(program, &["cp", "-", "vm1:/tmp/part"])?;
    let mut input = copy.stdin.take().context("no input")?;
    io::copy(&mut io::repeat(b'x').take(4 << 20), &mut input)?;
    let killed =
        program.run(&["exec", "-n", "vm1", "--", "sh", "-c", "kill -9 $PPID; sleep 60"])?;
    ensure!(killed.status.code() == Some(125), "{killed:?}");
    ensure!(
        said(&killed).contains("the guest's agent ended and was started again"),
        "{}",
        said(&killed)
    );
    let output = end_of(copy, &["cp"])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(
        said(&output).contains("the guest's agent ended and was started again"),
        "{}",
        said(&output)
    );
    drop(input);
    let left = program.shell("vm1", "ls -A /tmp")?;
    ensure!(!left.contains("part") && !left.contains(".vhost-famfs"), "{left:?}");
    Ok(())
}

fn ended(program: &Program<'_>, dir: &Path) -> Result<()> {
    let target = dir.join("zero").to_string_lossy().into_owned();
    let copy = piped(program, &["cp", "vm1:/dev/zero", &target])?;
    let free = || -> Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail * stat.f_frsize)
    };
    let before = free()?;
    until("the copy has begun", LIMIT, || Ok(free()? + (2 << 20) < before))?;
    let pid = program.ps()?.0["vms"][0]["pid"].as_i64().context("the VM has no process")?;
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no process has this number")?;
    kill_process(pid, Signal::KILL)?;
    let output = end_of(copy, &["cp"])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(said(&output).contains("the VM has ended"), "{}", said(&output));
    let left: Vec<_> = fs::read_dir(dir)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left.len() == 2, "{left:?}");
    Ok(())
}
