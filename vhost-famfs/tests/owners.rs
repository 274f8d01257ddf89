// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What another local user can prepare as a trap: state and pools.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "support/schema.rs"]
mod schema;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use schema::problem;

/// nobody.
const OTHER: u32 = 65534;

fn vhost_famfs(runtime: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
    command.args(words).env("XDG_RUNTIME_DIR", runtime).output().unwrap()
}

fn assert_refused(output: &Output, expected: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(expected), "{output:?}");
}

/// Gives a directory and everything in it to another user if possible; otherwise makes it writable
/// for others, which is as bad.
fn give_away(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        give_away(&entry.path());
    }
    if rustix::process::geteuid().is_root() {
        chown(path, Some(OTHER), Some(OTHER)).unwrap();
    } else {
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
}

#[test]
fn a_state_of_another_user_ends_no_process_and_removes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let precious = dir.path().join("precious");
    fs::write(&precious, "x").unwrap();
    let mut victim = Command::new("sleep").arg("600").spawn().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", victim.id())).unwrap();
    let ticks = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let runtime = dir.path().join("run");
    let cluster = runtime.join("vhost-famfs/default");
    fs::create_dir_all(&cluster).unwrap();
    let state = format!(
        r#"{{"version":1,"name":"default","instance":"00000000-0000-4000-8000-000000000001",
        "boot_id":"{}","phase":"up","launcher":{{"pid":1,"start_ticks":1}},
        "pool":{{"path":{precious:?},"kind":"tmpfs","size":16777216,"view":"devdax","ours":true,
        "made":null}},"vms":[{{"name":"vm1","access":"rw","transport":"pmem","mount":true,
        "memory":1,"memory_root":null,"qemu":{{"pid":{},"start_ticks":{ticks}}},"backend":null,
        "booted":null}}]}}"#,
        boot.trim(),
        victim.id()
    );
    fs::write(cluster.join("state.json"), &state).unwrap();
    // In a directory of this user's own, the names inside are checked.
    assert_refused(
        &vhost_famfs(&runtime, &["down"]),
        "is not a pool that is made for this cluster",
    );
    let names_nothing_else = state.replace("\"ours\":true", "\"ours\":false");
    fs::write(cluster.join("state.json"), names_nothing_else).unwrap();
    let down = vhost_famfs(&runtime, &["down", "--timeout", "1", "--json"]);
    assert!(String::from_utf8_lossy(&down.stdout).contains("was-dead"), "{down:?}");
    fs::create_dir_all(&cluster).unwrap();
    fs::write(cluster.join("state.json"), &state).unwrap();
    give_away(&runtime);
    for words in [
        &["ps"][..],
        &["down", "--timeout", "1"],
        &["down", "--force"],
        &["exec", "vm1", "--", "true"],
        &["console", "vm1"],
        &["logs"],
    ] {
        assert_refused(&vhost_famfs(&runtime, words), "its contents could come from another user");
    }
    assert!(victim.try_wait().unwrap().is_none(), "the process was ended");
    assert!(precious.exists() && cluster.join("state.json").exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
}

#[test]
fn one_damaged_cluster_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        let cluster = dir.path().join("vhost-famfs").join(name);
        fs::create_dir_all(&cluster).unwrap();
        fs::write(cluster.join("state.json"), "{").unwrap();
    }
    let ps = vhost_famfs(dir.path(), &["ps"]);
    let said = String::from_utf8_lossy(&ps.stderr);
    assert_eq!(ps.status.code(), Some(3), "{ps:?}");
    assert!(said.contains("cluster one: ") && said.contains("cluster two: "), "{said}");
    // Programs also read about them, and about a start that was interrupted before anything was
    // started.
    let empty = dir.path().join("vhost-famfs/empty");
    fs::create_dir(&empty).unwrap();
    let ps = vhost_famfs(dir.path(), &["ps", "--json"]);
    assert_eq!(ps.status.code(), Some(3), "{ps:?}");
    let report = serde_json::from_slice(&ps.stdout).unwrap();
    assert_eq!(problem("ps", &report), None);
    let listed = ["empty", "one", "two"].map(|name| {
        let clusters = report["clusters"].as_array().unwrap();
        let item = clusters.iter().find(|item| item["cluster"] == name).unwrap();
        assert!(item["error"].as_str().unwrap().contains("vhost-famfs down"), "{item}");
        item["status"].as_str().unwrap()
    });
    assert_eq!(listed, ["interrupted", "damaged", "damaged"]);
    fs::remove_dir(&empty).unwrap();
    assert_refused(&vhost_famfs(dir.path(), &["down", "one"]), "down --force one");
    for name in ["one", "two"] {
        assert!(vhost_famfs(dir.path(), &["down", "--force", name]).status.success());
    }
    assert!(!dir.path().join("vhost-famfs").exists());
}

#[test]
fn a_pool_that_another_user_made_is_not_shown_to_a_vm() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let pool = dir.path().join("pool");
    fs::File::create(&pool).unwrap().set_len(16 << 20).unwrap();
    give_away(&pool);
    let (pool, socket) = (pool.to_str().unwrap(), dir.path().join("s"));
    let device = ["device", "--pool", pool, "--socket-path", socket.to_str().unwrap()];
    for words in [&device[..], &["pool", "resize", pool, "--size", "32M"], &["pool", "rm", pool]] {
        assert_refused(&vhost_famfs(dir.path(), words), "--foreign-pool");
    }
    let resize = ["pool", "resize", pool, "--size", "32M", "--foreign-pool"];
    assert!(vhost_famfs(dir.path(), &resize).status.success());
    assert!(vhost_famfs(dir.path(), &["pool", "rm", pool, "--foreign-pool"]).status.success());
}

#[test]
fn a_script_makes_the_directory_of_its_pool_and_refuses_that_of_another() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let own = format!("vhost-famfs-{}", rustix::process::geteuid().as_raw());
    let (own, pool) = (dir.path().join(&own), dir.path().join(&own).join("a.pool"));
    let path = pool.to_str().unwrap();
    let create = ["pool", "create", path, "--size", "16M"];
    let too_large = ["pool", "create", path, "--size", "64T"];
    assert!(!vhost_famfs(dir.path(), &too_large).status.success());
    assert!(!own.exists(), "a failure leaves no directory");
    assert!(vhost_famfs(dir.path(), &create).status.success());
    assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o7777, 0o700);
    let look = ["pool", "inspect", "--trusted", path];
    assert!(vhost_famfs(dir.path(), &look).status.success());
    fs::set_permissions(&pool, Permissions::from_mode(0o666)).unwrap();
    assert_refused(&vhost_famfs(dir.path(), &look), "mode 0666, so that others");
    fs::set_permissions(&pool, Permissions::from_mode(0o600)).unwrap();
    give_away(&own);
    assert_refused(&vhost_famfs(dir.path(), &look), own.to_str().unwrap());
    fs::remove_file(&pool).unwrap();
    assert_refused(&vhost_famfs(dir.path(), &create), own.to_str().unwrap());
}
