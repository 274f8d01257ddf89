// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A VM with a network in user mode, beside one without a network.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::program::{LIMIT, Program, end_of, until};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/answer.c");
/// The guest's port.
pub const PORT: u16 = 80;
const WORDS: &str = "from the guest";
/// How long one attempt to read may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A port of the host that nobody uses at this moment.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Without a network, there is nothing but the guest itself.
pub fn none(program: &Program<'_>, vm: &str) -> Result<()> {
    let seen =
        program.shell(vm, "ls /sys/class/net; ls /run/appliance/resolv.conf 2>&1 || true")?;
    ensure!(seen.starts_with("lo\n") && seen.contains("No such file"), "{seen:?}");
    Ok(())
}

/// The guest reaches programs of the host.
pub fn reaches_the_host(program: &Program<'_>, vm: &str) -> Result<()> {
    let servers = program.shell(vm, "cat /etc/resolv.conf")?;
    ensure!(servers == "nameserver 10.0.2.3\n", "{servers:?}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    let port = listener.local_addr()?.port();
    let host = thread::spawn(move || -> Result<()> {
        let (mut connection, _) = listener.accept()?;
        Ok(connection.write_all(b"from the host\n")?)
    });
    let script = format!("exec 3<>/dev/tcp/10.0.2.2/{port}; read -r line <&3; echo \"$line\"");
    let seen = program.shell(vm, &script)?;
    ensure!(seen == "from the host\n", "{seen:?}");
    host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Programs of the host reach the guest by the port that is forwarded.
pub fn is_reached(program: &Program<'_>, vm: &str, port: u16) -> Result<()> {
    let answer = program.pools.path().join("answer");
    compile(&answer)?;
    program.ok(&["cp", &answer.to_string_lossy(), &format!("{vm}:/tmp/answer")])?;
    let guest_port = PORT.to_string();
    let words = ["exec", "-n", vm, "--", "/tmp/answer", &guest_port, WORDS];
    let guest = program.command(&words).spawn().context("cannot run vhost-famfs")?;
    // Until the guest listens, QEMU takes the connection and closes it.
    until("the guest answers", LIMIT, || {
        let mut said = String::new();
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        connection.set_read_timeout(Some(ATTEMPT))?;
        // A connection that QEMU has reset says nothing.
        let _ = connection.read_to_string(&mut said);
        ensure!(said.is_empty() || said == WORDS, "{said:?}");
        Ok(said == WORDS)
    })?;
    let output = end_of(guest, &words)?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

fn compile(program: &Path) -> Result<()> {
    let compiled = Command::new("cc")
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", SOURCE, "-o"])
        .arg(program)
        .output()
        .context("cannot run cc")?;
    ensure!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
    Ok(())
}
