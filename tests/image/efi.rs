// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A UKI under UEFI firmware: how a machine without a directly loaded kernel boots the appliance.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vm_tests::{Artifacts, BOOT, Pool, Session, View};

const POOL: u64 = 64 << 20;

/// OVMF, with code and variables in one file, where Debian's package installs it. The tools' QEMU
/// has its own `/usr`.
const FIRMWARE: &str = "/usr/share/ovmf/OVMF.fd";

/// The diskless appliance's message when it has the pool.
const MOUNTED: &str = "on /mnt/famfs: master";

pub fn uki(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    session.check("firmware starts the diskless UKI, which mounts the pool", || {
        let dir = tempfile::tempdir_in(&artifacts.runtime)?;
        let boot = dir.path().join("esp/EFI/BOOT");
        fs::create_dir_all(&boot)?;
        fs::copy(artifacts.image.join("diskless.efi"), boot.join("BOOTX64.EFI"))
            .context("no diskless.efi")?;
        let console = artifacts.logs.join("efi.console");
        fs::write(&console, "")?;
        let mut machine = start(artifacts, &pool, dir.path(), &console)?;
        let begun = Instant::now();
        loop {
            let said = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
            if said.contains(MOUNTED) {
                return Ok(());
            }
            ensure!(begun.elapsed() < BOOT && machine.0.try_wait()?.is_none(), "{said}");
            thread::sleep(Duration::from_millis(100));
        }
    });
    Ok(())
}

/// A machine with the directory `esp` as its disk.
fn start(artifacts: &Artifacts, pool: &Pool, dir: &Path, console: &Path) -> Result<Machine> {
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "--"]).arg(&artifacts.qemu);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    qemu.args([
        "-machine",
        "q35",
        "-accel",
        "tcg,thread=single",
        "-cpu",
        "max,-erms,-fsrm",
        "-smp",
        "2",
    ]);
    qemu.args(["-m", "512M,maxmem=1024M,slots=1", "-uuid", &pool.system().to_string()]);
    qemu.args(["-bios", FIRMWARE]);
    let esp = dir.join("esp");
    qemu.arg("-blockdev")
        .arg(format!("driver=vvfat,node-name=esp,read-only=on,dir={}", esp.display()));
    qemu.args(["-device", "virtio-blk-pci,drive=esp,bootindex=0"]);
    let memory = format!("memory-backend-file,id=pool,share=on,align=2M,size={}", pool.size());
    qemu.arg("-object").arg(format!("{memory},mem-path={}", pool.path().display()));
    qemu.args(["-device", "virtio-pmem-pci,memdev=pool"]);
    // The agent's port; nobody connects to it.
    qemu.args(["-device", "virtio-serial-pci,max_ports=2", "-chardev", "null,id=agent"]);
    qemu.arg("-device")
        .arg(format!("virtserialport,nr=1,chardev=agent,name={}", protocol::exec::port(0)));
    qemu.arg("-serial").arg(format!("file:{}", console.display()));
    let child = qemu.stdin(Stdio::null()).spawn().context("cannot start QEMU")?;
    Ok(Machine(child))
}

/// A QEMU that ends together with its test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only for a child that has already been reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
