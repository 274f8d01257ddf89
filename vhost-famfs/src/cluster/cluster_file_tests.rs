// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::super::spec::Master;
use super::*;

fn spec(text: &str) -> Spec {
    let parsed = parse(text, Path::new("/etc/demo.toml"), &[]);
    parsed.unwrap_or_else(|fault| panic!("{}", fault.message)).0
}

/// The error for a text, as it is printed.
fn wrong(text: &str) -> String {
    let fault = parse(text, Path::new("/etc/demo.toml"), &[]).expect_err(text);
    place(text, fault).to_string()
}

#[test]
fn the_shortest_file_is_a_cluster() {
    let spec = spec("[[vm]]\n");
    assert_eq!((spec.name.as_str(), spec.vms.len()), ("demo", 1));
    assert_eq!(spec.vms[0], VmSpec::new("vm"));
    assert_eq!(spec.pool, PoolSpec::default());
}

#[test]
fn the_master_is_a_vm_or_the_host() {
    assert_eq!(spec("[[vm]]\n").master, None);
    let host = spec("master = \"host\"\n[[vm]]\n").master;
    assert_eq!(host, Some(Master::Host));
    let vm = spec("master = \"vm\"\n[[vm]]\n").master;
    assert_eq!(vm, Some(Master::Vm("vm".to_owned())));
    let wrong = wrong("master = \"no/name\"\n[[vm]]\n");
    assert!(wrong.starts_with("1:10: \"no/name\" is not a valid name"), "{wrong}");
}

#[test]
fn tables_with_a_count_are_scaled() {
    let text = "[[vm]]\nname = \"writer\"\n[[vm]]\nname = \"r\"\ncount = 2\n";
    let scaled = |name: &str, count| {
        let scale = Scale { name: name.to_owned(), count };
        let parsed = parse(text, Path::new("/etc/demo.toml"), &[scale]);
        parsed.map(|(spec, _)| spec.vms.into_iter().map(|vm| vm.name).collect::<Vec<_>>())
    };
    assert_eq!(scaled("r", 3).unwrap(), ["writer", "r1", "r2", "r3"]);
    assert_eq!(scaled("r", 0).unwrap(), ["writer"]);
    let fault = scaled("writer", 2).unwrap_err();
    assert_eq!(fault.message, "--scale writer=2: no [[vm]] with this name has a count");
    assert_eq!((fault.hint.as_deref(), fault.at), (Some("tables with a count: r"), 0..6));
    assert_eq!(scaled("x", 1).unwrap_err().at, 0..0);
    let fault = scaled("r", 64).unwrap_err();
    assert!(fault.message.contains("65 VMs, but a cluster can have at most 64"), "{fault:?}");
}

#[test]
fn what_vms_depend_on_is_resolved_and_checked() {
    let table = |name: &str, more: &str| format!("[[vm]]\nname = \"{name}\"\n{more}");
    let after = |name: &str| format!("depends-on = [\"{name}\"]\n");
    let parsed = |text: &str| parse(text, Path::new("/etc/demo.toml"), &[]);
    let text = table("a", &after("r")) + &table("r", "count = 2\n") + &table("b", &after("r2"));
    let (spec, _) = parsed(&text).unwrap();
    let depends = |index: usize| spec.vms[index].depends_on.join(" ");
    assert_eq!([depends(0), depends(1), depends(3)], ["r1 r2", "", "r2"]);
    let fault = parsed(&(table("a", &after("x")) + &table("b", ""))).unwrap_err();
    assert_eq!(fault.message, "no VM has the name \"x\"");
    assert_eq!(fault.hint.as_deref(), Some("the VMs of this file are a, b"));
    let text = table("a", &after("b")) + &table("b", &after("c")) + &table("c", &after("b"));
    let fault = parsed(&text).unwrap_err();
    assert_eq!(fault.message, "VMs wait for each other: b -> c -> b");
    let fault = parsed(&table("r", &("count = 2\n".to_owned() + &after("r")))).unwrap_err();
    assert_eq!(fault.message, "VMs wait for each other: r1 -> r1");
    // A table is known by its number, not by how the names of its VMs begin.
    let two = |more: &str| "count = 2\n".to_owned() + more;
    let text = table("n", &two("")) + &table("n1", &two(&after("n")));
    let (spec, _) = parsed(&text).unwrap();
    assert_eq!(spec.vms[2].depends_on, ["n1", "n2"]);
    // The cluster's own files are beside those of its VMs.
    let fault = parsed(&table("state", "")).unwrap_err();
    assert!(fault.message.contains("not a valid name of a VM"), "{fault:?}");
}

#[test]
fn every_key_is_read() {
    let spec = spec(
        r#"
        name = "lab"
        restart = "on-failure"
        [pool]
        path = "pools/a"
        kind = "hugetlbfs"
        size = "8G"
        view = "raw"
        numa = 1
        prefault = true
        foreign = true
        [[import]]
        from = "data"
        to = "/models/big"
        [[import]]
        from = "/x.tar"
        [[vm]]
        name = "writer"
        memory = "2G"
        cpus = 4
        cpus-allowed = "0-2,5"
        cpu-weight = 50
        memory-max = "3G"
        numa = 1
        transport = "pmem"
        image = "image"
        root = "ublk"
        overlay = "writer.overlay"
        kernel = "/boot/vmlinux"
        initrd = "initrd"
        append = "root=/dev/vda1"
        firmware = "OVMF.fd"
        mount = false
        noexec = true
        shell = true
        restart = "no"
        depends-on = ["reader"]
        health = "test -e /run/well"
        network = "user"
        ports = ["8080:80"]
        args = ["-device", "virtio-rng-pci"]
        [[vm]]
        name = "reader"
        count = 2
        access = "ro"
        [[vm]]
        name = "part"
        access = "slice"
        offset = "1G"
        length = "512M"
        "#,
    );
    assert_eq!(spec.name, "lab");
    let pool = PoolSpec {
        path: Some("/etc/pools/a".into()),
        kind: Some(PoolKind::Hugetlbfs),
        size: Some(8 << 30),
        view: Some(View::Raw),
        numa: Some(1),
        prefault: true,
        foreign: true,
    };
    assert_eq!(spec.pool, pool);
    assert_eq!(spec.imports[0].from, Path::new("/etc/data"));
    assert_eq!(spec.imports[0].to.as_ref().unwrap().to_string(), "models/big");
    assert_eq!((spec.imports[1].from.to_str(), &spec.imports[1].to), (Some("/x.tar"), &None));
    let names: Vec<_> = spec.vms.iter().map(|vm| vm.name.as_str()).collect();
    assert_eq!(names, ["writer", "reader1", "reader2", "part"]);
    let writer = VmSpec {
        name: "writer".into(),
        access: Access::ReadWrite,
        transport: Some(Transport::Pmem),
        memory: Some(2 << 30),
        cpus: 4,
        cpus_allowed: Some("0-2,5".parse().unwrap()),
        limits: Limits { cpu_weight: Some(50), memory_max: Some(3 << 30) },
        numa: Some(1),
        image: Some("/etc/image".into()),
        root: Some(Root::Ublk),
        overlay: Some("/etc/writer.overlay".into()),
        kernel: Some("/boot/vmlinux".into()),
        initrd: Some("/etc/initrd".into()),
        append: Some("root=/dev/vda1".into()),
        firmware: Some("/etc/OVMF.fd".into()),
        mount: Some(false),
        noexec: true,
        shell: true,
        confine: true,
        restart: Restart::No,
        depends_on: vec!["reader1".into(), "reader2".into()],
        health: Some("test -e /run/well".into()),
        network: Network::User,
        ports: vec!["8080:80".parse().unwrap()],
        args: vec!["-device".into(), "virtio-rng-pci".into()],
    };
    assert_eq!(spec.vms[0], writer);
    assert_eq!(spec.vms[2].access, Access::ReadOnly);
    assert_eq!(spec.vms[2].restart, Restart::OnFailure, "the default of the file");
    assert_eq!(spec.vms[3].access, Access::Slice { offset: 1 << 30, length: 512 << 20 });
}

#[test]
fn a_fault_is_shown_where_it_is() {
    let text = "[pool]\n  size = \"8GB\"\n[[vm]]\n";
    let expected = "2:10: size \"8GB\": unknown unit \"GB\": expected k, m, g or t, or the same \
                    with iB (powers of 1024)\n    size = \"8GB\"\n           ^";
    assert_eq!(wrong(text), expected);
    let text = "[[vm]]\naccess = \"slice\"\n";
    let expected = "2:10: access is \"slice\", but length is missing\n  access = \"slice\"\n  \
                    \u{20}        ^\nhint: add length = \"1G\", and offset if the slice does not \
                    begin at 0";
    assert_eq!(wrong(text), expected);
}

#[test]
fn what_is_not_understood_is_refused() {
    let table = [
        ("", "this file has no VM"),
        ("[[vm]]\nmemroy = \"1G\"\n", "2:1: unknown key `memroy`, expected one of `name`"),
        ("[[vm]]\nmemory = 1024\n", "expected a size as text"),
        (
            "[[vm]]\nroot = \"ram\"\n",
            "unknown value `ram`, expected one of `memory`, `disk`, `ublk`",
        ),
        ("[[vm]]\nmemory = \"1G\n", "2:"),
        ("[[vm]]\nname = \"../etc\"\n", "2:8: \"../etc\" is not a valid name"),
        ("[[vm]]\nname = \"a\"\n[[vm]]\nname = \"a\"\n", "3:1: two VMs have the name \"a\""),
        (
            "[[vm]]\nname = \"a1\"\n[[vm]]\nname = \"a\"\ncount = 2\n",
            "two VMs have the name \"a1\"",
        ),
        ("[[vm]]\ncount = 0\n", "2:9: count is 0"),
        ("[[vm]]\ncount = 64\n[[vm]]\n", "3:1: 65 VMs, but a cluster can have at most 64"),
        ("[[vm]]\ncpus = 0\n", "2:8: cpus is 0"),
        ("[[vm]]\nhealth = \" \"\n", "2:10: health is empty"),
        ("[[vm]]\nhealth = \"a\\u0000\"\n", "2:10: health has a NUL character"),
        ("[[vm]]\nnetwork = \"tap\"\n", "2:11: unknown value `tap`, expected `none` or `user`"),
        ("[[vm]]\nports = [\"1:2\"]\n", "2:10: ports of a VM without a network"),
        (
            "[[vm]]\nnetwork = \"user\"\nports = [\"80\"]\n",
            "3:9: \"80\" is not a port to forward: write HOST-PORT:GUEST-PORT",
        ),
        (
            "[[vm]]\ncount = 2\nnetwork = \"user\"\nports = [\"80:80\"]\n",
            "4:10: port 127.0.0.1:80 of the host is forwarded to vm1 and vm2",
        ),
        ("[[vm]]\noverlay = \"o\"\n", "2:11: an overlay of another root"),
        ("[[vm]]\nroot = \"ublk\"\nimage = \"o\"\noverlay = \"o\"\n", "overlay is the image"),
        (
            "[[vm]]\ncount = 2\nroot = \"ublk\"\noverlay = \"o\"\n",
            "4:11: /etc/o is the overlay of vm1 and vm2",
        ),
        ("[[vm]]\naccess = \"x\"\n", "2:10: unknown value `x`, expected one of `rw`, `ro`"),
        ("[[vm]]\nlength = \"1G\"\n", "2:10: offset and length are only for slices"),
        (
            "[[vm]]\naccess = \"ro\"\ntransport = \"shmem\"\n",
            "3:13: access \"ro\" is not possible with transport \"shmem\"",
        ),
        (
            "[[vm]]\naccess = \"slice\"\nlength = \"2M\"\ntransport = \"pmem\"\n",
            "4:13: access \"slice\" is not possible with transport \"pmem\"",
        ),
        ("[pool]\nkind = \"file\"\n[[vm]]\n", "2:8: a pool of this kind needs a path"),
        ("[pool]\nkind = \"memfd\"\n[[vm]]\n", "2:8: unknown value `memfd`"),
        ("[[import]]\nto = \"/\"\n[[vm]]\n", "1:1: this import has no `from`"),
        ("[vm]\nname = \"a\"\n", "1:2: [vm] is a single table, expected [[vm]]"),
        ("[[vm]]\n[import]\nfrom = \"x\"\n", "2:2: [import] is a single table"),
        ("[[pool]]\nsize = \"1G\"\n[[vm]]\n", "1:3: [[pool]] is a list, expected [pool]"),
        ("[[vm]]\n[[disk]]\n", "2:3: unknown table or key \"disk\""),
        ("nmae = \"x\"\n[[vm]]\n", "1:1: unknown table or key \"nmae\""),
        ("[[import]]\nfrom = \"x\"\nto = \"/../etc\"\n[[vm]]\n", "3:6: path \"../etc\" leaves"),
        ("[[vm]]\nname = \"\u{e4}\"\ncpus = 0 # \u{e4}\n", "2:8: "),
    ];
    for (text, expected) in table {
        let found = wrong(text);
        assert!(found.contains(expected), "{text:?}\nfound    {found:?}\nexpected {expected:?}");
    }
}

#[test]
fn what_is_no_text_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| read(path).unwrap_err().to_string();
    assert!(error(dir.path()).contains("it is a directory"));
    let file = dir.path().join("a b.toml");
    assert!(error(&file).contains("cannot read"));
    fs::write(&file, b"\xff").unwrap();
    assert!(error(&file).contains("not UTF-8"));
    fs::write(&file, "[[vm]]\n").unwrap();
    let error = error(&file);
    assert!(error.contains("a b.toml:1:1: file name:"), "{error}");
    assert!(error.ends_with("hint: set a name for the cluster: name = \"demo\""), "{error}");
}

#[test]
fn what_only_the_host_can_judge_has_its_place_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lab.toml");
    let text = "[pool]\nsize = \"8M\"\n[[import]]\nfrom = \"x\"\n\
                [[vm]]\ncount = 2\n[[vm]]\nname = \"other\"\n  memory = \"1M\"\n";
    fs::write(&path, text).unwrap();
    let file = read(&path).unwrap();
    let cause = io::Error::other("this is wrong");
    let located = |subject: &Subject| file.locate(subject, &cause).unwrap().to_string();
    let table = [
        (Subject::Pool("size"), ":2:8: this is wrong\n  size = \"8M\"\n         ^"),
        (Subject::Pool("kind"), ":1:1: this is wrong\n  [pool]\n  ^"),
        (Subject::Import(dir.path().join("x")), ":4:8: this is wrong"),
        (Subject::Vm("vm2".into(), "memory"), ":5:1: this is wrong"),
        (Subject::Vm("other".into(), "memory"), ":9:12: this is wrong"),
    ];
    for (subject, expected) in table {
        let found = located(&subject);
        assert!(found.starts_with(&format!("{}{expected}", path.display())), "{found}");
    }
    assert!(file.locate(&Subject::Vm("vm9".into(), "memory"), &cause).is_none());
}
