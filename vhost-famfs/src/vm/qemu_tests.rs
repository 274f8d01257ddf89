// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::super::accelerator::Accelerator;
use super::super::arguments::shell_quoted;
use super::super::confine::Confinement;
use super::super::disk_format::DiskFormat;
use super::super::image::{Image, Root};
use super::*;

/// The command line as text, with IMAGE for the image's directory.
fn text(config: &VmConfig) -> String {
    let text = shell_quoted(&config.command_line().unwrap());
    match config.system.appliance() {
        Some(image) => text.replace(image.dir().to_str().unwrap(), "IMAGE"),
        None => text,
    }
}

#[test]
fn the_plain_appliance_is_this_command() {
    let expected = "qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none -name vm1 \
        -machine q35,memory-backend=ram,sata=off,smbus=off,vmport=off,hpet=off,i8042=off \
        -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny -accel tcg,thread=single -cpu max,-erms,-fsrm -smp 2 -m 1024M \
        -object memory-backend-memfd,id=ram,size=1024M,share=on \
        -uuid 00000000-0000-0000-0000-000000001234 -fw_cfg name=opt/org.vhost-famfs/generation,file=/proc/sys/kernel/random/uuid \
        -smbios type=11,value=io.systemd.credential:famfs.no-pool=1 \
        -smbios type=11,value=io.systemd.credential:system.hostname=vm1 \
        -bios qboot.rom -kernel IMAGE/vmlinux -initrd IMAGE/initrd.cpio -append 'console=ttyS0 \
        root=/dev/disk/by-id/virtio-famfs-root panic=-1 loglevel=5 printk.devkmsg=on \
        systemd.tty.term.console=dumb lsm= audit=0 8250.nr_uarts=1 swiotlb=512 psi=0 damon_stat.enabled=N \
        sysctl.vm.compaction_proactiveness=0 watchdog_thresh=60 mitigations=off nokaslr tsc=reliable no_timer_check cryptomgr.notests' \
        -blockdev driver=file,node-name=disk0,read-only=on,filename=IMAGE/root.erofs \
        -device virtio-blk-pci,drive=disk0,serial=famfs-root \
        -chardev file,id=console,path=/logs,,1/vm1.console -serial chardev:console \
        -qmp unix:/run/vm1/qmp.sock,server=on,wait=off \
        -device virtio-serial-pci,max_ports=11 \
        -chardev socket,id=agent0,server=on,wait=off,path=/run/vm1/agent.sock \
        -device virtserialport,nr=1,chardev=agent0,name=org.vhost-famfs.exec.0";
    let commands: String = (1..=8)
        .map(|port| {
            format!(
                " -chardev socket,id=agent{port},server=on,wait=off,path=/run/vm1/exec{port}.sock \
                 -device virtserialport,nr={},chardev=agent{port},name=org.vhost-famfs.exec.{port}",
                port + 1
            )
        })
        .collect();
    let wake = " -chardev socket,id=wake,server=on,wait=off,path=/run/vm1/wake.sock \
        -device virtserialport,nr=10,chardev=wake,name=org.vhost-famfs.wake";
    let expected = expected.to_owned() + &commands + wake;
    assert_eq!(text(&VmConfig::for_tests()), expected);
}

#[test]
fn a_back_end_comes_before_everything_with_a_number() {
    let mut config = VmConfig::for_tests();
    config.pools = vec![PoolDevice::Shmem { socket: "/run/pool.sock".into() }];
    let text = text(&config);
    let device = "-chardev socket,id=pool0,path=/run/pool.sock -device \
        vhost-user-test-device-pci,chardev=pool0,virtio-id=27 -blockdev";
    assert!(text.contains(device), "{text}");
    assert!(!text.contains("no-pool"), "{text}");
}

#[test]
fn a_file_gets_address_space_and_its_access() {
    let mut config = VmConfig::for_tests();
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
    let mut config = VmConfig::for_tests();
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
        "-chardev stdio,id=console,mux=on,signal=off,logfile=/logs,,1/vm1.console ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(text.ends_with(" -S"), "{text}");
}

#[test]
fn a_network_has_its_ports_and_the_guest_its_addresses() {
    let mut config = VmConfig::for_tests();
    assert!(!text(&config).contains("net"), "none unless somebody asks for it");
    config.network = Some(vec!["8080:80".parse().unwrap(), "0.0.0.0:53:53/udp".parse().unwrap()]);
    let text = text(&config);
    for part in [
        "-netdev user,id=network,ipv6=off,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:0.0.0.0:53-:53 ",
        "-device virtio-net-pci,netdev=network,romfile= ",
        "credential:famfs.network=10.0.2.15/24,,10.0.2.2,,10.0.2.3 ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn a_root_in_memory_is_mapped_read_only_at_its_slot() {
    let mut config = VmConfig::for_tests();
    let dir = tempfile::tempdir().unwrap();
    for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
        std::fs::write(dir.path().join(file), "").unwrap();
    }
    std::fs::File::create(dir.path().join("root-dax.erofs")).unwrap().set_len(64 * MIB).unwrap();
    config.system = Image::open(dir.path()).unwrap().into();
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
    let mut config = VmConfig::for_tests();
    config.root = Root::Initrd;
    let text = text(&config);
    assert!(text.contains("-initrd IMAGE/initrd-diskless.cpio "), "{text}");
    assert!(!text.contains("root=") && !text.contains("virtio-blk"), "{text}");
}

#[test]
fn an_own_guest_boots_from_a_disk_that_is_not_written() {
    let mut config = VmConfig::for_tests();
    let own = |format, start| {
        System::Own(OwnGuest { disk: "/my,disk".into(), format, start, writable: false })
    };
    config.system = own(DiskFormat::Qcow2, Start::Firmware(None));
    config.disks = vec![Disk { path: "/tests.img".into(), serial: "tests".into() }];
    let by_bios = text(&config);
    let disk = "-drive if=none,id=disk0,snapshot=on,discard=unmap,driver=qcow2,file.driver=file,\
        file.filename=/my,,disk -device virtio-blk-pci,drive=disk0,serial=famfs-root,bootindex=1,\
        werror=report -blockdev driver=file,node-name=disk1,read-only=on,";
    assert!(by_bios.contains(disk), "{by_bios}");
    assert!(by_bios.contains("credential:system.hostname=vm1 "), "{by_bios}");
    assert!(!by_bios.contains("hpet"), "such a guest may need that clock: {by_bios}");
    for word in ["-bios", "-kernel", "-initrd", "-append"] {
        assert!(!by_bios.contains(word), "{by_bios}");
    }
    config.system = own(DiskFormat::Raw, Start::Firmware(Some("/OVMF.fd".into())));
    let by_uefi = text(&config);
    assert!(by_uefi.contains(" -bios /OVMF.fd ") && by_uefi.contains("driver=raw,"), "{by_uefi}");
    assert!(!by_uefi.contains("-append"), "{by_uefi}");
    config.system = own(DiskFormat::Device, Start::Firmware(None));
    let device = "snapshot=on,discard=unmap,driver=raw,file.driver=host_device,file.filename=";
    assert!(text(&config).contains(device), "{}", text(&config));
    config.system = config.system.own().unwrap().on_device("/dev/ublkb3".as_ref()).into();
    let root = "-drive if=none,id=disk0,cache.direct=on,discard=unmap,driver=raw,\
        file.driver=host_device,file.filename=/dev/ublkb3 ";
    assert!(text(&config).contains(root), "{}", text(&config));
}

#[test]
fn an_own_kernel_has_the_users_parameters_last() {
    let mut config = VmConfig::for_tests();
    let mut start = |initrd: Option<&str>| {
        let start = Start::Kernel {
            kernel: "/vmlinuz".into(),
            initrd: initrd.map(Into::into),
            append: "root=/dev/vda1 console=tty0".into(),
        };
        let disk = "/disk".into();
        let format = DiskFormat::Raw;
        config.system = System::Own(OwnGuest { disk, format, start, writable: false });
        text(&config)
    };
    let with = start(Some("/initrd"));
    let expected = "-bios qboot.rom -kernel /vmlinuz -initrd /initrd -append 'console=ttyS0 \
        panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check cryptomgr.notests \
        root=/dev/vda1 console=tty0' -drive ";
    assert!(with.contains(expected), "{with}");
    assert!(!start(None).contains("-initrd"));
}

#[test]
fn kvm_needs_no_allowances() {
    let mut config = VmConfig::for_tests();
    config.accelerator = Accelerator::Kvm;
    let text = text(&config);
    assert!(text.contains("-accel kvm -cpu host "), "{text}");
    assert!(!text.contains("mitigations"), "{text}");
}

#[test]
fn an_old_qemu_keeps_its_keyboard_controller() {
    let mut config = VmConfig::for_tests();
    config.qemu_version = "QEMU emulator version 6.2.0".parse().unwrap();
    let text = text(&config);
    assert!(text.contains(
        "-machine q35,memory-backend=ram,sata=off,smbus=off,vmport=off,hpet=off -sandbox"
    ));
}

#[test]
fn memory_of_a_node_and_limits_are_told() {
    let mut config = VmConfig::for_tests();
    let before = config.confined_command_line().unwrap();
    assert!(!text(&config).contains("host-nodes"));
    config.numa = Some(3);
    config.limits.cpu_weight = Some(7);
    assert!(text(&config).contains("id=ram,size=1024M,share=on,host-nodes=3,policy=bind "));
    let after = config.confined_command_line().unwrap();
    let limited = after.iter().position(|word| *word == before[0]).unwrap();
    assert_eq!(after[0], "systemd-run");
    assert_eq!(after[limited - 1], "--");
    assert!(after[..limited].contains(&"--property=CPUWeight=7".into()), "{after:?}");
    assert!(!text(&config).contains("CPUWeight"), "the group is not a matter of QEMU");
}

#[test]
fn without_confinement_there_is_no_word_of_it() {
    let mut config = VmConfig::for_tests();
    config.confinement = Confinement::None;
    assert!(!text(&config).contains("-sandbox"));
    assert_eq!(config.confined_command_line().unwrap(), config.command_line().unwrap());
}
