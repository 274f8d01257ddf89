// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::{emit as emit_for, *};
use crate::cluster::cluster_file;
use crate::cluster::host::Host;
use crate::cluster::plan::VmPlan;
use crate::pool::{self, CreateOptions};
use crate::vm::{DiskFormat, OwnGuest, Start};
use famfs::format::view::View;
use famfs::media::PoolFile;
use famfs::store::superblock::Superblock;
use famfs::sys::dax;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;
mod root_device;

/// A host whose programs are real files, so that systemd finds them.
fn plan(dir: &tempfile::TempDir, vms: &str) -> ClusterPlan {
    let there = || "/bin/true".into();
    let host =
        Host { program: there(), qemu: there(), ..Host::for_tests(dir.path(), "image, of 100%") };
    let file = dir.path().join("lab.toml");
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/file"), "x").unwrap();
    fs::write(&file, format!("[[import]]\nfrom = \"data\"\n{vms}")).unwrap();
    ClusterPlan::new(&cluster_file::read(&file).unwrap().spec, &host).unwrap()
}

const TWO: &str = "[[vm]]\nname = \"a\"\nargs = [\"-msg\", \"it's & <$HOME> %h\"]\n\
                   [[vm]]\nname = \"b\"\naccess = \"ro\"\n";

fn emit(plan: &ClusterPlan, form: Form<'_>) -> Result<Vec<Emitted>, EmitError> {
    emit_for(plan, form, &Register { state: "{\"name\":\"lab\"}".into(), mark: "MARK" })
}

fn only(files: Vec<Emitted>) -> String {
    assert_eq!(files.len(), 1);
    files.into_iter().next().unwrap().text
}

#[test]
fn the_script_is_one_for_a_shell() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let plan = plan(&dir, TWO);
    let text = only(emit(&plan, Form::Qemu).unwrap());
    assert!(text.contains("--loglen") && text.contains("/data/. / ||\n"), "{text}");
    let script = dir.path().join("lab.sh");
    fs::write(&script, &text).unwrap();
    let checked = Command::new("sh").arg("-n").arg(&script).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

/// How a shell expands a VM's command line in a script, on a host with or without KVM.
fn evaluated(text: &str, vm: &VmPlan, kvm: bool) -> String {
    let line = |begin: &str| text.lines().find(|line| line.starts_with(begin)).unwrap();
    let begin = vm.config.confinement.prefix()[0].display().to_string();
    let name = format!(" -name {} ", vm.name());
    let qemu = text.lines().find(|line| line.starts_with(&begin) && line.contains(&name)).unwrap();
    let qemu = qemu.strip_suffix(" < /dev/null &").unwrap();
    let decide = accelerator::decide(prepare::Lines::Many);
    assert!(text.contains(&decide) && line("if grep").contains(accelerator::HAS_KVM), "{text}");
    let decide = decide.replace(accelerator::HAS_KVM, if kvm { "true" } else { "false" });
    let script = format!("set -eu\n{decide}\nprintf '%s\\n' {qemu}");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_host_that_runs_the_script_decides_what_runs_the_guests() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut plan = plan(&dir, TWO);
    plan.vms[0].config.phys_bits = Some(46);
    plan.vms[1].config.kernel_args = vec!["mine=it's".into()];
    let mut own = plan.vms[0].clone();
    own.config.name = "own".into();
    let append = "root='/dev/vda1' quiet".into();
    let start = Start::Kernel { kernel: "/vmlinuz".into(), initrd: None, append };
    let disk = "/disk".into();
    own.config.system = OwnGuest { disk, format: DiskFormat::Raw, start, writable: false }.into();
    plan.vms.push(own);
    for emitting in [Accelerator::Kvm, Accelerator::Tcg] {
        plan.vms.iter_mut().for_each(|vm| vm.config.accelerator = emitting);
        let text = only(emit(&plan, Form::Qemu).unwrap());
        for (kvm, running) in [(true, Accelerator::Kvm), (false, Accelerator::Tcg)] {
            for vm in &plan.vms {
                let mut config = vm.config.clone();
                config.accelerator = running;
                let argv = config.confined_command_line().unwrap();
                let expected: String =
                    argv.iter().map(|word| format!("{}\n", word.display())).collect();
                assert_eq!(evaluated(&text, vm, kvm), expected);
            }
        }
    }
}

#[test]
fn no_form_depends_on_whether_the_emitting_host_has_kvm() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut plan = plan(&dir, TWO);
    for vm in &mut plan.vms {
        vm.config.system = Image::open(with_image(&dir)).unwrap().into();
    }
    for form in [Form::Qemu, Form::Systemd, Form::Libvirt, Form::CloudHypervisor(None)] {
        let [with, without] = [Accelerator::Kvm, Accelerator::Tcg].map(|accelerator| {
            plan.vms.iter_mut().for_each(|vm| vm.config.accelerator = accelerator);
            plan.accelerator = accelerator.to_string();
            emit(&plan, form).unwrap()
        });
        assert_eq!(with, without);
        let emulates = |file: &Emitted| file.text.lines().any(|line| line.contains("mitigations"));
        match form {
            Form::CloudHypervisor(_) => assert!(!with.iter().any(emulates), "it needs KVM"),
            Form::Libvirt => {
                for file in with.iter().filter(|file| file.name.ends_with(".xml")) {
                    let emulated = file.name.ends_with(".emulated.xml");
                    let document = roxmltree::Document::parse(&file.text).unwrap();
                    let kind = document.root_element().attribute("type");
                    assert_eq!(kind, Some(if emulated { "qemu" } else { "kvm" }));
                    assert_eq!(emulates(file), emulated, "{}", file.text);
                }
            }
            Form::Qemu | Form::Systemd => assert!(with.iter().any(emulates)),
        }
    }
}

#[test]
fn what_prepares_a_pool_refuses_one_that_others_can_change() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut plan = plan(&dir, TWO);
    let check = format!("vhost-famfs pool inspect --trusted {}", plan.pool.path.display());
    plan.program = "/bin/vhost-famfs".into();
    let forms = [Form::Qemu, Form::Systemd, Form::Libvirt];
    let text = |plan: &ClusterPlan, form| {
        emit(plan, form).unwrap().iter().map(ToString::to_string).collect::<String>()
    };
    for form in forms {
        let text = text(&plan, form);
        assert!(text.contains(&check), "{text}");
        assert!(!text.contains("--foreign-pool"), "{text}");
    }
    plan.pool.owners = pool::Owners::Any;
    for form in forms {
        let text = text(&plan, form);
        assert!(!text.contains("--trusted"), "{text}");
        let pool = plan.pool.path.display();
        for command in ["mkfs", "cp"] {
            let line = format!("/bin/famfs --pool {pool} --foreign-pool {command} ");
            assert!(text.contains(&line), "{text}");
        }
    }
}

#[test]
fn only_what_was_agreed_to_is_skipped() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut plan = plan(&dir, TWO);
    let text = |plan: &ClusterPlan| only(emit(plan, Form::Qemu).unwrap());
    assert!(!text(&plan).contains("--skip-unsupported"));
    plan.pool.imports[0].skip_unsupported = true;
    let skips = text(&plan);
    assert!(
        skips.contains("cp -r --skip-unsupported ") && skips.contains("/data/. / ||\n"),
        "{skips}"
    );
    plan.pool.imports[0].from = dir.path().join("lab.toml");
    let archive = text(&plan);
    assert!(archive.contains("import --skip-unsupported --input "), "{archive}");
}

/// Runs the script of a cluster with a VM that has a back-end. `device` is shell code for the
/// back-end; QEMU reports what it finds.
fn run_script(dir: &tempfile::TempDir, device: &str) -> Output {
    let program = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    };
    let host = Host {
        program: program(
            "vhost-famfs",
            &format!(
                "[ \"$1 $2\" != 'emitted start' ] || mkdir -p ${{0%/*}}/run/lab/a\n\
                 [ $1 != device ] || {{ {device}; }}"
            ),
        ),
        qemu: program("qemu", "[ -S ${0%/*}/run/lab/a.sock ] && echo a socket; : > ${0%/*}/ended"),
        ..Host::for_tests(dir.path(), "image")
    };
    program("famfs", "");
    let file = dir.path().join("lab.toml");
    fs::write(&file, "[pool]\nsize = \"16M\"\n[[vm]]\nname = \"a\"\n").unwrap();
    let plan = ClusterPlan::new(&cluster_file::read(&file).unwrap().spec, &host).unwrap();
    let text = only(emit(&plan, Form::Qemu).unwrap());
    Command::new("timeout").args(["120", "sh", "-c", &text]).output().unwrap()
}

#[test]
fn a_vm_is_started_when_its_back_end_listens() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let socket = dir.path().join("run/lab/a.sock");
    let output = thread::scope(|scope| {
        // Takes the place of the back-end, and starts late.
        let listener = scope.spawn(|| {
            while !socket.parent().unwrap().exists() {
                thread::sleep(Duration::from_millis(10));
            }
            thread::sleep(Duration::from_millis(300));
            UnixListener::bind(&socket).unwrap()
        });
        let output = run_script(&dir, "until [ -e ${0%/*}/ended ]; do sleep 0.1; done");
        drop(listener.join().unwrap());
        output
    });
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"a socket\n", "{output:?}");
}

#[test]
fn a_back_end_that_does_not_start_ends_the_script_with_its_words() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let output = run_script(&dir, "echo no pool >&2; exit 1");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]), "{output:?}");
    assert_eq!(output.stderr, b"no pool\n", "{output:?}");
}

#[test]
fn a_shell_reads_back_every_argument() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let plan = plan(&dir, TWO);
    let argv = plan.vms[0].config.command_line().unwrap();
    let line = crate::vm::shell_quoted(&argv);
    let shell = Command::new("sh").arg("-c").arg(format!("printf '%s\\n' {line}")).output();
    let expected: String = argv.iter().map(|word| format!("{}\n", word.display())).collect();
    assert_eq!(String::from_utf8(shell.unwrap().stdout).unwrap(), expected);
}

#[test]
fn domains_are_well_formed_and_hold_what_the_plan_does() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut plan = plan(&dir, TWO);
    plan.vms[1].config.phys_bits = Some(46);
    let files = emit(&plan, Form::Libvirt).unwrap();
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    let domains = ["lab-a.xml", "lab-a.emulated.xml", "lab-b.xml", "lab-b.emulated.xml"];
    assert_eq!(names, [&domains[..], &["lab-prepare.sh"]].concat());
    for (index, file) in files.iter().take(domains.len()).enumerate() {
        let (vm, emulated) = (&plan.vms[index / 2], index % 2 == 1);
        let printed = file.to_string();
        let document = roxmltree::Document::parse(&printed).unwrap();
        let root = document.root_element();
        let element = |name: &str| root.descendants().find(|node| node.has_tag_name(name));
        let child = |name: &str| element(name).and_then(|node| node.text()).unwrap_or_default();
        assert_eq!(child("name"), format!("lab-{}", vm.name()));
        let before = format!("sh lab-prepare.sh {}", vm.name());
        assert!(child("description").ends_with(&before), "{file}");
        assert_eq!(child("uuid"), vm.config.uuid.to_string());
        assert_eq!(child("memory"), (vm.config.memory >> 10).to_string());
        assert_eq!(
            child("kernel"),
            vm.config.system.appliance().unwrap().kernel().to_str().unwrap()
        );
        let cpus = if emulated { 1 } else { vm.config.cpus };
        assert_eq!(child("vcpu"), cpus.to_string(), "{file}");
        let off: Vec<_> = root.descendants().filter_map(|node| node.attribute("name")).collect();
        assert_eq!(emulated, off.contains(&"erms") && off.contains(&"fsrm"), "{file}");
        assert!(printed.contains("<timer name=\"hpet\" present=\"no\"/>"), "{file}");
        let bits = element("maxphysaddr").and_then(|node| node.attribute("bits"));
        assert_eq!(bits, (emulated && index == 3).then_some("46"), "{file}");
        let space = "http://libvirt.org/schemas/domain/qemu/1.0";
        let arguments: Vec<_> = root
            .descendants()
            .filter(|node| node.has_tag_name((space, "arg")))
            .filter_map(|node| node.attribute("value"))
            .collect();
        // libvirt takes the first slots for its own devices.
        let device =
            if vm.backend.is_some() { "vhost-user-test-device-pci," } else { "virtio-pmem-pci," };
        let device = arguments.iter().find(|word| word.starts_with(device)).unwrap();
        assert!(device.ends_with(",addr=0x10"), "{device}");
        let line = vm.config.command_line().unwrap();
        let has = |argument: &str| line.iter().any(|word| word == argument);
        let missing: Vec<_> = arguments
            .iter()
            .map(|word| word.strip_suffix(",addr=0x10").unwrap_or(word))
            .filter(|word| !word.starts_with("slots=") && !has(word))
            .collect();
        assert!(missing.is_empty(), "not of the plan: {missing:?}");
    }
}

#[test]
fn hyphens_in_names_are_kept_in_domains() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let plan = plan(&dir, "[[vm]]\nname = \"a--b\"\n[[vm]]\nname = \"a---b\"\n");
    let mut files = emit(&plan, Form::Libvirt).unwrap();
    files.pop();
    for (file, name) in files.iter().zip(["a--b", "a--b", "a---b", "a---b"]) {
        let printed = file.to_string();
        let document = roxmltree::Document::parse(&printed).unwrap();
        let mut nodes = document.descendants();
        let description = nodes.find(|node| node.has_tag_name("description")).unwrap();
        let command = format!(": sh lab-prepare.sh {name}");
        assert!(description.text().unwrap().ends_with(&command), "{printed}");
        assert!(printed.starts_with(&format!("<?file {}?>\n", file.name)), "{printed}");
    }
}

/// Runs the script that prepares domains, where `virsh --version` prints a version.
fn prepare_domains(dir: &tempfile::TempDir, text: &str, virsh: &str, vm: &str) -> Output {
    let script = dir.path().join("lab-prepare.sh");
    fs::write(&script, text).unwrap();
    let programs = dir.path().join("programs");
    fs::create_dir_all(&programs).unwrap();
    let program = programs.join("virsh");
    fs::write(&program, format!("#!/bin/sh\n{virsh}\n")).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("timeout");
    shell.args(["60", "sh"]).arg(&script).arg(vm).env("PATH", path).output().unwrap()
}

#[test]
fn domains_are_prepared_for_a_libvirt_that_knows_them() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut plan = plan(&dir, TWO);
    plan.pool.mkfs = None;
    plan.pool.imports.clear();
    let script = emit(&plan, Form::Libvirt).unwrap().pop().unwrap().text;
    let words = |virsh: &str, vm: &str| {
        let output = prepare_domains(&dir, &script, virsh, vm);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, said) = words("exit 127", "b");
    assert!(code == Some(1) && said.contains("no virsh: install libvirt 7.1.0"), "{said}");
    let (code, _, said) = words("echo 6.9.0", "b");
    assert!(code == Some(1) && said.contains("libvirt 6.9.0 is too old"), "{said}");
    let (code, _, said) = words("echo 11.3.0", "c");
    assert!(code == Some(2) && said.contains("no VM c in cluster lab, which has a b"), "{said}");
    assert!(!plan.dir.exists(), "refused, but something was made");
    // The plan's program does nothing here; this VM has no back-end.
    let (code, files, said) = words("echo 11.3.0", "b");
    let file = dir.path().join("lab-b.xml");
    let emulated = file.with_extension("emulated.xml");
    let one = [file, emulated].map(|path| format!("{}\n", path.display()));
    assert!(code == Some(0) && one.contains(&files), "{code:?} {files} {said}");
    assert!(plan.vms[1].config.paths.runtime_dir.is_dir());
}

#[test]
fn only_a_back_end_that_waits_is_not_started_again() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut plan = plan(&dir, TWO);
    plan.pool.mkfs = None;
    plan.pool.imports.clear();
    let program = dir.path().join("back-end");
    fs::write(&program, "#!/bin/sh\necho no pool >&2\nexit 1\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let backend = plan.vms[0].backend.as_mut().unwrap();
    backend.program = program;
    let (socket, number) = (backend.socket.clone(), backend.socket.with_extension("pid"));
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let script = emit(&plan, Form::Libvirt).unwrap().pop().unwrap().text;
    let with = |process: Option<&str>| {
        let _ = fs::remove_file(&socket);
        drop(UnixListener::bind(&socket).unwrap());
        let _ = fs::remove_file(&number);
        if let Some(process) = process {
            fs::write(&number, format!("{process}\n")).unwrap();
        }
        let output = prepare_domains(&dir, &script, "echo 11.3.0", "a");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let this = std::process::id();
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let start = after_name.split(' ').nth(19).unwrap();
    assert_eq!(with(Some(&format!("{this} {start}"))), (Some(0), String::new()));
    // The socket remains of one that was killed; its number may be another process's by now.
    let reused = [format!("{this} 1"), this.to_string(), format!("0 {start}"), String::new()];
    for process in reused.iter().map(|process| Some(process.as_str())).chain([None]) {
        assert_eq!(with(process), (Some(1), "no pool\n".to_owned()), "{process:?}");
        assert!(!socket.exists() && !number.exists(), "{process:?}");
    }
}

#[test]
fn systemd_takes_the_units() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let plan = plan(&dir, TWO);
    let units = dir.path().join("units");
    fs::create_dir(&units).unwrap();
    let files = emit(&plan, Form::Systemd).unwrap();
    let paths: Vec<PathBuf> = files.iter().map(|file| units.join(&file.name)).collect();
    for (file, path) in files.iter().zip(&paths) {
        fs::write(path, &file.text).unwrap();
    }
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "lab-pool.service",
            "lab-a-backend.service",
            "lab-a.service",
            "lab-b.service",
            "lab.target"
        ]
    );
    // A back-end announces when it is ready, and its VM waits for that.
    assert!(files[1].text.contains("\nType=notify\n"), "{}", files[1].text);
    let needs = "Requires=lab-pool.service lab-a-backend.service\n\
                 After=lab-pool.service lab-a-backend.service\n";
    assert!(files[2].text.contains(needs), "{}", files[2].text);
    let mut verify = Command::new("systemd-analyze");
    let output = verify.args(["verify", "--man=no", "--recursive-errors=no"]).args(&paths).output();
    let output = output.expect("systemd-analyze checks the units; install the package systemd");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    assert!(!complaints.contains(&units.display().to_string()), "{complaints}");
}

#[test]
fn units_keep_what_systemd_would_replace() {
    let words = ["it's", "$HOME", "100%", "a\"b\\c", ""].map(Into::into);
    assert_eq!(systemd::words(&words).unwrap(), r#""it's" "$$HOME" "100%%" "a\"b\\c" """#);
    let error = systemd::words(&["a\nb".into()]).unwrap_err().to_string();
    assert!(error.contains("cannot be written into a systemd unit"), "{error}");
}

fn with_image(dir: &tempfile::TempDir) -> PathBuf {
    let image = dir.path().join("image");
    if !image.exists() {
        fs::create_dir(&image).unwrap();
        for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
            fs::write(image.join(file), "").unwrap();
        }
    }
    image
}

#[test]
fn only_qemu_gets_a_root_in_memory() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let image = with_image(&dir);
    fs::File::create(image.join("root-dax.erofs")).unwrap().set_len(2 << 20).unwrap();
    let plan = plan(&dir, &format!("[[vm]]\nimage = {image:?}\n"));
    assert_eq!(plan.vms[0].config.root, Root::Memory);
    let text =
        |form| emit(&plan, form).unwrap().iter().map(ToString::to_string).collect::<String>();
    for form in [Form::Qemu, Form::Systemd] {
        let text = text(form);
        assert!(text.contains("root-dax.erofs") && text.contains("/by-path/pci-"), "{text}");
    }
    for form in [Form::Libvirt, Form::CloudHypervisor(None)] {
        let text = text(form);
        assert!(text.contains("/root.erofs") && text.contains("/by-id/virtio-"), "{text}");
        assert!(!text.contains("root-dax.erofs") && !text.contains("maxmem"), "{text}");
    }
}

#[test]
fn a_slice_needs_qemu() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let plan = plan(
        &dir,
        "[[vm]]\nname = \"part\"\naccess = \"slice\"\noffset = \"128M\"\nlength = \"2M\"\n",
    );
    let error = emit(&plan, Form::CloudHypervisor(None)).unwrap_err();
    assert_eq!(error, EmitError::Slice("part".to_owned()));
}

#[test]
fn a_network_in_user_mode_needs_qemu() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let plan = plan(&dir, "[[vm]]\nnetwork = \"user\"\nports = [\"8080:80\"]\n");
    let error = emit(&plan, Form::CloudHypervisor(None)).unwrap_err();
    assert_eq!(error, EmitError::Network("vm".to_owned()));
    let forward = "hostfwd=tcp:127.0.0.1:8080-:80";
    for form in [Form::Qemu, Form::Libvirt, Form::Systemd] {
        let files = emit(&plan, form).unwrap();
        let text: String = files.into_iter().map(|file| file.text).collect();
        assert!(text.contains(forward), "{text}");
    }
    let domains = emit(&plan, Form::Libvirt).unwrap();
    let slot = "virtio-net-pci,netdev=network,romfile=,addr=0x1d";
    assert!(domains[0].text.contains(slot), "{}", domains[0].text);
}

#[test]
fn an_own_guest_needs_qemu() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut disk = [0; 512];
    disk[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::write(dir.path().join("disk"), disk).unwrap();
    let plan = plan(&dir, "[[vm]]\nimage = \"disk\"\n");
    for (form, name) in
        [(Form::CloudHypervisor(None), "cloud-hypervisor"), (Form::Libvirt, "libvirt")]
    {
        let expected = EmitError::OwnGuest { name: "vm".to_owned(), form: name };
        assert_eq!(emit(&plan, form).unwrap_err(), expected);
    }
    for form in [Form::Qemu, Form::Systemd] {
        let files = emit(&plan, form).unwrap();
        assert!(files.iter().any(|file| file.text.contains("snapshot=on,")), "{files:?}");
    }
}

#[test]
fn a_pool_that_exists_keeps_its_master() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let pool = dir.path().join("pool");
    let options = CreateOptions::new(pool.clone(), 64 << 20, View::Devdax);
    pool::create(&CreateOptions { mkfs: true, ..options }, &mut |_, _| ()).unwrap();
    let media = PoolFile::open(&pool, dax::Access::Read).unwrap();
    let master = Superblock::read(&media).unwrap().system_uuid.to_string();
    let with_image = with_image(&dir);
    let file = dir.path().join("lab.toml");
    let text = "[pool]\npath = \"pool\"\n[[vm]]\nname = \"a\"\n[[vm]]\nname = \"b\"\n";
    fs::write(&file, text).unwrap();
    let host = Host::for_tests(dir.path(), "image");
    assert_eq!(host.image.as_ref(), Some(&with_image));
    let plan = ClusterPlan::new(&cluster_file::read(&file).unwrap().spec, &host).unwrap();
    for (form, before) in [
        (Form::Qemu, "-uuid "),
        (Form::Systemd, "-uuid "),
        (Form::Libvirt, "<uuid>"),
        (Form::CloudHypervisor(None), "system_uuid="),
    ] {
        let all: String = emit(&plan, form).unwrap().iter().map(ToString::to_string).collect();
        // A VM has two domains.
        let times = if matches!(form, Form::Libvirt) { 2 } else { 1 };
        assert_eq!(all.matches(&format!("{before}{master}")).count(), times, "{all}");
        assert!(!all.contains("mkfs") && !all.contains("pool create"), "{all}");
    }
}

#[test]
fn the_page_about_vmms_names_the_options_that_are_emitted() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/using/vmms.md");
    let page = fs::read_to_string(page).unwrap();
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut plan = plan(&dir, &format!("{TWO}[[vm]]\nname = \"c\"\ntransport = \"pmem\"\n"));
    for vm in &mut plan.vms {
        vm.config.system = Image::open(with_image(&dir)).unwrap().into();
    }
    let pool = plan.pool.path.display().to_string();
    let size = format!("{}M", plan.vms[0].pool_bytes >> 20);
    // The texts between backticks in the first row of a VMM.
    let row = |vmm: &str| -> Vec<String> {
        let row = page.lines().find(|line| line.starts_with(&format!("| {vmm}"))).unwrap();
        let texts = row.split('`').skip(1).step_by(2);
        texts.map(|text| text.replace("POOL", &pool).replace("SIZE", &size)).collect()
    };
    let all = |form| emit(&plan, form).unwrap().iter().map(ToString::to_string).collect::<String>();
    let (qemu, libvirt) = (all(Form::Qemu), all(Form::Libvirt));
    let (old, new) = (row("older QEMU"), row("QEMU 11.1"));
    let readonly = old[0].replace("share=on", &format!("{},{}", old[3], old[2]));
    for option in [&new[0], &old[0], &old[1], &readonly] {
        assert!(qemu.contains(option), "{option}: {qemu}");
    }
    let device = format!("{},{}", new[0], row("libvirt")[1]);
    assert!(libvirt.contains(&device), "{device}: {libvirt}");
    let cloud_hypervisor = all(Form::CloudHypervisor(None));
    for option in row("cloud-hypervisor") {
        assert!(cloud_hypervisor.contains(&option), "{option}: {cloud_hypervisor}");
    }
    assert!(!row("Firecracker").is_empty() && !row("crosvm").is_empty());
}

#[path = "cloud_hypervisor_tests.rs"]
mod cloud_hypervisor_tests;
