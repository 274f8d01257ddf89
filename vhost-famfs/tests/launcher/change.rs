// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `up` of a cluster that runs: VMs come, go and change, and all others do not notice.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use famfs::system::process::Handle;
use libtest_mimic::Trial;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::host::Host;
use super::random::{Random, seed};
use super::schema::problem;
use super::trial;

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// How often to kill a command.
const KILLS: u32 = 20;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("up_again_without_a_change_does_nothing", nothing),
        trial("up_again_with_a_changed_file_adds_removes_and_changes_vms", changes),
        trial("up_again_starts_vms_that_do_not_run", ended),
        trial("up_again_scales_tables_with_a_count", scale),
        trial("up_again_refuses_what_cannot_change_and_touches_nothing", refusals),
        trial("up_again_does_not_touch_another_cluster_of_the_name", others),
        trial("up_again_leaves_the_others_alone_if_a_new_vm_fails", failed),
        trial("up_again_completes_one_that_was_killed", kills),
        trial("up_again_does_not_take_a_vm_for_up_that_another_process_starts", starting),
        trial("vms_start_on_the_processors_that_are_allowed", processors),
        trial("limits_that_cannot_be_kept_start_nothing", limits),
        trial("vms_start_after_those_that_they_depend_on_and_end_before", dependencies),
    ]
}

/// The head of a cluster file; its pool has no path.
const HEAD: &str = "[pool]\nsize = \"64M\"\n";

fn vm(name: &str, more: &str) -> String {
    format!("[[vm]]\nname = \"{name}\"\n{more}")
}

fn write(host: &Host, text: &str) -> String {
    let file = host.path().join("lab.toml");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// What `up` reports about a cluster file with this text.
fn up(host: &Host, text: &str, more: &[&str]) -> Value {
    let file = write(host, text);
    let words = ["up", &file, "--overcommit", "--json"];
    let report = host.json(&[&words, more].concat());
    let is_new = report.get("imported").is_some();
    assert_eq!(problem(if is_new { "up" } else { "up_change" }, &report), None);
    report
}

fn refused(host: &Host, words: &[&str]) -> String {
    let output = host.run(words);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    text(&output.stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What `ps` says, and its exit code.
fn ps(host: &Host) -> (Value, i32) {
    let Output { stdout, status, .. } = host.run(&["ps", "--json"]);
    let mut all: Value = serde_json::from_slice(&stdout).unwrap();
    (all["clusters"][0].take(), status.code().unwrap())
}

/// The VMs that `ps` shows: their names and the processes of their QEMUs.
fn vms(host: &Host) -> Vec<(String, u64)> {
    let (cluster, code) = ps(host);
    assert_eq!(code, 0, "{cluster}");
    let vms = cluster["vms"].as_array().unwrap().iter();
    vms.map(|vm| (vm["name"].as_str().unwrap().into(), vm["pid"].as_u64().unwrap())).collect()
}

fn actions(report: &Value) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let vms = report["vms"].as_array().unwrap().iter();
    vms.map(|vm| (word(&vm["name"]), word(&vm["action"]))).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, action)| ((*name).into(), (*action).into())).collect()
}

fn down(mut host: Host) {
    host.json(&["down", "lab", "--timeout", "1", "--json"]);
    host.assert_nothing_left("down");
    host.assert_bystander_unharmed();
}

fn nothing() {
    let host = Host::new();
    let file = HEAD.to_owned() + &vm("vm", "count = 2\n");
    let planned = up(&host, &file, &["--dry-run"]);
    assert_eq!(actions(&planned), pairs(&[("vm1", "start"), ("vm2", "start")]));
    assert_eq!(host.state("lab"), None, "that was a dry run");
    up(&host, &file, &[]);
    let before = (host.state("lab"), vms(&host));
    let report = up(&host, &file, &[]);
    assert_eq!(actions(&report), pairs(&[("vm1", "keep"), ("vm2", "keep")]));
    let file = host.path().join("lab.toml");
    let said = host.run(&["up", file.to_str().unwrap()]);
    assert_eq!(text(&said.stdout), "cluster lab runs as asked; nothing to do\n", "{said:?}");
    // Another QEMU of the host is no reason, unless the user names it.
    let other = host.command("qemu-slow", &["up", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(other.stdout, said.stdout, "{other:?}");
    assert_eq!((host.state("lab"), vms(&host)), before);
    let slow = host.path().join("qemu-slow");
    let words = ["up", file.to_str().unwrap(), "--dry-run", "--overcommit", "--qemu"];
    let named = host.run(&[&words[..], &[slow.to_str().unwrap()]].concat());
    assert!(text(&named.stdout).contains("vm1              restart  QEMU "), "{named:?}");
    // The same for an image.
    let image = host.path().join("other-image");
    fs::create_dir(&image).unwrap();
    for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
        fs::write(image.join(file), file).unwrap();
    }
    let words = ["up", file.to_str().unwrap(), "--dry-run", "--overcommit", "--image"];
    let named = host.run(&[&words[..], &[image.to_str().unwrap()]].concat());
    let expected = "vm1              restart  another image";
    assert!(text(&named.stdout).contains(expected), "{named:?}");
    down(host);
}

fn changes() {
    let host = Host::new();
    let first = vm("first", "");
    let old = [HEAD, &first, &vm("changed", "restart = \"on-failure\"\n"), &vm("old", "")].concat();
    up(&host, &old, &[]);
    let before = vms(&host);
    let uuid = ps(&host).0["vms"][1]["uuid"].clone();
    let more = "memory = \"512M\"\naccess = \"ro\"\n";
    let new = [HEAD, &vm("new", ""), &first, &vm("changed", more)].concat();
    let file = write(&host, &new);
    let state = host.state("lab");
    let planned = host.run(&["up", &file, "--overcommit", "--dry-run"]);
    let planned = text(&planned.stdout);
    for line in [
        "cluster:      lab, which runs\n",
        "new              start    new\n",
        "first            keep\n",
        "changed          restart  access rw -> ro, memory the default -> 512 MiB, restart \
         on-failure -> no\n",
        "old              stop     no longer asked for\n",
    ] {
        assert!(planned.contains(line), "{line:?} is not in {planned}");
    }
    assert_eq!((host.state("lab"), vms(&host)), (state, before.clone()), "that was a dry run");
    let report = up(&host, &new, &[]);
    let expected = [("new", "start"), ("first", "keep"), ("changed", "restart"), ("old", "stop")];
    assert_eq!(actions(&report), pairs(&expected));
    assert_eq!(report["vms"][2]["mounted"], true, "{report}");
    let now = vms(&host);
    let names: Vec<_> = now.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["new", "first", "changed"]);
    assert_eq!(now[1], before[0], "it was not touched");
    assert_ne!(now[2].1, before[1].1);
    let changed = &ps(&host).0["vms"][2];
    assert_eq!((&changed["access"], &changed["uuid"]), (&"ro".into(), &uuid));
    assert_eq!(changed["ram_bytes"], 512 << 20);
    // The first VM of the file did not become the master.
    assert_eq!(ps(&host).0["famfs"]["master_vm"], "first");
    let directory = fs::read_dir(host.clusters().join("lab")).unwrap();
    let left = directory.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("old"));
    assert_eq!(left.count(), 0, "the removed VM has left files");
    assert_eq!(host.processes().iter().filter(|(_, words)| words.contains("/old")).count(), 0);
    assert!(host.run(&["exec", "new", "--", "true"]).status.success());
    host.json(&["restart", "changed", "--json"]);
    assert_eq!(actions(&up(&host, &new, &[])).iter().filter(|vm| vm.1 == "keep").count(), 3);
    // What is imported later must be copied by hand.
    let import = format!("[[import]]\nfrom = \"{}\"\n", host.path().join("image").display());
    let report = up(&host, &(import + &new), &[]);
    assert_eq!(report["not_imported"], json!([host.path().join("image")]));
    down(host);
}

fn ended() {
    let host = Host::new();
    let file = [HEAD, &vm("killed", ""), &vm("stopped", ""), &vm("runs", "")].concat();
    up(&host, &file, &[]);
    let before = vms(&host);
    assert!(Handle::open(u32::try_from(before[0].1).unwrap()).unwrap().kill());
    host.json(&["stop", "stopped", "--json"]);
    let report = up(&host, &file, &[]);
    let expected = [("killed", "start"), ("stopped", "start"), ("runs", "keep")];
    assert_eq!(actions(&report), pairs(&expected));
    assert_eq!(report["vms"][0]["why"], json!(["it has ended"]));
    assert_eq!(report["vms"][1]["why"], json!(["it was stopped"]));
    assert_eq!(vms(&host)[2], before[2]);
    // Together with other settings.
    host.json(&["stop", "stopped", "--json"]);
    let file = file.replace("\"stopped\"\n", "\"stopped\"\ncpus = 3\n");
    let report = up(&host, &file, &[]);
    assert_eq!(report["vms"][1]["why"], json!(["it was stopped", "cpus 2 -> 3"]));
    let words = host.processes().into_iter().find(|(_, words)| words.contains("-name stopped "));
    assert!(words.unwrap().1.contains("-smp 3"));
    down(host);
}

/// A `start` that stands still while it waits for its guest.
fn starting() {
    let host = Host::new();
    let file = [HEAD, &vm("a", "")].concat();
    up(&host, &file, &[]);
    let same = write(&host, &file);
    let deadline = Instant::now() + LIMIT;
    let mut start = loop {
        host.json(&["stop", "a", "--timeout", "1", "--json"]);
        let mut start = host.command("qemu-slow", &["start", "a"]).spawn().unwrap();
        while host.state("lab").unwrap()["vms"][0]["starting"].is_null() {
            assert!(Instant::now() < deadline, "start does not begin");
        }
        let pid = Pid::from_child(&start);
        kill_process(pid, Signal::STOP).unwrap();
        // On a busy machine it may have finished before, or stand still while others wait for it.
        let directory = File::open(host.clusters().join("lab")).unwrap();
        let is_free = flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_free && !host.state("lab").unwrap()["vms"][0]["starting"].is_null() {
            break start;
        }
        kill_process(pid, Signal::CONT).unwrap();
        start.wait().unwrap();
    };
    let nothing = text(&host.run(&["up", &same, "--overcommit"]).stdout);
    let expected = format!("a is not up: process {} is starting it", start.id());
    assert!(nothing.contains(&expected) && nothing.contains("nothing else to do"), "{nothing}");
    let more = write(&host, &(file.clone() + &vm("b", "depends-on = [\"a\"]\n")));
    let said = refused(&host, &["up", &more, "--overcommit"]);
    assert!(said.contains("VM b depends on a, which is not up: process"), "{said}");
    kill_process(Pid::from_child(&start), Signal::CONT).unwrap();
    assert!(start.wait().unwrap().success());
    let report = host.json(&["up", &more, "--overcommit", "--json"]);
    assert_eq!(actions(&report), pairs(&[("a", "keep"), ("b", "start")]));
    down(host);
}

fn scale() {
    let host = Host::new();
    let file = [HEAD, &vm("writer", ""), &vm("reader", "count = 1\naccess = \"ro\"\n")].concat();
    up(&host, &file, &[]);
    let before = vms(&host);
    up(&host, &file, &["--scale", "reader=3"]);
    let now = vms(&host);
    assert_eq!((now.len(), &now[..2]), (4, &before[..]));
    up(&host, &file, &["--scale", "reader=0"]);
    assert_eq!(vms(&host), before[..1]);
    up(&host, &file, &[]);
    assert_eq!(vms(&host).len(), 2);
    let path = write(&host, &file);
    let said = refused(&host, &["up", &path, "--scale", "writer=2"]);
    assert!(said.contains("--scale writer=2: no [[vm]]"), "{said}");
    assert!(said.contains("tables with a count: reader"), "{said}");
    down(host);
}

fn refusals() {
    let host = Host::new();
    let file = [HEAD, &vm("a", ""), &vm("b", "")].concat();
    up(&host, &file, &[]);
    let before = (host.state("lab"), vms(&host));
    let slice = "access = \"slice\"\nlength = \"2M\"\n";
    let is_refused = |text: String, more: &[&str], expected: &str| {
        let path = write(&host, &text);
        let said = refused(&host, &[&["up", &path], more].concat());
        assert!(said.contains(expected), "{said}");
        assert_eq!((host.state("lab"), vms(&host)), before, "{said}");
    };
    is_refused(file.replace("64M", "128M"), &[], "its size is 64 MiB");
    let other = HEAD.replace("size", "path = \"tank\"\nsize");
    is_refused(
        file.replace(HEAD, &other),
        &[],
        "cannot change their pool; use `vhost-famfs down lab`",
    );
    is_refused(
        file.clone(),
        &["--master", "b"],
        "the master is a, not b; to change that, use `famfs takeover --yes` in b",
    );
    is_refused(file.clone(), &["--master", "host"], "the master is a, not host");
    is_refused([HEAD, &vm("b", "")].concat(), &[], "VM a is the master");
    let ro = [HEAD, &vm("a", "access = \"ro\"\n"), &vm("b", "")].concat();
    is_refused(ro, &[], "it must stay, with access \"rw\"");
    is_refused(file.clone() + &vm("c", slice), &[], "slice");
    is_refused(file.clone() + &vm("c", "kernel = \"none\"\n"), &[], "VM c");
    let cpus = file.replace("\"b\"\n", "\"b\"\ncpus = 0\n");
    is_refused(cpus, &[], "cpus is 0");
    // Another command is at work: this very process stands in for it.
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let ticks = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
    let me = json!({"pid": std::process::id(), "start_ticks": ticks.parse::<u64>().unwrap()});
    let mut state = before.0.clone().unwrap();
    state["changing"] = me;
    let path = host.clusters().join("lab/state.json");
    fs::write(&path, state.to_string()).unwrap();
    let file_path = write(&host, &(file.clone() + &vm("c", "")));
    let said = refused(&host, &["up", &file_path, "--overcommit"]);
    assert!(said.contains("another `vhost-famfs up`, is changing cluster lab"), "{said}");
    // Nor a cluster of which too little is known.
    state["changing"] = Value::Null;
    state["source"] = Value::Null;
    fs::write(&path, state.to_string()).unwrap();
    let said = refused(&host, &["up", &file_path]);
    assert!(said.contains("what it was started from is not recorded"), "{said}");
    assert_eq!(vms(&host), before.1);
    down(host);
}

fn others() {
    let host = Host::new();
    let file = [HEAD, &vm("a", "")].concat();
    up(&host, &file, &[]);
    let before = (host.state("lab"), vms(&host));
    let other = host.path().join("image/lab.toml");
    fs::write(&other, [HEAD, &vm("b", "")].concat()).unwrap();
    let lines: [&[&str]; 2] =
        [&["up", other.to_str().unwrap()], &["up", "--name", "lab", "--vms", "2"]];
    for line in lines {
        let said = refused(&host, line);
        let expected = "cluster lab is running, and is another one: it was started from ";
        assert!(said.contains(expected) && said.contains("another --name"), "{said}");
        assert_eq!((host.state("lab"), vms(&host)), before);
    }
    // By another path it is the same file.
    let around = host.path().join("image/../lab.toml");
    let same = host.run(&["up", around.to_str().unwrap()]);
    assert!(text(&same.stdout).contains("nothing to do"), "{same:?}");
    host.json(&["down", "lab", "--timeout", "1", "--json"]);
    // Without a file, the shares tell.
    let share = host.path().join("image");
    let share = share.to_str().unwrap();
    let words = ["up", "--name", "lab", "--overcommit", "--json", "--share", share, "--vms"];
    host.json(&[&words[..], &["1"]].concat());
    let before = vms(&host);
    let said = refused(&host, &["up", "--name", "lab", "--vms", "1"]);
    let expected = format!("started from --vms with --share {share}, not from --vms without");
    assert!(said.contains(&expected), "{said}");
    let report = host.json(&[&words[..], &["2"]].concat());
    assert_eq!(actions(&report), pairs(&[("vm1", "keep"), ("vm2", "start")]));
    assert_eq!(vms(&host)[..1], before);
    host.json(&["down", "lab", "--timeout", "1", "--json"]);
    // Without a name either, nothing tells: no VM is stopped.
    let words = ["up", "--overcommit", "--json", "--share", share, "--vms"];
    host.json(&[&words[..], &["2"]].concat());
    let said = refused(&host, &[&words[..], &["1"]].concat());
    assert!(said.contains("not asked for: vm2; to stop them, repeat this with --name"), "{said}");
    let named = host.json(&[&words[..], &["1", "--name", "default"]].concat());
    assert_eq!(actions(&named), pairs(&[("vm1", "keep"), ("vm2", "stop")]));
    host.json(&["down", "default", "--timeout", "1", "--json"]);
    host.assert_nothing_left("down");
}

fn failed() {
    let host = Host::new();
    let file = [HEAD, &vm("a", ""), &vm("b", "")].concat();
    up(&host, &file, &[]);
    let before = vms(&host);
    let more = write(&host, &(file.clone() + &vm("c", "")));
    let output = host.command("qemu-failing", &["up", &more, "--overcommit"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (cluster, code) = ps(&host);
    assert_eq!((code, &cluster["status"]), (3, &"degraded".into()), "it lacks a VM: {cluster}");
    assert_eq!(cluster["vms"][2]["status"], "not-started", "{cluster}");
    for (index, (_, pid)) in before.iter().enumerate() {
        assert_eq!(cluster["vms"][index]["pid"], *pid, "{cluster}");
    }
    let said = text(&host.run(&["exec", "c", "--", "true"]).stderr);
    assert!(said.contains("`vhost-famfs start --cluster lab c`"), "{said}");
    let said = host.run(&["up", &more, "--overcommit"]);
    assert!(text(&said.stdout).contains("c: started (it was not started), pool "), "{said:?}");
    assert_eq!(vms(&host)[..2], before);
    up(&host, &file, &[]);
    assert_eq!(vms(&host), before);
    down(host);
}

fn processors() {
    let host = Host::new();
    // Some hosts have only one.
    let all = allowed(std::process::id().into());
    let one = all.split([',', '-']).next().unwrap().to_owned();
    let bound = format!("cpus-allowed = \"{one}\"\n");
    let file = [HEAD, &vm("bound", &bound), &vm("free", "")].concat();
    up(&host, &file, &[]);
    let is = || vms(&host).into_iter().map(|(_, pid)| allowed(pid)).collect::<Vec<_>>();
    assert_eq!(is(), [one.clone(), all.clone()]);
    host.json(&["restart", "bound", "--json"]);
    assert_eq!(is(), [one.clone(), all.clone()], "also after that");
    let report = up(&host, &file.replace(&bound, ""), &[]);
    assert_eq!(report["vms"][0]["why"], json!([format!("cpus-allowed {one} -> the default")]));
    assert_eq!(is(), [all.clone(), all]);
    let path = write(&host, &file.replace(&bound, "cpus-allowed = \"1023\"\n"));
    let said = refused(&host, &["up", &path]);
    assert!(said.contains("lab.toml:5:") && said.contains("cpus-allowed is 1023, but "), "{said}");
    let path = write(&host, &file.replace(&bound, "cpus-allowed = \"all\"\n"));
    let said = refused(&host, &["up", &path]);
    assert!(said.contains("\"all\" is not a list of processors"), "{said}");
    down(host);
}

/// That limits are kept is tested with a real systemd, in a VM.
fn limits() {
    let host = Host::new();
    let said = |keys: &str| {
        let path = write(&host, &[HEAD, &vm("a", keys)].concat());
        refused(&host, &["up", &path, "--overcommit"])
    };
    let node = said("numa = 1023\n");
    assert!(node.contains("lab.toml:5:") && node.contains("numa is 1023, but this node"), "{node}");
    let little = said("memory = \"1G\"\nmemory-max = \"512M\"\n");
    assert!(little.contains("memory-max is 512 MiB, but the VM has 1 GiB of RAM"), "{little}");
    let weight = said("cpu-weight = 0\n");
    assert!(weight.contains("cpu-weight is 0") && weight.contains("set 1 to 10000"), "{weight}");
    if !Path::new("/run/systemd/system").exists() {
        let alone = said("cpu-weight = 50\n");
        assert!(alone.contains("VM a: cannot keep it to its cpu-weight"), "{alone}");
        assert!(alone.contains("systemd does not run on this host"), "{alone}");
    }
    assert!(host.state("lab").is_none());
    let file = [HEAD, &vm("a", "numa = 0\n")].concat();
    up(&host, &file, &[]);
    let words = fs::read(format!("/proc/{}/cmdline", vms(&host)[0].1)).unwrap();
    assert!(String::from_utf8_lossy(&words).contains(",host-nodes=0,policy=bind"));
    down(host);
}

/// The processors on which a process may run.
fn allowed(pid: u64) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap().trim().to_owned()
}

/// When the QEMU of a VM was started.
fn started(host: &Host, name: &str) -> u64 {
    let state = host.state("lab").unwrap();
    let vm = state["vms"].as_array().unwrap().iter().find(|vm| vm["name"] == name).unwrap();
    vm["qemu"]["start_ticks"].as_u64().unwrap()
}

fn dependencies() {
    let host = Host::new();
    let after = |name: &str| format!("depends-on = [\"{name}\"]\n");
    let first = [HEAD, &vm("a", &after("b")), &vm("b", "count = 1\n")].concat();
    let file = write(&host, &first);
    let words = ["up", &file, "--overcommit", "--json"];
    let output = host.command("qemu-slow", &words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["vms"][0]["name"], &report["vms"][1]["name"]), (&"a".into(), &"b1".into()));
    assert!(started(&host, "a") > started(&host, "b1"), "the guest of b takes longer");
    host.json(&["restart", "a", "b1", "--json"]);
    assert!(started(&host, "a") > started(&host, "b1"));
    // What only the next start does differently is noted, and touches nothing.
    let before = vms(&host);
    let none = first.replace(&after("b"), "");
    up(&host, &none, &[]);
    assert_eq!(host.state("lab").unwrap()["vms"][0]["asked"]["depends_on"], json!([]));
    up(&host, &first, &[]);
    assert_eq!(host.state("lab").unwrap()["vms"][0]["asked"]["depends_on"], json!(["b1"]));
    assert_eq!(vms(&host), before);
    // Whoever depends on what does not come up is not started.
    let more = write(&host, &[&first[..], &vm("c", &after("d")), &vm("d", "")].concat());
    let output = host.command("qemu-failing", &["up", &more, "--overcommit"]).output().unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("VM c was not started, because it depends on d"), "{said}");
    assert!(said.contains("VM d"), "{said}");
    let circle = write(&host, &first.replace("count = 1\n", &after("a")));
    let said = refused(&host, &["up", &circle]);
    assert!(said.contains("VMs wait for each other: a -> b -> a"), "{said}");
    // Other programs start VMs in their own order.
    let file = write(&host, &first);
    let emitted = host.run(&["up", &file, "--dry-run", "--emit", "qemu"]);
    let expected = "VM a: depends-on is not in this output; that program decides\n";
    assert!(text(&emitted.stderr).ends_with(expected), "{emitted:?}");
    // All of these are deaf, so that each takes a second to end.
    host.json(&["down", "lab", "--timeout", "1", "--json"]);
    assert!(host.command("qemu-deaf", &words).output().unwrap().status.success());
    let handles = ["a", "b1"].map(|name| {
        let pid = vms(&host).into_iter().find(|vm| vm.0 == name).unwrap().1;
        Handle::open(u32::try_from(pid).unwrap()).unwrap()
    });
    let mut down = host.command("qemu", &["down", "lab", "--timeout", "1"]);
    let mut down = down.stdout(Stdio::null()).spawn().unwrap();
    while down.try_wait().unwrap().is_none() {
        // In this order: both may end between the two looks.
        let b = handles[1].is_alive();
        let a = handles[0].is_alive();
        assert!(b || !a, "b has ended before a");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(down.wait().unwrap().success());
    host.assert_nothing_left("down");
}

/// SIGKILL to a changing `up` at random moments.
fn kills() {
    let mut random = Random::new(seed());
    let host = Host::new();
    let both = [
        [HEAD, &vm("a", ""), &vm("b", "memory = \"512M\"\n"), &vm("c", "")].concat(),
        [HEAD, &vm("a", ""), &vm("b", ""), &vm("d", "")].concat(),
    ];
    up(&host, &both[0], &[]);
    let first = vms(&host)[0].clone();
    let begun = Instant::now();
    up(&host, &both[1], &[]);
    let takes = begun.elapsed();
    for round in 0..KILLS {
        let file = write(&host, &both[round as usize % 2]);
        let mut command = host.command("qemu", &["up", &file, "--overcommit"]);
        let mut command = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let after = takes * random.below(1000) / 1000;
        thread::sleep(after);
        command.kill().unwrap();
        command.wait().unwrap();
        let moment = format!("round {round}, killed after {after:?}");
        let (_, code) = ps(&host);
        assert!(matches!(code, 0 | 3), "{moment}");
        // To this or to the other.
        let wanted = random.below(2) as usize;
        up(&host, &both[wanted], &[]);
        let now = vms(&host);
        assert_eq!(now[0], first, "{moment}");
        let names: Vec<_> = now.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", ["c", "d"][wanted]], "{moment}");
        // Keeper, back-end and QEMU of each, and no other.
        let end = Instant::now() + Duration::from_secs(30);
        let count = || host.processes().len();
        while count() != 9 && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(count(), 9, "{moment}: {:#?}", host.processes());
    }
    down(host);
}
