// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Shells in a VM: `exec -it` on a terminal, directories and users.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::console::Terminal;
use super::program::{LIMIT, Program, until};

/// Gives a group of the guest a member.
const MEMBER: &str = "cp /etc/group /tmp/group; echo famfs-test:x:4242:daemon >> /tmp/group
                      mount --bind /tmp/group /etc/group";

pub fn users(program: &Program<'_>) -> Result<()> {
    program.shell("vm1", MEMBER)?;
    let script = "pwd; id -u; id -g; id -G; echo $HOME; grep CapEff /proc/self/status";
    let seen = |options: &[&str]| {
        program.ok(&[&["exec", "-n"], options, &["vm1", "--", "sh", "-c", script]].concat())
    };
    let none = "CapEff:\t0000000000000000";
    let table: [(&[&str], String); 3] = [
        (&["-w", "/tmp", "-u", "daemon"], format!("/tmp\n1\n1\n1 4242\n/usr/sbin\n{none}\n")),
        (&["--user", "1234:famfs-test"], format!("/\n1234\n4242\n4242\n/\n{none}\n")),
        (&["-u", "daemon:0", "-e", "HOME=/x"], format!("/\n1\n0\n0\n/x\n{none}\n")),
    ];
    for (options, expected) in table {
        let found = seen(options)?;
        ensure!(found == expected, "{options:?}: {found:?}, expected {expected:?}");
    }
    let open = "cat /dev/stdin > /dev/stdout; echo through > /dev/stderr; exit 9";
    let table: [(&[&str], i32, &str); 6] = [
        (&["-u", "nobody", "vm1", "sh", "-c", open], 9, "through"),
        (&["-u", "nobody-at-all", "vm1", "true"], 126, "no user nobody-at-all in the guest"),
        (&["-w", "/none", "vm1", "true"], 126, "cannot enter /none: No such file"),
        (&["-u", "nobody", "vm1", "/usr/bin/appliance-none"], 127, "No such file"),
        (&["-u", "nobody", "vm1", "sh", "-c", "kill -9 $$"], 137, ""),
        (&["-it", "vm1", "true"], 125, "standard input is not one"),
    ];
    for (words, code, said) in table {
        let output = program.run(&[&["exec"], words].concat())?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code) && stderr.contains(said), "{output:?}");
    }
    Ok(())
}

/// Uses a shell on a terminal, leaves it, and ends another one by a signal.
pub fn terminal(program: &Program<'_>) -> Result<()> {
    let flag = tempfile::NamedTempFile::new().context("no temporary file")?;
    let pid = tempfile::NamedTempFile::new().context("no temporary file")?;
    // The terminal is resized when the file is gone.
    let script = format!(
        "stty rows 30 cols 100; before=$(stty -g)
         (while [ -e {flag} ]; do sleep 0.1; done; stty rows 41 cols 77 </dev/tty) &
         $PROGRAM exec -it vm1 -- bash --norc; echo code $?
         [ \"$before\" = \"$(stty -g)\" ] && echo restored by exit
         sh -c 'echo $$ > {pid}; exec $PROGRAM exec -it vm1 -- sh -c \"echo in raw mode; sleep 1002\"'
         echo code $?
         [ \"$before\" = \"$(stty -g)\" ] && echo restored by signal",
        flag = flag.path().display(),
        pid = pid.path().display()
    );
    let mut terminal = Terminal::start(program, &script)?;
    terminal.answers("stty size", "30 100")?;
    flag.close().context("cannot remove the file")?;
    terminal.answers("stty size", "41 77")?;
    terminal.types(b"echo sleeps $((6 * 8)); sleep 1000\r")?;
    terminal.shows("sleeps 48")?;
    // Ctrl-Z stops the guest's program, and Ctrl-C ends the next; neither reaches `exec`. Keys that
    // come before the program has the terminal are typed again.
    until("Ctrl-Z", LIMIT, || {
        terminal.types(b"\x1a")?;
        Ok(terminal.answers("jobs", "Stopped").is_ok())
    })
    .with_context(|| terminal.screen())?;
    terminal.types(b"echo sleeps $((7 * 8)); sleep 1001\r")?;
    terminal.shows("sleeps 56")?;
    until("Ctrl-C", LIMIT, || {
        terminal.types(b"\x03")?;
        Ok(terminal.answers("echo awake $((6 * 9))", "awake 54").is_ok())
    })
    .with_context(|| terminal.screen())?;
    // A job that runs does not keep the shell, and one that is stopped only the first time.
    terminal.types(b"sleep 1003 &\r")?;
    terminal.answers("exit 7", "code 7")?;
    terminal.shows("restored by exit")?;
    // The terminal was changed before the guest's program could say so.
    terminal.shows("in raw mode")?;
    let pid = fs::read_to_string(pid.path()).context("no process")?;
    let killed = Command::new("kill").arg(pid.trim()).status().context("cannot run kill")?;
    ensure!(killed.success(), "kill {pid}: {killed}");
    terminal.shows("code 143")?;
    terminal.shows("restored by signal")?;
    until("the command ends with exec", LIMIT, || {
        let running = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' || :";
        Ok(!program.shell("vm1", running)?.contains("sleep 1002"))
    })
}
