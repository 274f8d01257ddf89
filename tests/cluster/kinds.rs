// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clusters on other kinds of pools, with both transports: huge pages, and a file with holes in a
//! user's tmpfs. (The cluster from a file is on disk.)

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::{Artifacts, Session, health};

use super::huge_pages::HugePages;
use super::program::Program;

const SIZE: u64 = 64 << 20;
const HUGE_PAGE: u64 = 2 << 20;

/// A cluster with one VM that has a back-end and one that has none.
struct Kind {
    name: &'static str,
    pool: PathBuf,
    pages: &'static str,
}

/// Runs all checks on a cluster with each kind.
pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    // Freed after the clusters, which the program ends if this fails halfway.
    let huge = HugePages::reserve(SIZE / HUGE_PAGE)?;
    let program = Program::new(artifacts)?;
    let data = program.pools.path().join("data");
    fs::create_dir(&data)?;
    fs::write(data.join("file"), vec![b'x'; 4 << 20])?;
    let pool = program.pools.path().join("by-hand");
    File::create_new(&pool)?.set_len(SIZE)?;
    let mut kinds = vec![Kind { name: "tmpfs", pool, pages: "4K" }];
    match &huge {
        Some(huge) => {
            kinds.push(Kind { name: "hugetlbfs", pool: huge.path().join("pool"), pages: "2M" });
        }
        None => session.skip("a cluster in huge pages", "no 32 pages of 2 MiB can be reserved"),
    }
    slice(session, &program)?;
    // One after the other, because four VMs that boot at the same time are slow on two processors.
    for kind in &kinds {
        let name = kind.name;
        let up = up(&program, kind, &data).with_context(|| format!("cluster {name}"))?;
        session.check(&format!("{name}: both transports mount the pool"), || {
            for (vm, transport) in [(0, "shmem"), (1, "pmem")] {
                let vm = &up["vms"][vm];
                ensure!(vm["mounted"] == true && vm["transport"] == transport, "{up}");
            }
            Ok(())
        });
        session.check(&format!("{name}: a store is seen with the other transport"), || {
            stores(&program, kind)
        });
        session.check(&format!("{name}: ps and pool inspect tell its pages"), || {
            account(&program, kind)
        });
        session.check(&format!("{name}: doctor finds nothing wrong with either VM"), || {
            ["shmem", "pmem"].iter().try_for_each(|vm| doctor(&program, name, vm))
        });
        session.check(&format!("{name}: down leaves the pool, clean"), || {
            program.ok(&["down", name])?;
            let fsck = program.famfs(&kind.pool, &["fsck"])?;
            ensure!(fsck.status.success(), "{fsck:?}");
            let file = program.famfs(&kind.pool, &["cat", "file"])?;
            ensure!(file.stdout.starts_with(b"two") && file.stdout.len() == 4 << 20, "other data");
            program.ok(&["pool", "rm", "--force", &kind.pool.to_string_lossy()]).map(drop)
        });
    }
    Ok(())
}

fn doctor(program: &Program<'_>, cluster: &str, vm: &str) -> Result<()> {
    let words = ["exec", "-n", "--cluster", cluster, vm, "--", "bash", "-c", health::DOCTOR];
    health::check(vm, program.ok(&words)?.as_bytes())
}

/// A VM that sees a part of a pool without a famfs, and mounts nothing.
fn slice(session: &mut Session, program: &Program<'_>) -> Result<()> {
    let pool = program.pools.path().join("slices");
    let text = format!(
        "[pool]\npath = {pool:?}\nsize = \"64M\"\n[[vm]]\nname = \"slice\"\nmemory = \"512M\"\n\
         access = \"slice\"\noffset = \"16M\"\nlength = \"32M\"\n"
    );
    let file = program.pools.path().join("slices.toml");
    fs::write(&file, text)?;
    program.json(&["up", &file.to_string_lossy(), "--json"]).context("cluster slices")?;
    session.check("slices: doctor finds nothing wrong with the VM", || {
        let words =
            ["exec", "-n", "--cluster", "slices", "slice", "--", "famfs", "doctor", "--json"];
        health::check("slice", program.ok(&words)?.as_bytes())
    });
    program.ok(&["down", "slices"])?;
    program.ok(&["pool", "rm", "--force", &pool.to_string_lossy()]).map(drop)
}

fn up(program: &Program<'_>, kind: &Kind, data: &Path) -> Result<Value> {
    let Kind { name, pool, .. } = kind;
    let text = format!(
        "[pool]\npath = {pool:?}\nkind = {name:?}\nsize = \"64M\"\n[[import]]\nfrom = {data:?}\n\
         [[vm]]\nname = \"shmem\"\nmemory = \"512M\"\n\
         [[vm]]\nname = \"pmem\"\nmemory = \"512M\"\ntransport = \"pmem\"\n"
    );
    let file = program.pools.path().join(format!("{name}.toml"));
    fs::write(&file, text)?;
    program.json(&["up", &file.to_string_lossy(), "--json"])
}

/// Each of the two stores through a different transport.
fn stores(program: &Program<'_>, kind: &Kind) -> Result<()> {
    for (from, to, word) in [("shmem", "pmem", "one"), ("pmem", "shmem", "two")] {
        let shell = |vm, script: &str| {
            let words = ["exec", "-n", "--cluster", kind.name, vm, "--", "sh", "-c", script];
            program.ok(&words)
        };
        shell(from, &format!("printf {word} 1<>/mnt/famfs/file; sync /mnt/famfs/file"))?;
        let seen = shell(to, "head -c 3 /mnt/famfs/file")?;
        ensure!(seen == word, "{to} reads {seen:?}, {from} wrote {word:?}");
        let held = program.famfs(&kind.pool, &["cat", "file"])?;
        ensure!(held.stdout.starts_with(word.as_bytes()), "the pool has other data");
    }
    Ok(())
}

/// The pool's memory and pages, as reported by `ps` (text and JSON) and by `pool inspect`.
fn account(program: &Program<'_>, kind: &Kind) -> Result<()> {
    let Kind { name, pool, pages } = kind;
    // A guest's first read of a page fills a hole of the file, so compare readings before and
    // after, not one reading.
    let inspect = || program.json(&["pool", "inspect", &pool.to_string_lossy(), "--json"]);
    let before = inspect()?["allocated"].clone();
    let report = &program.json(&["ps", name, "--json"])?["clusters"][0];
    let number = |value: &Value| value.as_u64().context("no number");
    let mut ram = 0;
    let huge = *pages != "4K";
    for vm in report["vms"].as_array().context("no VMs")? {
        ram += number(&vm["ram_touched_bytes"])?;
        ensure!(number(&vm["pool_mapped_bytes"])? == SIZE, "{report}");
        ensure!(number(&vm["pool_page_bytes"])? == if huge { HUGE_PAGE } else { 4096 }, "{report}");
    }
    let allocated = number(&report["pool"]["allocated"])?;
    // A file with holes occupies what was stored; huge pages are all allocated beforehand.
    ensure!(if huge { allocated == SIZE } else { allocated < SIZE / 2 }, "{report}");
    let once = ram + allocated + number(&report["root_bytes"])?;
    ensure!(number(&report["host_bytes"])? == once, "the pool counts once: {report}");
    let table = program.ok(&["ps", name])?;
    println!("# {}", table.trim().replace('\n', "\n# "));
    let rows = table.lines().filter(|line| line.contains(" running "));
    ensure!(rows.clone().count() == 2 && rows.clone().all(|row| row.ends_with(pages)), "{table}");
    let inspected = inspect()?;
    let between = number(&before)?..=number(&inspected["allocated"])?;
    ensure!(between.contains(&allocated), "{allocated} bytes, by inspect {between:?}");
    ensure!(inspected["kind"] == *name, "{inspected}");
    ensure!(inspected["view"] == if huge { "devdax" } else { "raw" }, "{inspected}");
    let mapped = |holder: &&Value| holder["mapped"] == SIZE;
    let holders = inspected["holders"].as_array().context("no holders")?;
    ensure!(holders.iter().filter(mapped).count() >= 2, "the VMs do not map it: {inspected}");
    Ok(())
}
