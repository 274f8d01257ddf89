// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs the output of `up --emit qemu` with a shell, as a user would.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use vm_tests::{Artifacts, BOOT, Session, memory_dir};

use super::SHORT;

const NAME: &str = "emitted";

/// A script with all its children, which must not outlive it.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // Fails if all have ended, as they should.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Prints the script of a cluster with one VM, runs it, and ends the VM.
pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let dir = memory_dir(64 << 20)?;
    let place = |name: &str| dir.path().join(name);
    fs::create_dir(place("data")).context("cannot make a directory")?;
    fs::write(place("data/file"), "from the host").context("cannot make a file")?;
    let cluster = format!(
        "name = \"{NAME}\"\n[pool]\npath = \"pool\"\nsize = \"64M\"\n[[import]]\nfrom = \"data\"\n\
         [[vm]]\nname = \"{NAME}\"\nmemory = \"512M\"\n"
    );
    fs::write(place("lab.toml"), cluster).context("cannot write the cluster file")?;
    let emitted = Command::new(artifacts.programs.join("vhost-famfs"))
        .arg("up")
        .arg(place("lab.toml"))
        .args(["--dry-run", "--emit", "qemu", "--output"])
        .arg(dir.path())
        .arg("--qemu")
        .arg(&artifacts.qemu)
        .arg("--image")
        .arg(&artifacts.image)
        .env("XDG_RUNTIME_DIR", dir.path())
        .output()
        .context("cannot run vhost-famfs")?;
    ensure!(emitted.status.success(), "up: {}", String::from_utf8_lossy(&emitted.stderr));
    let run = dir.path().join("vhost-famfs").join(NAME);
    let console = run.join(format!("{NAME}.console"));
    let said = File::create(place("said")).context("cannot make a file")?;
    let mut shell = Command::new("sh");
    shell.arg(place(&format!("{NAME}.sh"))).process_group(0);
    shell.stdout(said.try_clone()?).stderr(said);
    let mut script = Script(shell.spawn().context("cannot run sh")?);
    let story = || {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        format!("it said:\n{}\nconsole:\n{}", read(&place("said")), read(&console))
    };
    session.check("its VM boots and mounts the pool that it made", || {
        let begin = Instant::now();
        while !String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).contains(MOUNTED) {
            if let Some(status) = script.0.try_wait()? {
                bail!("the script ended, {status}; {}", story());
            }
            ensure!(begin.elapsed() < BOOT, "not mounted after {BOOT:?}; {}", story());
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    });
    let vhost_famfs = |words: &[&str]| {
        let mut command = Command::new(artifacts.programs.join("vhost-famfs"));
        let output = command.args(words).env("XDG_RUNTIME_DIR", dir.path()).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{words:?}: {output:?}; {}", story());
        anyhow::Ok(said)
    };
    session.check("ps and exec know its VM", || {
        let ps = vhost_famfs(&["ps", NAME])?;
        ensure!(ps.contains("running"), "{ps}");
        let read = vhost_famfs(&["exec", NAME, "--", "cat", "/mnt/famfs/file"])?;
        ensure!(read == "from the host", "{read:?}");
        Ok(())
    });
    session.check("it ends well after down, and the pool stays", || {
        let down = vhost_famfs(&["down", NAME])?;
        ensure!(down.contains("powered off"), "{down}");
        let status = wait(&mut script.0)?;
        ensure!(status.success(), "{status}; {}", story());
        ensure!(!run.exists() && place("pool").exists());
        Ok(())
    });
    Ok(())
}

/// The console output of a guest that has mounted the pool with the one file in it.
const MOUNTED: &str = "on /mnt/famfs: master, 1 files";

fn wait(child: &mut Child) -> Result<ExitStatus> {
    let begin = Instant::now();
    while begin.elapsed() < SHORT {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("still running after {SHORT:?}")
}
