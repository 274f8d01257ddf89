// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that take the place of others while another VM reads them.

use anyhow::{Context, Result, ensure};
use vm_tests::{Node, Pool};

use super::shell;

/// How often host and master each replace a file that the reader reads all the time.
const ROUNDS: usize = 8;
/// Bytes of the two versions of that file.
const SIZES: [usize; 2] = [300_001, 5_000_000];

/// A program that runs from the mount keeps its file, open and mapped, when the master and then the
/// host replace it; who opens the name gets the new one.
pub fn leaves_the_old_file(pool: &Pool, master: &Node, reader: &Node) -> Result<()> {
    shell(master, "famfs cp /usr/bin/sleep /mnt/famfs/program")?;
    reader.wait_for("test -x /mnt/famfs/program")?;
    shell(
        reader,
        "setsid /mnt/famfs/program 1000 </dev/null &>/dev/null &
         echo $! > /run/program.pid
         sha256sum < /usr/bin/sleep > /run/program.sum
         head -c 4096 /usr/bin/sleep | sha256sum > /run/program.page",
    )?;
    let is_old = "pid=$(< /run/program.pid)
        start=$(grep -m 1 /mnt/famfs/program /proc/$pid/maps | cut -d - -f 1)
        page=$(dd if=/proc/$pid/mem bs=4096 skip=$((0x$start / 4096)) count=1 status=none | sha256sum)
        [[ $page == $(< /run/program.page) ]]
        [[ $(sha256sum < /proc/$pid/exe) == $(< /run/program.sum) ]]";
    reader.wait_for(&format!("({is_old})"))?;
    shell(master, "famfs cp --replace /usr/bin/true /mnt/famfs/program")?;
    reader.wait_for("[[ $(sha256sum < /mnt/famfs/program) == $(sha256sum < /usr/bin/true) ]]")?;
    shell(reader, is_old)?;
    shell(reader, "/mnt/famfs/program")?;
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let file = dir.path().join("program");
    std::fs::write(&file, "#!/bin/sh\necho the host\n")?;
    let file = file.to_str().context("a name that is not text")?;
    pool.famfs(["cp", "--replace", "-m", "755", file, "/program"])?;
    for node in [master, reader] {
        node.wait_for("grep -q host /mnt/famfs/program")?;
        let output = shell(node, "/mnt/famfs/program")?;
        ensure!(output.stdout == b"the host\n", "{output:?}");
    }
    shell(reader, is_old)?;
    shell(reader, "kill $(< /run/program.pid)")?;
    // Nothing is left in the place where the master made its file.
    shell(master, "[[ -z $(ls /mnt/famfs/.meta/.new) ]]")?;
    pool.famfs(["fsck"]).map(drop)
}

/// Whoever opens the name finds one version or the other, whole.
pub fn is_never_seen_in_part(pool: &Pool, master: &Node, reader: &Node) -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let files = ["a", "b"].map(|name| dir.path().join(name));
    for (file, size) in files.iter().zip(SIZES) {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        std::fs::write(
            file,
            format!("{name}\n").repeat(size.div_ceil(2)).get(..size).unwrap_or(""),
        )?;
        shell(master, &format!("set +o pipefail; yes {name} | head -c {size} > /run/{name}"))?;
    }
    let copy = |file: &std::path::Path| {
        let file = file.to_str().context("a name that is not text")?;
        pool.famfs(["cp", "--replace", file, "/swapped"])
    };
    copy(&files[0])?;
    reader.wait_for("test -e /mnt/famfs/swapped")?;
    let [one, two] = ["a", "b"].map(|name| format!("sha256sum < /run/{name}"));
    let sums = shell(master, &format!("{one}; {two}"))?;
    let sums = String::from_utf8_lossy(&sums.stdout).replace("  -", "");
    let (one, two) = sums.trim().split_once('\n').context("no two sums")?;
    let look = format!(
        "while [[ ! -e /run/swapped.stop ]]; do
            sum=$(sha256sum < /mnt/famfs/swapped) || sum=none
            case $sum in {one}*|{two}*) echo ${{sum:0:4}} ;; *) echo BAD $sum ;; esac
         done > /run/swapped.seen"
    );
    shell(reader, &format!("setsid bash -c '{look}' </dev/null &>/dev/null &"))?;
    for _ in 0..ROUNDS {
        shell(master, "famfs cp --replace /run/b /mnt/famfs/swapped")?;
        copy(&files[0])?;
    }
    shell(master, "famfs cp --replace /run/b /mnt/famfs/swapped")?;
    reader.wait_for(&format!("[[ $(sha256sum < /mnt/famfs/swapped) == {two}* ]]"))?;
    let seen = shell(reader, "touch /run/swapped.stop; sleep 1; sort /run/swapped.seen | uniq -c")?;
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    println!("# the reader saw: {}", seen.trim().replace('\n', ", "));
    ensure!(!seen.contains("BAD") && seen.lines().count() == 2, "{seen}");
    pool.famfs(["fsck"]).map(drop)
}
