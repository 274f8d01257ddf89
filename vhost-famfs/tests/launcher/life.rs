// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Stops single VMs of a running cluster and starts them again.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use famfs::system::process::Handle;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::host::Host;
use super::kernel;
use super::random::{Random, seed};
use super::schema::problem;
use super::trial;

/// How often to kill a command.
const KILLS: u32 = 30;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_vm_stops_and_starts_and_the_others_do_not_notice", stop_and_start),
        trial("a_vm_that_does_not_follow_is_ended", stubborn),
        trial("a_vm_that_ended_by_itself_starts_again", ended),
        trial("a_start_that_fails_leaves_the_vm_as_it_was", failed_start),
        trial("a_start_that_is_interrupted_leaves_the_vm_as_it_was", interrupted_start),
        trial("a_start_that_is_interrupted_leaves_a_vm_that_is_up", interrupted_late),
        trial("a_restart_that_could_not_start_stops_nothing", restart_in_vain),
        trial("one_of_two_starts_wins", two_starts),
        trial("kills_of_stop_and_start_leave_what_the_next_command_clears", kills),
        trial("a_vm_that_fails_is_started_again", restarts),
        trial("starting_again_in_vain_ends", in_vain),
        trial("pools_that_nobody_uses_are_removed_when_asked", pools),
        trial("logs_are_dated_and_outlive_the_cluster", logs),
        trial("names_of_vms_are_checked_before_anything_stops", wrong_names),
    ]
}

fn up(host: &Host, qemu: &str) {
    let words = ["up", "--name", "lab", "--vms", "2", "--overcommit", "--size", "64M"];
    let output = host.command(qemu, &words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn down(mut host: Host) {
    host.json(&["down", "lab", "--timeout", "1", "--json"]);
    host.assert_nothing_left("down");
    host.assert_bystander_unharmed();
}

/// What `ps` says, and its exit code.
fn ps(host: &Host) -> (Value, i32) {
    let output = host.run(&["ps", "--json"]);
    let mut all: Value = serde_json::from_slice(&output.stdout).unwrap();
    (all["clusters"][0].take(), output.status.code().unwrap())
}

fn vm_of(host: &Host, name: &str) -> Value {
    let (cluster, _) = ps(host);
    let vms = cluster["vms"].as_array().unwrap();
    vms.iter().find(|vm| vm["name"] == name).unwrap().clone()
}

fn pid_of(vm: &Value, part: &str) -> i32 {
    i32::try_from(vm[part].as_i64().unwrap()).unwrap()
}

/// The command line of a process, without the clock rate, which each start measures.
fn command_line(pid: i32) -> String {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let (before, rate) = line.split_once("tsc_early_khz=").unwrap_or((&line, ""));
    before.to_owned() + rate.trim_start_matches(|digit: char| digit.is_ascii_digit())
}

fn processes_of_vm1(host: &Host) -> Vec<(i32, String)> {
    let vm1 = host.clusters().join("lab/vm1");
    let vm1 = vm1.to_str().unwrap();
    host.processes().into_iter().filter(|(_, words)| words.contains(vm1)).collect()
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stop_and_start() {
    let host = Host::new();
    up(&host, "qemu");
    let [first, other] = ["vm1", "vm2"].map(|name| vm_of(&host, name));
    let line = command_line(pid_of(&first, "pid"));
    let stopped = host.json(&["stop", "vm1", "--json"]);
    assert_eq!(problem("stop", &stopped), None);
    assert_eq!(stopped["vms"][0]["end"], "orderly", "{stopped}");
    assert_eq!(problem("ps", &host.json(&["ps", "--json"])), None);
    assert_eq!(processes_of_vm1(&host), [], "all of its processes have ended");
    let (cluster, code) = ps(&host);
    assert_eq!((&cluster["status"], code), (&"up".into(), 0), "{cluster}");
    let vm = vm_of(&host, "vm1");
    assert_eq!((&vm["status"], &vm["stopped"]["end"]), (&"stopped".into(), &"orderly".into()));
    let text = String::from_utf8(host.run(&["ps"]).stdout).unwrap();
    assert!(text.contains("vm1  stopped") && text.contains("stopped by user "), "{text}");
    let way = "start it with `vhost-famfs start --cluster lab vm1`";
    let commands: [(&[&str], i32); 4] = [
        (&["exec", "vm1", "--", "true"], 125),
        (&["cp", "vm1:/etc/hosts", "-"], 1),
        (&["console", "vm1"], 1),
        (&["logs", "vm1"], 0),
    ];
    for (words, code) in commands {
        let output = host.run(words);
        let said = error(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        assert!(said.contains("stopped by user ") && said.contains(way), "{words:?}: {said}");
    }
    let again = host.json(&["stop", "vm1", "--json"]);
    assert_eq!(again["vms"][0]["end"], "was-stopped");
    assert_eq!(vm_of(&host, "vm1")["stopped"]["end"], "orderly", "that is not forgotten");
    let started = host.json(&["start", "vm1", "--json"]);
    assert_eq!(problem("start", &started), None);
    assert_eq!(started["vms"][0]["mounted"], true, "{started}");
    let vm = vm_of(&host, "vm1");
    assert_eq!((&vm["status"], &vm["stopped"]), (&"running".into(), &Value::Null));
    assert_eq!((&vm["uuid"], vm["mounted"].as_bool()), (&first["uuid"], Some(true)));
    assert_eq!(command_line(pid_of(&vm, "pid")), line, "the same command line");
    assert!(host.run(&["exec", "vm1", "--", "true"]).status.success());
    let refused = error(&host.run(&["start", "vm1"]));
    assert!(refused.contains("VM vm1 is running"), "{refused}");
    let restarted = host.json(&["restart", "vm1", "--json"]);
    assert_eq!(problem("restart", &restarted), None);
    assert_ne!(vm_of(&host, "vm1")["pid"], vm["pid"]);
    let now = vm_of(&host, "vm2");
    assert_eq!((&now["pid"], &now["backend_pid"]), (&other["pid"], &other["backend_pid"]));
    let text = String::from_utf8(host.run(&["stop", "vm2", "vm1", "vm2"]).stdout).unwrap();
    assert_eq!(text.matches("powered off").count(), 2, "{text}");
    assert!(text.contains("vm1 is the master") && text.contains("famfs --pool"), "{text}");
    let report = host.json(&["down", "lab", "--json"]);
    assert_eq!(problem("down", &report), None);
    assert_eq!(report["vms"][0]["end"], "was-stopped");
    host.assert_nothing_left("down");
}

fn stubborn() {
    for (qemu, end) in [("qemu-deaf", "quit"), ("qemu-stuck", "killed")] {
        let host = Host::new();
        up(&host, qemu);
        let stopped = host.json(&["stop", "vm1", "--timeout", "0", "--json"]);
        assert_eq!(stopped["vms"][0]["end"], end, "{qemu}");
        assert_eq!(processes_of_vm1(&host), [], "{qemu}");
        assert_eq!(vm_of(&host, "vm1")["stopped"]["end"], end);
        down(host);
    }
}

fn ended() {
    let host = Host::new();
    up(&host, "qemu");
    for part in ["pid", "backend_pid"] {
        let vm = vm_of(&host, "vm1");
        let handle = Handle::open(pid_of(&vm, part).cast_unsigned()).unwrap();
        assert!(handle.kill());
        let (_, code) = ps(&host);
        assert_eq!(code, 3, "{part}");
        // A VM without its back-end still runs.
        let word = if part == "pid" { "start" } else { "restart" };
        if part == "pid" {
            let said = error(&host.run(&["exec", "vm1", "--", "true"]));
            assert!(said.contains("`vhost-famfs start --cluster lab vm1`"), "{said}");
        }
        host.json(&[word, "vm1", "--json"]);
        let (_, code) = ps(&host);
        assert_eq!(code, 0, "{part}");
        assert_ne!(vm_of(&host, "vm1")["backend_pid"], vm["backend_pid"], "{part}");
    }
    // A stop after its end tells that nobody wants it to run.
    let vm = vm_of(&host, "vm1");
    assert!(Handle::open(pid_of(&vm, "pid").cast_unsigned()).unwrap().kill());
    let stopped = host.json(&["stop", "vm1", "--json"]);
    assert_eq!(stopped["vms"][0]["end"], "was-dead");
    assert_eq!(processes_of_vm1(&host), []);
    let (cluster, code) = ps(&host);
    assert_eq!((&cluster["vms"][0]["status"], code), (&"stopped".into(), 0), "{cluster}");
    let text = String::from_utf8(host.run(&["ps"]).stdout).unwrap();
    assert!(text.contains("stopped by user (had already ended) "), "{text}");
    down(host);
}

fn failed_start() {
    let host = Host::new();
    up(&host, "qemu");
    host.json(&["stop", "vm1", "--json"]);
    let before = host.state("lab");
    let qemu = host.path().join("qemu");
    let program = fs::read_link(&qemu).unwrap();
    fs::remove_file(&qemu).unwrap();
    // The command needs another one for itself.
    let refused = host.command("qemu-slow", &["start", "vm1"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(processes_of_vm1(&host), []);
    assert_eq!(host.state("lab"), before);
    symlink(program, &qemu).unwrap();
    // Another file with the pool's name is not the pool.
    let pool = ps(&host).0["pool"]["path"].as_str().unwrap().to_owned();
    fs::rename(&pool, pool.clone() + ".old").unwrap();
    fs::copy(pool.clone() + ".old", &pool).unwrap();
    let refused = host.run(&["start", "vm1"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    fs::rename(pool.clone() + ".old", &pool).unwrap();
    host.json(&["start", "vm1", "--json"]);
    down(host);
}

fn interrupted_start() {
    let host = Host::new();
    up(&host, "qemu-slow");
    host.json(&["stop", "vm1", "--json"]);
    let before = host.state("lab");
    let mut start = host.command("qemu-slow", &["start", "vm1"]).stderr(Stdio::piped()).spawn();
    let start = start.as_mut().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while host.state("lab").unwrap()["vms"][0]["qemu"].is_null() && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    kill_process(Pid::from_child(start), Signal::INT).unwrap();
    assert_eq!(start.wait().unwrap().code(), Some(130));
    assert_eq!(processes_of_vm1(&host), []);
    assert_eq!(host.state("lab"), before);
    host.json(&["start", "vm1", "--json"]);
    down(host);
}

fn interrupted_late() {
    let host = Host::new();
    up(&host, "qemu");
    host.json(&["stop", "vm1", "vm2", "--json"]);
    change_state(&host, |state| {
        let launch = &mut state["vms"][1]["launch"];
        let path = |name: &str| format!("\"{}\"", host.path().join(name).display());
        let text = launch.to_string().replace(&path("qemu"), &path("qemu-slow"));
        *launch = serde_json::from_str(&text).unwrap();
    });
    let mut start = host.command("qemu", &["start", "vm1", "vm2"]).stderr(Stdio::piped()).spawn();
    let start = start.as_mut().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    // It is up.
    let is_up = |vm: &Value| vm["stopped"].is_null() && vm["starting"].is_null();
    while !is_up(&host.state("lab").unwrap()["vms"][0]) && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    kill_process(Pid::from_child(start), Signal::INT).unwrap();
    // The other one may have been fast.
    let up = match start.wait().unwrap().code() {
        Some(130) => "stopped",
        code => {
            assert_eq!(code, Some(0));
            "running"
        }
    };
    let is = ["vm1", "vm2"].map(|name| vm_of(&host, name)["status"].clone());
    assert_eq!(is, ["running", up]);
    down(host);
}

fn restart_in_vain() {
    let host = Host::new();
    up(&host, "qemu");
    let before = host.state("lab").unwrap();
    let refused = |host: &Host, change: &dyn Fn(&mut Value), expected: &str| {
        change_state(host, change);
        let said = error(&host.run(&["restart", "vm1", "vm2"]));
        assert!(said.contains(expected), "{said}");
        let (cluster, code) = ps(host);
        let pid = |vm: usize| cluster["vms"][vm]["pid"] == before["vms"][vm]["qemu"]["pid"];
        assert!(code == 0 && pid(0) && pid(1), "{cluster}");
        change_state(host, |state| *state = before.clone());
    };
    refused(&host, &|state| state["vms"][1]["launch"] = Value::Null, "VM vm2: how it was started");
    refused(&host, &|state| state["pool"]["identity"] = Value::Null, "VM vm1: how it was started");
    let expected = "its size is 64 MiB, but cluster lab was started with 32 MiB";
    refused(&host, &|state| state["pool"]["size"] = (32 << 20).into(), expected);
    host.json(&["restart", "vm1", "--json"]);
    down(host);
}

/// Changes the state of the cluster as no command would.
fn change_state(host: &Host, change: impl FnOnce(&mut Value)) {
    let mut state = host.state("lab").unwrap();
    change(&mut state);
    let path = host.clusters().join("lab/state.json");
    fs::write(path, serde_json::to_string(&state).unwrap()).unwrap();
}

fn two_starts() {
    let host = Host::new();
    up(&host, "qemu-slow");
    host.json(&["stop", "vm1", "--json"]);
    let spawn = || {
        let mut command = host.command("qemu-slow", &["start", "vm1"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let outputs = [spawn(), spawn()].map(|child| child.wait_with_output().unwrap());
    let won = outputs.iter().filter(|output| output.status.success()).count();
    assert_eq!(won, 1, "{outputs:?}");
    assert_eq!(vm_of(&host, "vm1")["status"], "running");
    down(host);
}

/// A cluster of which vm1 is started again when it fails.
fn up_with_restart(host: &Host) {
    let file = host.path().join("lab.toml");
    let text = "restart = \"on-failure\"\n[pool]\nsize = \"64M\"\n[[vm]]\nname = \"vm1\"\n\
                [[vm]]\nname = \"vm2\"\nrestart = \"no\"\n";
    fs::write(&file, text).unwrap();
    let words = ["up", file.to_str().unwrap(), "--overcommit", "--timeout", "77"];
    let output = host.run(&words);
    assert!(output.status.success(), "{output:?}");
}

fn kill_vm(host: &Host, name: &str) {
    let pid = pid_of(&vm_of(host, name), "pid");
    assert!(Handle::open(pid.cast_unsigned()).unwrap().kill());
}

/// Waits until `ps` says so of vm1.
fn wait_for(host: &Host, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let vm = vm_of(host, "vm1");
        if is_so(&vm) {
            return vm;
        }
        assert!(Instant::now() < end, "{what}: {vm}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn supervisors(host: &Host) -> usize {
    let state = host.state("lab").unwrap();
    let pids = state["vms"].as_array().unwrap().iter().map(|vm| vm["supervisor"]["pid"].as_u64());
    let alive = |pid: &u64| Handle::open(u32::try_from(*pid).unwrap()).is_ok_and(|p| p.is_alive());
    pids.flatten().filter(alive).count()
}

fn restarts() {
    let mut host = Host::new();
    up_with_restart(&host);
    assert_eq!(supervisors(&host), 1, "only for VMs that ask for it");
    let supervisor = &host.state("lab").unwrap()["vms"][0]["supervisor"]["pid"];
    let line = fs::read_to_string(format!("/proc/{supervisor}/cmdline")).unwrap();
    assert!(line.contains("\0--timeout\x0077\0vm1\0"), "as for up: {line:?}");
    for count in 1..=2 {
        kill_vm(&host, "vm1");
        let again = |vm: &Value| vm["status"] == "running" && vm["restarts"] == count;
        let vm = wait_for(&host, "it is started again", again);
        assert_eq!((&vm["mounted"], &vm["given_up"]), (&true.into(), &Value::Null), "{vm}");
    }
    let text = String::from_utf8(host.run(&["ps"]).stdout).unwrap();
    assert!(text.contains("vm1: restarts 2"), "{text}");
    assert_eq!(problem("ps", &host.json(&["ps", "--json"])), None);
    // The other one is not.
    kill_vm(&host, "vm2");
    // Nor one that the user stops, also while it is about to be started again.
    host.json(&["stop", "vm1", "--json"]);
    assert_eq!(supervisors(&host), 0);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(vm_of(&host, "vm1")["status"], "stopped");
    assert_eq!(
        (&vm_of(&host, "vm2")["status"], processes_of_vm1(&host)),
        (&"ended".into(), vec![])
    );
    host.json(&["start", "vm1", "--json"]);
    assert_eq!(supervisors(&host), 1, "start begins anew");
    kill_vm(&host, "vm1");
    let stopped = host.json(&["stop", "vm1", "--json"]);
    assert_eq!(stopped["vms"][0]["end"], "was-dead");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(processes_of_vm1(&host), []);
    assert_eq!(vm_of(&host, "vm1")["status"], "stopped", "also during the pause");
    // A QEMU that is told to quit has not failed.
    host.json(&["start", "vm1", "--json"]);
    if kernel::tells_ends() {
        let mut qmp = UnixStream::connect(host.clusters().join("lab/vm1/qmp.sock")).unwrap();
        qmp.write_all(b"{\"execute\": \"quit\"}\n").unwrap();
        wait_for(&host, "it ends", |vm| vm["status"] == "ended");
        let end = Instant::now() + Duration::from_secs(30);
        while supervisors(&host) > 0 && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        let vm = vm_of(&host, "vm1");
        assert_eq!((&vm["status"], &vm["restarts"]), (&"ended".into(), &2.into()), "{vm}");
        host.json(&["start", "vm1", "--json"]);
    }
    // The end of the cluster is no failure, even if the VM has just failed.
    kill_vm(&host, "vm1");
    let report = host.json(&["down", "lab", "--json"]);
    assert_eq!(report["strays"], 0, "{report}");
    host.assert_nothing_left("down");
    host.assert_bystander_unharmed();
}

fn in_vain() {
    let host = Host::new();
    up_with_restart(&host);
    fs::remove_file(host.path().join("qemu")).unwrap();
    kill_vm(&host, "vm1");
    let vm = wait_for(&host, "it is given up", |vm| !vm["given_up"].is_null());
    assert_eq!((&vm["status"], &vm["restarts"]), (&"ended".into(), &5.into()), "{vm}");
    let why = vm["given_up"].as_str().unwrap();
    assert!(why.contains("VM vm1: QEMU ended"), "{why}");
    let text = String::from_utf8(host.run(&["ps"]).stdout).unwrap();
    assert!(text.contains("vm1: no longer started again, 5 times in vain: "), "{text}");
    assert_eq!(supervisors(&host), 0);
    let program = std::env::current_exe().unwrap();
    symlink(program, host.path().join("qemu")).unwrap();
    host.json(&["start", "vm1", "--json"]);
    assert_eq!((&vm_of(&host, "vm1")["given_up"], supervisors(&host)), (&Value::Null, 1));
    down(host);
}

fn pools() {
    let host = Host::new();
    let [empty, full, bare, mine] =
        ["empty", "full", "bare", "mine"].map(|name| host.path().join(name));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    for (path, more) in
        [(&empty, Some("--mkfs")), (&full, None), (&bare, None), (&mine, Some("--mkfs"))]
    {
        let path = text(path);
        let words = ["pool", "create", &path, "--size", "64M"];
        let words: Vec<&str> = words.into_iter().chain(more).collect();
        assert!(host.run(&words).status.success());
    }
    let share = host.path().join("share");
    fs::create_dir(&share).unwrap();
    fs::write(share.join("file"), "treasure").unwrap();
    for (pool, share) in [(&full, Some(&share)), (&mine, None)] {
        let (pool, share) = (text(pool), share.map(|share| text(share)));
        let words = ["up", "--name", "lab", "--vms", "1", "--overcommit", "--pool", &pool];
        let share = share.iter().flat_map(|share| ["--share", share]);
        let words: Vec<&str> = words.into_iter().chain(share).collect();
        assert!(host.run(&words).status.success());
        if pool == text(&full) {
            host.json(&["down", "lab", "--json"]);
        }
    }
    host.json(&["stop", "vm1", "--json"]);
    let dir = text(host.path());
    let list = host.json(&["pool", "list", &dir, "--json"]);
    assert_eq!(problem("pool_list", &list), None);
    let of = |path: &Path| {
        let pools = list["pools"].as_array().unwrap();
        pools.iter().find(|pool| pool["path"] == text(path)).unwrap()["clusters"].clone()
    };
    assert_eq!((of(&mine), of(&full)), (serde_json::json!(["lab"]), serde_json::json!([])));
    let all = [&empty, &full, &bare, &mine];
    let prune = |words: &[&str], paths: &[&PathBuf]| {
        let paths: Vec<String> = paths.iter().map(|path| text(path)).collect();
        let words = ["pool", "prune"].into_iter().chain(words.iter().copied());
        host.run(&words.chain(paths.iter().map(String::as_str)).collect::<Vec<_>>())
    };
    // The pool of a cluster is not one that nobody uses, even if nothing of the cluster runs.
    let refused = prune(&["--dry-run"], &all);
    assert!(error(&refused).contains("it belongs to cluster lab; not removed"), "{refused:?}");
    let asked = prune(&[], &[&full]);
    assert!(error(&asked).contains("cannot ask without a terminal"), "{asked:?}");
    let told = String::from_utf8(prune(&["--dry-run"], &[&empty, &full, &bare]).stdout).unwrap();
    assert_eq!(told.matches("would be removed").count(), 3, "{told}");
    assert!(told.contains(", 1 file): would be removed; to remove it unasked: "), "{told}");
    assert!(all.iter().all(|path| path.exists()));
    let held = fs::File::open(&bare).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockShared).unwrap();
    let used = prune(&["--yes"], &[&empty, &bare]);
    assert!(error(&used).contains("not removed"), "{used:?}");
    assert_eq!((empty.exists(), bare.exists()), (false, true), "{used:?}");
    drop(held);
    // Without a cluster's state it is not known which pool it has.
    let unread = host.clusters().join("unread");
    fs::create_dir(&unread).unwrap();
    fs::copy(host.clusters().join("lab/state.json"), unread.join("state.json")).unwrap();
    let refused = error(&prune(&["--yes"], &[&bare, &full]));
    assert!(refused.contains("it is not known") && refused.contains("unread"), "{refused}");
    assert!(bare.exists() && full.exists());
    fs::remove_dir_all(&unread).unwrap();
    assert!(prune(&["--yes"], &[&bare, &full]).status.success());
    assert_eq!((bare.exists(), full.exists(), mine.exists()), (false, false, true));
    down(host);
    assert!(!mine.exists(), "the directory of the host is gone");
}

fn logs() {
    let host = Host::new();
    up(&host, "qemu");
    let shown = |words: &[&str]| {
        let words = [&["logs", "--of", "console"], words].concat();
        let output = host.run(&words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // A log keeper writes what the guest has said a moment ago.
    let comes = |words: &[&str], expected: &str| {
        let end = Instant::now() + Duration::from_secs(120);
        while shown(words) != expected {
            assert!(Instant::now() < end, "{words:?}: {}, expected {expected}", shown(words));
            thread::sleep(Duration::from_millis(20));
        }
    };
    let line = "vm1 console | the stand-in for a guest is up\n";
    comes(&["vm1"], line);
    comes(&["vm2"], &line.replace("vm1", "vm2"));
    let dated = shown(&["vm1", "--timestamps", "--since", "10m"]);
    let (label, rest) = dated.split_at("vm1 console | ".len());
    let (time, text) = rest.split_at("2026-11-28T12:00:00.000Z".len());
    assert_eq!(label.to_owned() + text.strip_prefix(' ').unwrap(), line, "{dated}");
    // What is shown can be asked for.
    assert_eq!(shown(&["vm1", "--since", time]), line);
    assert_eq!(shown(&["vm1", "--since", "0s"]), "");
    assert_eq!(shown(&["vm1", "--tail", "0"]), "");
    // The lines of the run before are there after a restart, with their time.
    host.json(&["restart", "vm1", "--json"]);
    comes(&["vm1", "--tail", "5"], &line.repeat(2));
    let both = shown(&["vm1", "--timestamps"]);
    assert!(both.starts_with(&dated) && both.lines().count() == 2, "{both}");
    let last = shown(&["vm1", "--timestamps", "-n", "1"]);
    assert!(both.ends_with(&last) && last.lines().count() == 1, "{last}");
    let all = shown(&["--timestamps"]);
    let told = String::from_utf8(host.run(&["down", "lab"]).stdout).unwrap();
    assert!(told.contains("see `vhost-famfs logs --cluster lab`"), "{told}");
    assert_eq!(shown(&["--timestamps"]), all, "the same after its end");
    assert_eq!(shown(&["--cluster", "lab", "vm1", "--timestamps"]), both);
    assert_eq!(shown(&["--follow", "vm1", "-n", "1"]), line);
    let said = error(&host.run(&["logs"]));
    assert!(said.contains("cluster lab is not running; its last logs"), "{said}");
    let refused = error(&host.run(&["logs", "vm9"]));
    assert!(refused.contains("no logs of this VM"), "{refused}");
    assert_eq!(host.run(&["logs", "--cluster", "other"]).status.code(), Some(1));
    up(&host, "qemu");
    // The logs of a new cluster are its own.
    comes(&["vm1"], line);
    assert!(!host.path().join("run/vhost-famfs-logs").exists());
    down(host);
}

fn wrong_names() {
    let host = Host::new();
    up(&host, "qemu");
    for word in ["stop", "start", "restart"] {
        let refused = host.run(&[word, "vm1", "vm9"]);
        assert_eq!(refused.status.code(), Some(1), "{word}");
        let said = error(&refused);
        assert!(word == "start" || said.contains("has no VM vm9; it has vm1, vm2"), "{said}");
        assert_eq!(vm_of(&host, "vm1")["status"], "running", "{word}");
    }
    down(host);
}

/// SIGKILL to `stop`, `start` and `restart` at random moments.
fn kills() {
    let mut random = Random::new(seed());
    let host = Host::new();
    up(&host, "qemu-slow");
    let other = vm_of(&host, "vm2");
    let begun = Instant::now();
    host.json(&["restart", "vm1", "--json"]);
    let takes = begun.elapsed();
    for _ in 0..KILLS {
        let word = ["stop", "start", "restart"][random.below(3) as usize];
        if word == "start" {
            host.json(&["stop", "vm1", "--json"]);
        }
        let mut command = host.command("qemu-slow", &[word, "vm1"]);
        let mut command = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let after = takes * random.below(1000) / 1000;
        thread::sleep(after);
        command.kill().unwrap();
        command.wait().unwrap();
        let moment = format!("{word} killed after {after:?}");
        let (_, code) = ps(&host);
        assert!(matches!(code, 0 | 3), "{moment}");
        match random.below(2) {
            0 => {
                host.json(&["stop", "vm1", "--json"]);
                assert_eq!(processes_of_vm1(&host), [], "{moment}");
                host.json(&["start", "vm1", "--json"]);
            }
            _ => _ = host.json(&["restart", "vm1", "--json"]),
        }
        let vm = vm_of(&host, "vm1");
        assert_eq!((&vm["status"], &vm["note"]), (&"running".into(), &Value::Null), "{moment}");
        // Keeper, back-end and QEMU.
        assert_eq!(processes_of_vm1(&host).len(), 3, "{moment}");
        assert_eq!(vm_of(&host, "vm2")["pid"], other["pid"], "{moment}");
    }
    down(host);
}
