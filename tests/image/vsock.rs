// SPDX-License-Identifier: Apache-2.0 OR MIT
//! systemd's own notification to the host (`vmm.notify_socket`), and the host's connections to the
//! agent, through a vsock device that needs no /dev/vhost-vsock: vhost-device-vsock of rust-vmm,
//! which turns connections of both kinds into connections to Unix sockets.

use std::io::{ErrorKind, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use protocol::credentials::VSOCK;
use vhost_famfs::vm::{Channel, Command, Guest, Status, VmPaths, find_in_path};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View};

const POOL: u64 = 64 << 20;
const MEMORY: u64 = 512 << 20;
const SHORT: Duration = Duration::from_secs(180);

/// The device's program.
const DEVICE: &str = "vhost-device-vsock";

/// The host's address and port (vsock(7): the host is 2).
const NOTIFY: &str = "vsock-stream:2:1234";

/// Two VMs: one mounts its pool, one may not.
pub fn notifies(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let Some(program) = find_in_path(DEVICE) else {
        for name in ["READY=1 over vsock", "exec over vsock"] {
            session.skip(name, &format!("no {DEVICE} in PATH"));
        }
        return Ok(());
    };
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let dir = tempfile::tempdir_in(&artifacts.runtime)?;
    let ports = (Port::listen(dir.path(), 3)?, Port::listen(dir.path(), 4)?);
    let mounting = Device::start(&program, dir.path(), 3)?;
    let refused = Device::start(&program, dir.path(), 4)?;
    let member = |name, device: &Device, role| {
        let member = Member::new(name, role == "master").with_qemu_args(&device.qemu_args());
        member.with_credential("vmm.notify_socket", NOTIFY)
    };
    let members = vec![
        member("mounting", &mounting, "master").with_credential(VSOCK, "1"),
        // Claims to be the master, but is not.
        member("refused", &refused, "client").with_credential("famfs.role", "master"),
    ];
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    session.check("systemd sends READY=1 over vsock when the pool is mounted", || {
        // The guest's process 1 waits until this is dropped, so everything it has done by now
        // happened before it was ready.
        let held = ports.0.ready()?;
        let node = cluster.node("mounting")?;
        let kernel_log = says(node, "dmesg")?;
        ensure!(kernel_log.contains("Finished famfs-attach.service"), "{kernel_log}");
        let pool = says(node, "findmnt --noheadings --output FSTYPE /mnt/famfs")?;
        ensure!(pool.trim() == "famfs", "{pool:?}");
        drop(held);
        node.vm.wait_ready(SHORT)?;
        Ok(())
    });
    session.check("the agent runs commands over vsock", || {
        let mut paths = VmPaths::new("mounting", dir.path(), dir.path());
        paths.vsock = guest_path(dir.path(), 3);
        let mut guest = Guest::of(&paths, Channel::Vsock);
        let input = vec![b'x'; 1 << 20];
        let output = guest.exec(&Command::shell("wc -c; exit 7").stdin(input), SHORT)?;
        ensure!(output.stdout == b"1048576\n", "{output:?}");
        ensure!(output.status == Status::Code(7), "{output:?}");
        // It is the agent of the ports.
        let by_vsock = guest.exec(&Command::shell("echo $PPID"), SHORT)?.stdout;
        let by_port = says(cluster.node("mounting")?, "echo $PPID")?;
        ensure!(by_vsock == by_port.as_bytes(), "{by_vsock:?}, by the port {by_port}");
        Ok(())
    });
    session.check("it sends that, too, when the pool could not be mounted", || {
        let held = ports.1.ready()?;
        let node = cluster.node("refused")?;
        let kernel_log = says(node, "dmesg")?;
        ensure!(kernel_log.contains("Failed to start famfs-attach.service"), "{kernel_log}");
        drop(held);
        match node.vm.wait_ready(SHORT) {
            Ok(ready) => bail!("the agent says: {:?}", ready.attach),
            Err(_) => Ok(()),
        }
    });
    // A guest that shuts down sends more, and waits until somebody receives it.
    drop(ports);
    session.check("both shut down in order, with nobody listening", || cluster.end());
    Ok(())
}

fn says(node: &Node, script: &str) -> Result<String> {
    let output = node.run(&Command::shell(script), SHORT)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where guests' connections to a port of the host arrive.
fn guest_path(dir: &Path, cid: u32) -> PathBuf {
    dir.join(format!("{cid}.vsock"))
}

/// The device of one VM. Its process ends together with its test.
struct Device {
    process: Child,
    socket: PathBuf,
}

impl Device {
    fn start(program: &Path, dir: &Path, cid: u32) -> Result<Self> {
        let socket = dir.join(format!("{cid}.sock"));
        let mut process = Process::new("setpriv");
        process.args(["--pdeathsig", "KILL", "--"]).arg(program);
        process.args(["--guest-cid", &cid.to_string()]);
        process.arg("--socket").arg(&socket).arg("--uds-path").arg(guest_path(dir, cid));
        let process = process.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let device = Self { process: process.context("cannot run setpriv")?, socket };
        let begun = Instant::now();
        while !device.socket.exists() {
            ensure!(begun.elapsed() < SHORT, "{DEVICE} does not listen on {:?}", device.socket);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(device)
    }

    fn qemu_args(&self) -> [String; 4] {
        let chardev = format!("socket,id=vsock,path={}", self.socket.display());
        ["-chardev", &chardev, "-device", "vhost-user-vsock-pci,chardev=vsock"].map(str::to_owned)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Both fail only for a child that has already been reaped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The host's end of a VM's port 1234.
struct Port(UnixListener);

impl Port {
    fn listen(dir: &Path, cid: u32) -> Result<Self> {
        let mut path = guest_path(dir, cid).into_os_string();
        path.push("_1234");
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// The connection on which `READY=1` arrives, after all earlier ones.
    fn ready(&self) -> Result<UnixStream> {
        let begun = Instant::now();
        let mut before = Vec::new();
        loop {
            match self.0.accept() {
                Ok((mut stream, _)) => {
                    stream.set_read_timeout(Some(SHORT))?;
                    let mut bytes = [0; 4096];
                    let len = stream.read(&mut bytes)?;
                    let message = String::from_utf8_lossy(&bytes[..len]).into_owned();
                    if message.lines().any(|line| line == "READY=1") {
                        return Ok(stream);
                    }
                    before.push(message);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ensure!(begun.elapsed() < BOOT, "not ready; the guest said {before:?}");
                    thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
