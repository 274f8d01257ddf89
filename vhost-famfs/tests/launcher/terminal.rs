// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The output of a guest, its agent and QEMU must not control the terminal.

use std::process::Output;

use libtest_mimic::Trial;

use super::harmful::harmful;
use super::host::Host;
use super::stand_in::RUDE;
use super::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("an_agent_that_says_what_it_likes_is_told_about_only", running),
        trial("a_start_that_fails_tells_about_its_logs_only", failing),
    ]
}

const UP: [&str; 6] = ["up", "--name", "lab", "--vms", "1", "--overcommit"];

/// Runs a command; returns how often it printed a control sequence in escaped form.
fn told(host: &Host, qemu: &str, words: &[&str]) -> usize {
    let Output { stdout, stderr, .. } = host.command(qemu, words).output().unwrap();
    let mut count = 0;
    for (stream, bytes) in [("output", &stdout), ("errors", &stderr)] {
        let shown = bytes.escape_ascii();
        if let Some(found) = harmful(bytes) {
            panic!("{words:?}: {stream}: {found} in {shown}");
        }
        count += String::from_utf8_lossy(bytes).matches("pwned").count();
    }
    count
}

fn running() {
    assert!(harmful(RUDE.as_bytes()).is_some());
    let mut host = Host::new();
    let up = host.command("qemu-rude", &UP).output().unwrap();
    assert!(up.status.success() && harmful(&up.stderr).is_none(), "{up:?}");
    let table: [(&[&str], bool); 8] = [
        (&["ps"], false),
        (&["ps", "--json"], false),
        (&["exec", "vm1", "--", "true"], true),
        (&["exec", "vm1", "--", "nonsense"], false),
        (&["logs", "vm1"], true),
        (&["logs", "vm1", "--of", "console"], true),
        (&["logs", "vm1", "--of", "qemu"], true),
        (&["down", "--timeout", "1"], false),
    ];
    for (words, is_told) in table {
        let count = told(&host, "qemu-rude", words);
        assert!(count > 0 || !is_told, "{words:?}: it does not tell what was said");
    }
    host.assert_nothing_left("down");
    host.assert_bystander_unharmed();
}

fn failing() {
    let mut host = Host::new();
    assert!(told(&host, "qemu-failing", &UP) > 0, "it does not tell what was said");
    let json = [&UP[..], &["--json"]].concat();
    told(&host, "qemu-failing", &json);
    host.assert_nothing_left("a start that failed");
    host.assert_bystander_unharmed();
}
