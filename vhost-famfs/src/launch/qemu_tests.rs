// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;

fn config() -> VmConfig {
    let dir = tempfile::tempdir().unwrap();
    for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
        std::fs::write(dir.path().join(file), "").unwrap();
    }
    let image = Image::open(dir.path()).unwrap();
    let mut config = VmConfig::new("vm1", "qemu-system-x86_64", image, "/run/vm1", "/logs/vm,1");
    config.uuid = Uuid::from_u128(0x1234);
    config
}

/// The command line as one text, with the image's directory as IMAGE.
fn text(config: &VmConfig) -> String {
    let dir = config.image.dir().to_str().unwrap();
    shell_quoted(&config.command_line().unwrap()).replace(dir, "IMAGE")
}

#[test]
fn the_plain_appliance_is_this_command() {
    let expected = "qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none -name vm1 \
        -machine q35,memory-backend=ram -accel tcg -cpu max,-erms,-fsrm -smp 2 -m 1024M \
        -object memory-backend-memfd,id=ram,size=1024M,share=on \
        -uuid 00000000-0000-0000-0000-000000001234 \
        -smbios type=11,value=io.systemd.credential:famfs.no-pool=1 \
        -smbios type=11,value=io.systemd.credential:system.hostname=vm1 \
        -bios qboot.rom -kernel IMAGE/vmlinux -initrd IMAGE/initrd.cpio -append 'console=ttyS0 \
        root=/dev/disk/by-id/virtio-famfs-root panic=-1 loglevel=5 printk.devkmsg=on \
        systemd.tty.term.console=dumb lsm= audit=0 8250.nr_uarts=1 swiotlb=512 mitigations=off nokaslr tsc=reliable no_timer_check cryptomgr.notests' \
        -blockdev driver=file,node-name=disk0,read-only=on,filename=IMAGE/root.erofs \
        -device virtio-blk-pci,drive=disk0,serial=famfs-root \
        -chardev file,id=console,path=/logs/vm,,1 -serial chardev:console \
        -chardev socket,id=agent,server=on,wait=off,path=/run/vm1/agent.sock \
        -qmp unix:/run/vm1/qmp.sock,server=on,wait=off \
        -device virtio-serial-pci,max_ports=2 \
        -device virtserialport,nr=1,chardev=agent,name=org.vhost-famfs.exec.0";
    assert_eq!(text(&config()), expected);
}

#[test]
fn a_back_end_comes_before_everything_with_a_number() {
    let mut config = config();
    config.pools = vec![PoolDevice::Shmem { socket: "/run/pool.sock".into() }];
    let text = text(&config);
    let device = "-chardev socket,id=pool0,path=/run/pool.sock -device \
        vhost-user-test-device-pci,chardev=pool0,virtio-id=27 -blockdev";
    assert!(text.contains(device), "{text}");
    assert!(!text.contains("no-pool"), "{text}");
}

#[test]
fn a_file_gets_address_space_and_its_access() {
    let mut config = config();
    let size = 512 * MIB;
    config.pools = vec![
        PoolDevice::Pmem { path: "/pools/a".into(), size, readonly: false },
        PoolDevice::Pmem { path: "/pools/b,c".into(), size, readonly: true },
    ];
    let text = text(&config);
    for part in [
        "-m 1024M,maxmem=2048M,slots=2 ",
        "memory-backend-file,id=pool0,share=on,size=512M,align=2M,mem-path=/pools/a ",
        "memory-backend-file,id=pool1,share=on,readonly=on,size=512M,align=2M,mem-path=/pools/b,,c ",
        "-device virtio-pmem-pci,memdev=pool1 ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn disks_credentials_and_more_arguments_are_appended() {
    let mut config = config();
    config.disks = vec![Disk { path: "/tests.img".into(), serial: "tests".into() }];
    config.credentials.insert("famfs.run".into(), "a,b c".into());
    config.kernel_args = vec!["loglevel=8".into()];
    config.qemu_args = vec!["-S".into()];
    config.console = Console::Terminal;
    let text = text(&config);
    for part in [
        "-device virtio-blk-pci,drive=disk1,serial=tests ",
        "'type=11,value=io.systemd.credential:famfs.run=a,,b c'",
        "credential:famfs.console=shell ",
        "cryptomgr.notests loglevel=8' ",
        "-chardev stdio,id=console,mux=on,signal=off,logfile=/logs/vm,,1 ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(text.ends_with(" -S"), "{text}");
}

#[test]
fn a_root_in_memory_is_mapped_read_only_at_its_slot() {
    let mut config = config();
    let dir = tempfile::tempdir().unwrap();
    for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
        std::fs::write(dir.path().join(file), "").unwrap();
    }
    std::fs::File::create(dir.path().join("root-dax.erofs")).unwrap().set_len(64 * MIB).unwrap();
    config.image = Image::open(dir.path()).unwrap();
    config.root = Root::Memory;
    let text = text(&config);
    for part in [
        "-m 1024M,maxmem=1088M,slots=1 ",
        "memory-backend-file,id=root,share=off,readonly=on,rom=on,size=67108864,align=2M,mem-path=IMAGE/root-dax.erofs ",
        "-device virtio-pmem-pci,memdev=root,addr=1e ",
        "root=/dev/disk/by-path/pci-0000:00:1e.0 ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains("virtio-blk"), "{text}");
}

#[test]
fn a_guest_without_a_root_has_its_own_initrd() {
    let mut config = config();
    config.root = Root::Initrd;
    let text = text(&config);
    assert!(text.contains("-initrd IMAGE/initrd-diskless.cpio "), "{text}");
    assert!(!text.contains("root=") && !text.contains("virtio-blk"), "{text}");
}

#[test]
fn kvm_needs_no_allowances() {
    let mut config = config();
    config.accelerator = Accelerator::Kvm;
    let text = text(&config);
    assert!(text.contains("-accel kvm -cpu host "), "{text}");
    assert!(!text.contains("mitigations"), "{text}");
}

#[test]
fn what_cannot_be_run_is_refused() {
    type Change = fn(&mut VmConfig);
    let table: [(Change, &str); 10] = [
        (
            |c| {
                c.credentials.insert("famfs.rol".into(), "client".into());
            },
            "VM vm1: unknown credential \"famfs.rol\"; known are famfs.no-pool",
        ),
        (|c| c.name = "a,b".into(), "VM name \"a,b\": expected 1 to 32 letters"),
        (|c| c.name = String::new(), "VM name \"\""),
        (|c| c.cpus = 0, "VM vm1: no processors"),
        (|c| c.memory = 100 * MIB, "VM vm1: memory of 100 MiB, expected"),
        (|c| c.memory += 1, "VM vm1: memory of 1073741825 bytes"),
        (|c| c.runtime_dir = "/x".repeat(60).into(), "at most 107 are possible"),
        (
            |c| {
                let path = "/pool".into();
                c.pools = vec![PoolDevice::Pmem { path, size: 4096, readonly: true }];
            },
            "VM vm1: pool /pool: size of 4 KiB, expected a multiple of 2 MiB",
        ),
        (
            |c| c.disks = vec![Disk { path: "/d".into(), serial: "x".repeat(21) }],
            "expected 1 to 20 letters",
        ),
        (
            |c| _ = c.credentials.insert("a".into(), "b\nc".into()),
            "VM vm1: credential \"a\": NUL or line feed",
        ),
    ];
    for (change, expected) in table {
        let mut config = config();
        change(&mut config);
        let error = config.command_line().unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}

#[test]
fn a_shell_reads_back_what_was_quoted() {
    let argv = ["a", "", "it's", "two words", "$HOME"].map(OsString::from);
    let script = format!("printf '<%s>' {}", shell_quoted(&argv));
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(output.stdout, b"<a><><it's><two words><$HOME>");
}
