// SPDX-License-Identifier: Apache-2.0 OR MIT
use std::fs;

use famfs::media::PoolFile;
use famfs::store::superblock::Superblock;
use famfs::sys::dax;
use protocol::credentials::{NO_POOL, NOEXEC};

use super::*;
use crate::cluster::cluster_file;
use crate::pool;
use crate::vm::Root;

/// A host that has everything, in a directory in memory.
struct Place {
    dir: tempfile::TempDir,
    host: Host,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let host = Host::for_tests(dir.path(), "image");
        Self { dir, host }
    }

    fn plan(&self, text: &str) -> Result<ClusterPlan, PlanError> {
        let file = self.dir.path().join("lab.toml");
        fs::write(&file, text).unwrap();
        let plan = ClusterPlan::new(&cluster_file::read(&file).unwrap().spec, &self.host);
        assert!(!self.host.runtime.exists(), "planning creates nothing");
        plan
    }

    fn refusal(&self, text: &str) -> String {
        let error = self.plan(text).expect_err(text);
        std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    }

    fn make_pool(&self, name: &str, mkfs: bool) -> PathBuf {
        let path = self.dir.path().join(name);
        let options =
            CreateOptions { mkfs, ..CreateOptions::new(path.clone(), 64 << 20, View::Raw) };
        pool::create(&options, &mut |_, _| ()).unwrap();
        path
    }
}

#[test]
fn the_best_transport_is_taken() {
    let place = Place::new();
    let plan = place
        .plan("[[vm]]\nname = \"a\"\n[[vm]]\nname = \"b\"\naccess = \"ro\"\n[[vm]]\nname = \"c\"\naccess = \"slice\"\noffset = \"128M\"\nlength = \"2M\"\n")
        .unwrap();
    let [a, b, c] = &plan.vms[..] else { panic!("{plan:?}") };
    assert_eq!((a.transport, a.master, a.mount), (Transport::Shmem, true, true));
    assert_eq!((b.transport, b.master, b.mount), (Transport::Pmem, false, true));
    assert_eq!((c.transport, c.master, c.mount), (Transport::Shmem, false, false));
    assert_eq!(c.backend.as_ref().unwrap().part, Some((128 << 20, 2 << 20)));
    assert!(b.backend.is_none() && c.config.credentials.contains_key(NO_POOL));
    let command = c.backend.as_ref().unwrap().command_line();
    let run = place.host.runtime.join("lab").display().to_string();
    let expected = format!(
        "vhost-famfs device --pool {} --offset 134217728 --length 2097152 --socket-path {run}/c.sock",
        plan.pool.path.display()
    );
    assert_eq!(crate::vm::shell_quoted(&command), expected);
    let text = plan.to_string();
    assert!(text.contains("b                ro     pmem      yes"), "{text}");
}

#[test]
fn the_master_is_the_first_writer_or_the_one_that_is_named() {
    let place = Place::new();
    let vms = "[[vm]]\nname = \"a\"\naccess = \"ro\"\n[[vm]]\nname = \"b\"\n[[vm]]\nname = \"c\"\n";
    for (asked, master) in [
        ("", Some("b")),
        ("master = \"b\"\n", Some("b")),
        ("master = \"c\"\n", Some("c")),
        ("master = \"host\"\n", None),
    ] {
        let plan = place.plan(&format!("{asked}{vms}")).unwrap();
        let system = plan.pool.mkfs.unwrap().system;
        for vm in &plan.vms {
            let is_master = master == Some(vm.name());
            assert_eq!((vm.master, vm.config.uuid == system), (is_master, is_master), "{asked}");
        }
        assert!(!system.is_nil(), "the host's commands have no system UUID");
        let text = plan.to_string();
        let told = format!("master:       {}", master.unwrap_or("none of these VMs; the host"));
        assert!(text.contains(&told), "{text}");
    }
    for (asked, why) in [
        ("a", "this VM has access ro; only one with rw can write"),
        ("d", "no VM has this name; use \"host\", or one of a, b, c"),
    ] {
        let refusal = place.refusal(&format!("master = {asked:?}\n{vms}"));
        assert_eq!(refusal, format!("master {asked:?}: {why}"));
    }
}

#[test]
fn a_guest_is_told_to_run_no_programs_of_the_pool() {
    let plan = Place::new().plan("[[vm]]\nname = \"a\"\n[[vm]]\nname = \"b\"\nnoexec = true\n");
    let told: Vec<_> =
        plan.unwrap().vms.iter().map(|vm| vm.config.credentials.contains_key(NOEXEC)).collect();
    assert_eq!(told, [false, true]);
}

#[test]
fn a_qemu_without_shared_memory_maps_by_itself() {
    let mut place = Place::new();
    place.host.qemu_version = "QEMU emulator version 9.2.0".parse().unwrap();
    assert_eq!(place.plan("[[vm]]\n").unwrap().vms[0].transport, Transport::Pmem);
    let refusal = place.refusal("[[vm]]\ntransport = \"shmem\"\n");
    assert!(refusal.contains("qemu is QEMU 9.2, but a back-end needs 11.1"), "{refusal}");
}

#[test]
fn the_root_is_shared_memory_where_that_works() {
    let mut place = Place::new();
    let root = |place: &Place, asked: &str| {
        place.plan(&format!("[[vm]]\n{asked}\n")).unwrap().vms[0].config.root
    };
    assert_eq!(root(&place, ""), Root::Disk);
    let refusal = place.refusal("[[vm]]\nroot = \"memory\"\n");
    assert!(refusal.contains("root-dax.erofs is missing; install the package"), "{refusal}");
    let file = place.host.image.as_ref().unwrap().join("root-dax.erofs");
    fs::File::create(file).unwrap().set_len(2 << 20).unwrap();
    assert_eq!(root(&place, ""), Root::Memory);
    assert_eq!(root(&place, "root = \"disk\""), Root::Disk);
    let text = place.plan("[[vm]]\n").unwrap().to_string();
    assert!(text.contains("vm               rw     shmem     yes   memory"), "{text}");
    place.host.qemu_version = "QEMU emulator version 8.1.0".parse().unwrap();
    assert_eq!(root(&place, ""), Root::Disk);
    let refusal = place.refusal("[[vm]]\nroot = \"memory\"\n");
    assert!(
        refusal.contains("qemu is QEMU 8.1, but root = \"memory\" needs 8.2 or newer"),
        "{refusal}"
    );
}

#[test]
fn the_pool_is_as_large_as_the_imports_need() {
    let place = Place::new();
    let data = place.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), vec![1; 11 << 20]).unwrap();
    let plan = place.plan("[[import]]\nfrom = \"data\"\n[[vm]]\n").unwrap();
    assert_eq!(plan.pool.needs.need.data(), (10 << 20) + 2 * (2 << 20));
    assert!(plan.pool.size >= 256 << 20 && plan.pool.ours && plan.pool.create.is_some());
    assert_eq!(plan.pool.mkfs.unwrap().system, plan.vms[0].config.uuid);
    let refusal = place.refusal("[pool]\nsize = \"16M\"\n[[import]]\nfrom = \"data\"\n[[vm]]\n");
    assert!(
        refusal.contains("16 MiB is too small for the imports, which need 20 MiB"),
        "{refusal}"
    );
}

/// Like a cache of models: a blob with a long name, and a link to it; and two pipes.
#[test]
fn what_would_be_missing_in_the_pool_is_refused_and_listed() {
    let place = Place::new();
    let data = place.dir.path().join("data");
    let long = "a".repeat(80);
    fs::create_dir_all(data.join("blobs")).unwrap();
    fs::write(data.join("blobs").join(&long), "model").unwrap();
    fs::write(data.join("main"), "main").unwrap();
    std::os::unix::fs::symlink(format!("blobs/{long}"), data.join("model")).unwrap();
    for pipe in [data.join("pipe"), data.join("blobs/pipe")] {
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }
    let tar = |args: &[&str]| {
        let mut tar = std::process::Command::new("tar");
        tar.current_dir(place.dir.path()).args(args).args(["-C", "data", "."]);
        assert!(tar.status().unwrap().success(), "{args:?}");
    };
    tar(&["-cf", "data.tar"]);
    tar(&["-czf", "data.tgz"]);
    for from in ["data", "data.tar", "data.tgz"] {
        let text = |more: &str| format!("[[import]]\nfrom = {from:?}\n{more}\n[[vm]]\n");
        let plan = place.plan(&text("")).unwrap();
        let message = plan.pool.refuse_left_out().unwrap_err().to_string();
        let counts = "2 not copied: 2 named pipes";
        assert!(message.contains(counts) && message.contains("skip-unsupported"), "{message}");
        assert!(message.contains("blobs/pipe"), "{message}");
        assert!(plan.to_string().contains(counts) && plan.to_string().contains("pipe"), "{plan}");
        let plan = place.plan(&text("skip-unsupported = true")).unwrap();
        plan.pool.refuse_left_out().unwrap();
        assert!(plan.to_string().contains(counts), "{plan}");
        assert_eq!(plan.pool.needs.names, 4);
    }
}

#[test]
fn clusters_of_one_name_in_two_runtime_directories_have_two_pools() {
    let mut place = Place::new();
    let pool = |place: &Place| place.plan("[pool]\nsize = \"16M\"\n[[vm]]\n").unwrap().pool.path;
    let first = pool(&place);
    assert_eq!(pool(&place), first, "a pool that was kept is found again");
    place.host.runtime = place.dir.path().join("another");
    assert_ne!(pool(&place), first);
}

#[test]
fn a_users_pool_is_taken_as_it_is() {
    let place = Place::new();
    let path = place.make_pool("mine", true);
    let plan = place.plan("[pool]\npath = \"mine\"\n[[vm]]\n").unwrap();
    assert!(plan.pool.create.is_none() && plan.pool.mkfs.is_none() && !plan.pool.ours);
    assert_eq!((plan.pool.size, plan.pool.view), (64 << 20, View::Raw));
    let media = PoolFile::open(&path, dax::Access::Read).unwrap();
    let system = Superblock::read(&media).unwrap().system_uuid;
    assert_eq!(plan.vms[0].config.uuid, system, "the first VM is the master");
    for (asked, found) in [
        ("size = \"32M\"", "its size is 64 MiB, but the cluster asks for 32 MiB"),
        ("view = \"devdax\"", "its view is raw, but the cluster asks for devdax"),
        ("kind = \"file\"", "its kind is tmpfs, but the cluster asks for file"),
    ] {
        let refusal = place.refusal(&format!("[pool]\npath = \"mine\"\n{asked}\n[[vm]]\n"));
        assert!(refusal.contains(found), "{refusal}");
    }
}

#[test]
fn an_empty_pool_gets_a_file_system_only_if_one_is_needed() {
    let place = Place::new();
    place.make_pool("empty", false);
    let mkfs = |vm: &str| {
        let text = format!("[pool]\npath = \"empty\"\n[[vm]]\n{vm}\n");
        place.plan(&text).unwrap().pool.mkfs.is_some()
    };
    assert!(mkfs(""));
    assert!(!mkfs("mount = false"));
}

#[test]
fn what_cannot_work_is_refused_with_the_way_out() {
    let mut place = Place::new();
    let table = [
        ("[pool]\npath = \"new\"\n[[vm]]\n", "set one (size = \"1G\""),
        ("[pool]\npath = \"new\"\nkind = \"file\"\nsize = \"1G\"\n[[vm]]\n", "asks for file"),
        ("[[import]]\nfrom = \"none\"\n[[vm]]\n", "cannot import"),
        (
            "[[vm]]\nimage = \"none\"\n",
            "disk image of a guest of your own (a file or a block device), found nothing",
        ),
        ("[[vm]]\nimage = \".\"\n", "vmlinux is missing"),
        ("[[vm]]\nkernel = \"none\"\n", "no kernel"),
        ("[pool]\nsize = \"64G\"\n[[vm]]\nmemory = \"1G\"\n", "give it at least 1280 MiB"),
        ("[[vm]]\nmemory = \"300000K\"\n", "a multiple of 2 MiB"),
        (
            "[[vm]]\n[[vm]]\nname = \"part\"\naccess = \"slice\"\nlength = \"2M\"\n",
            "VM part: its slice begins at 0 bytes, which leaves too little room",
        ),
        (
            "[pool]\nsize = \"16M\"\n[[vm]]\naccess = \"slice\"\nlength = \"32M\"\n",
            "do not fit into the pool of 16 MiB",
        ),
    ];
    for (text, expected) in table {
        let refusal = place.refusal(text);
        assert!(refusal.contains(expected), "{text}\n{refusal}");
    }
    place.host.image = None;
    assert!(place.refusal("[[vm]]\n").contains("no appliance image"));
}

#[test]
fn slices_and_files_lie_apart() {
    let place = Place::new();
    let part = |pool: &str, offset: u64| {
        format!(
            "{pool}[[vm]]\nname = \"a\"\n[[vm]]\nname = \"part\"\naccess = \"slice\"\n\
             offset = \"{offset}M\"\nlength = \"2M\"\n"
        )
    };
    // A new file system ends where the first slice begins.
    let plan = place.plan(&part("", 128)).unwrap();
    assert_eq!(
        plan.pool.mkfs.unwrap().size,
        Some(126 << 20),
        "the info area does not belong to it"
    );
    // An existing file system has the whole pool.
    let path = place.make_pool("whole", true);
    let pool = format!("[pool]\npath = \"{}\"\n", path.display());
    let refusal = place.refusal(&part(&pool, 32));
    assert!(refusal.contains("takes everything up to 64 MiB, so"), "{refusal}");
    // Without a file system, nothing overlaps.
    let path = place.make_pool("none", false);
    let pool = format!("[pool]\npath = \"{}\"\n", path.display());
    let text = part(&pool, 0).replace("name = \"a\"\n", "name = \"a\"\nmount = false\n");
    assert_eq!(place.plan(&text).unwrap().pool.mkfs, None);
}
