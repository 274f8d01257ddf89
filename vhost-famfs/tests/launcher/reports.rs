// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The output of `up`, `ps` and `down` for other programs, and shell completions while a cluster is
//! up.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::host::Host;
use super::kernel;
use super::schema::problem;
use super::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("reports_of_clusters_are_what_the_schema_says", reports),
        trial("bash_completes_words_and_names", completions),
    ]
}

fn reports() {
    let mut host = Host::new();
    let up = host.json(&["up", "--name", "lab", "--vms", "2", "--overcommit", "--json"]);
    assert_eq!(problem("up", &up), None);
    let ps = host.json(&["ps", "--json"]);
    assert_eq!(problem("ps", &ps), None);
    assert_eq!(ps["clusters"][0]["vms"].as_array().unwrap().len(), 2);
    let pid = ps["clusters"][0]["vms"][1]["pid"].as_i64().unwrap();
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    let limit = Instant::now() + Duration::from_secs(10);
    let (ps, told) = loop {
        let output = host.run(&["ps", "lab", "--json"]);
        let ps: Value = serde_json::from_slice(&output.stdout).unwrap();
        let end = &ps["clusters"][0]["vms"][1]["ended"];
        // The kernel reports the signal once the parent has reaped the process.
        let may_be_told = kernel::tells_ends() && !Path::new(&format!("/proc/{pid}")).exists();
        let is_told = end["signal"] == 9;
        if output.status.code() == Some(3) && end.is_object() && (is_told || !kernel::tells_ends())
        {
            break (ps, is_told);
        }
        if Instant::now() > limit {
            assert!(end.is_object() && !may_be_told, "{ps}");
            break (ps, is_told);
        }
    };
    assert_eq!(problem("ps", &ps), None);
    let vms = &ps["clusters"][0]["vms"];
    assert_eq!((&vms[1]["status"], &vms[1]["ended"]["pid"]), (&json!("ended"), &json!(pid)));
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let time = vms[1]["ended"]["time"].as_u64().unwrap();
    assert!((seconds - 60..=seconds).contains(&time), "{ps}");
    assert!(vms[0]["ended"].is_null() && vms[0]["backend_ended"].is_null(), "{ps}");
    let table = host.run(&["ps"]).stdout;
    let table = String::from_utf8(table).unwrap();
    let row = table.lines().find(|line| line.starts_with("vm2 ")).unwrap();
    assert!(row.contains(if told { " killed (SIGKILL) " } else { " ended " }), "{table}");
    let clock = row.split_whitespace().last().unwrap();
    assert_eq!((clock.len(), clock.matches(':').count()), (8, 2), "{table}");
    let wide = table.lines().find(|line| line.chars().count() > 80 && !line.starts_with("pool "));
    assert_eq!(wide, None, "more than 80 columns");
    let down = host.json(&["down", "--json"]);
    assert_eq!(problem("down", &down), None);
    host.assert_nothing_left("down");
    host.assert_bystander_unharmed();
}

/// What bash offers to complete the last of these words, as when the Tab key is pressed.
fn completed(host: &Host, line: &[&str]) -> Vec<String> {
    const SCRIPT: &str = r#"
        source <(VHOST_FAMFS_COMPLETE=bash "$0")
        function=$(complete -p vhost-famfs)
        function=${function##*-F }
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9
        "${function%% *}" vhost-famfs "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", SCRIPT, env!("CARGO_BIN_EXE_vhost-famfs"), "vhost-famfs"]);
    command.args(line).env("XDG_RUNTIME_DIR", host.path().join("run"));
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{line:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn completions() {
    let host = Host::new();
    host.json(&["up", "--name", "lab", "--vms", "2", "--overcommit", "--json"]);
    let table: [(&[&str], &[&str]); 11] = [
        (&["po"], &["pool"]),
        (&["pool", "cr"], &["create"]),
        (&["pool", "create", "--vi"], &["--view"]),
        (&["pool", "create", "--view", ""], &["devdax", "raw"]),
        (&["up", "--over"], &["--overcommit"]),
        (&["ublk", "rec"], &["recover"]),
        (&["down", "l"], &["lab"]),
        (&["exec", "v"], &["vm1", "vm2"]),
        (&["exec", "--cluster", ""], &["lab"]),
        (&["logs", "--of", "q"], &["qemu"]),
        (&["console", "vm2"], &["vm2"]),
    ];
    for (line, expected) in table {
        assert_eq!(completed(&host, line), expected, "{line:?}");
    }
    host.json(&["down", "--json"]);
    assert_eq!(completed(&host, &["down", "l"]), [""; 1]);
}
