// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use crate::cluster::cluster_file;
use crate::cluster::host::Host;
use crate::pool::CreateOptions;
use crate::vm::Accelerator;
use famfs::format::view::View;
use rustix::fs::FlockOperation;
use tempfile::TempDir;

/// The plan of a cluster with this text as its cluster file, on a host that has everything.
fn plan(dir: &TempDir, accelerator: Accelerator, text: &str) -> ClusterPlan {
    let host = Host { accelerator, ..Host::for_tests(dir.path(), "image") };
    let file = dir.path().join("lab.toml");
    fs::write(&file, text).unwrap();
    ClusterPlan::new(&cluster_file::read(&file).unwrap().spec, &host).unwrap()
}

/// Why the plan is refused.
fn refusal(dir: &TempDir, accelerator: Accelerator, text: &str) -> Option<String> {
    let error = before_start(&plan(dir, accelerator, text), false, 0).err()?;
    let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    Some(chain.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// A directory on disk: in cargo's directory, because /tmp is often a tmpfs.
fn on_storage() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
}

fn pool(dir: &TempDir, size: u64) -> File {
    let file = File::create_new(dir.path().join("pool")).unwrap();
    file.set_len(size).unwrap();
    file
}

const MINE: &str = "[pool]\npath = \"pool\"\n[[vm]]\nmount = false\n";

#[test]
fn a_pool_that_is_fit_is_let_through() {
    let dir = in_memory();
    pool(&dir, 16 << 20);
    assert_eq!(refusal(&dir, Accelerator::Tcg, MINE), None);
    assert_eq!(refusal(&dir, Accelerator::Tcg, "[[vm]]\n"), None, "one that would be made");
}

#[test]
fn a_pool_that_another_program_changes_is_told() {
    let dir = in_memory();
    let file = pool(&dir, 16 << 20);
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    let refusal = refusal(&dir, Accelerator::Tcg, MINE).unwrap();
    assert!(refusal.contains("busy: another program is changing it"), "{refusal}");
}

#[test]
fn a_pool_to_be_made_must_have_a_size_and_room() {
    let dir = in_memory();
    for (size, expected) in
        [("8M", "at least 16 MiB"), ("17M", "in steps of 2 MiB"), ("900T", "has only")]
    {
        let text = format!("[pool]\nsize = \"{size}\"\n[[vm]]\nmemory = \"64T\"\n");
        let refusal = refusal(&dir, Accelerator::Tcg, &text).unwrap();
        assert!(refusal.contains(expected), "{size}: {refusal}");
    }
}

#[test]
fn the_room_of_a_file_system_needs_no_storage() {
    let dir = on_storage();
    let options = CreateOptions::new(dir.path().join("pool"), 32 << 20, View::Devdax);
    let options = CreateOptions { mkfs: true, max: Some(4 << 40), ..options };
    pool::create(&options, &mut |_, _| ()).unwrap();
    // A guest needs RAM for the descriptions of so many pages.
    before_start(&plan(&dir, Accelerator::Tcg, MINE), true, 0).unwrap();
    let slice = "access = \"slice\"\noffset = \"64M\"\nlength = \"16M\"\n";
    let error = before_start(&plan(&dir, Accelerator::Tcg, &(MINE.to_owned() + slice)), true, 0);
    assert!(matches!(error, Err(PreflightError::Holes { .. })), "{error:?}");
}

#[test]
fn holes_must_have_room_in_the_file_system() {
    let dir = on_storage();
    pool(&dir, 16 << 20);
    assert_eq!(refusal(&dir, Accelerator::Tcg, MINE), None);
    let file = File::options().write(true).open(dir.path().join("pool")).unwrap();
    // 8 TiB: within what file systems allow for a file with holes.
    file.set_len(8 << 40).unwrap();
    let refusal = refusal(&dir, Accelerator::Tcg, MINE).unwrap();
    assert!(
        refusal.contains("of it are holes") && refusal.contains("free some space there"),
        "{refusal}"
    );
}

#[test]
fn huge_pages_that_are_missing_are_told() {
    let error = pool::check_huge_pages(2 << 20, 1 << 50).unwrap_err().to_string();
    assert!(error.contains("nr_hugepages") || error.contains("huge pages"), "{error}");
}

#[test]
fn a_guest_gets_the_bits_or_the_pool_is_too_large() {
    let dir = in_memory();
    let file = pool(&dir, 1 << 40);
    let text = format!("{MINE}memory = \"20G\"\n");
    let told = refusal(&dir, Accelerator::Tcg, &text).unwrap();
    assert!(!told.contains("physical addresses"), "an emulated processor has enough bits: {told}");
    file.set_len(1 << 51).unwrap();
    let text = format!("{MINE}memory = \"64T\"\n");
    for accelerator in [Accelerator::Tcg, Accelerator::Kvm] {
        let refusal = refusal(&dir, accelerator, &text).unwrap();
        assert!(refusal.contains("needs a guest with 53 bits"), "{refusal}");
    }
}

#[test]
fn a_pool_that_exists_must_have_a_size_that_guests_can_map() {
    for size in [8 << 20, 17 << 20] {
        let dir = in_memory();
        pool(&dir, size);
        let mut spec = crate::cluster::spec::Spec::of_shares("lab", 1, Vec::new());
        spec.pool.path = Some(dir.path().join("pool"));
        let refusal = ClusterPlan::new(&spec, &Host::for_tests(dir.path(), "image")).unwrap_err();
        let refusal = refusal.to_string();
        assert!(refusal.contains("a pool needs at least 16 MiB, in steps of 2 MiB"), "{refusal}");
    }
}

#[test]
fn a_full_disk_is_told() {
    let dir = on_storage();
    let text = "[pool]\npath = \"pool\"\nsize = \"900T\"\n[[vm]]\nmemory = \"64T\"\n";
    let refusal = refusal(&dir, Accelerator::Tcg, text).unwrap();
    assert!(refusal.contains("needs 900 TiB, but") && refusal.contains("iB free"), "{refusal}");
}

#[test]
fn holes_of_a_pool_in_memory_must_have_room() {
    let dir = in_memory();
    pool(&dir, 1 << 40);
    let text = format!("{MINE}memory = \"20G\"\n");
    let refusal = refusal(&dir, Accelerator::Tcg, &text).unwrap();
    assert!(refusal.contains("1 TiB of it are holes"), "{refusal}");
}

#[test]
fn all_vms_together_must_fit_into_memory() {
    let dir = in_memory();
    pool(&dir, 16 << 20);
    // Each VM alone would be refused too, but with another sum.
    let text = format!("{MINE}memory = \"32T\"\ncount = 2\nname = \"vm\"\n");
    let refusal = refusal(&dir, Accelerator::Tcg, &text).unwrap();
    assert!(
        refusal.contains(
            "too little memory: up to 67108880 MiB needed, 64 TiB by 2 VMs and 16 MiB by the pool"
        ),
        "{refusal}"
    );
    assert!(refusal.contains("MiB available; reduce the VMs' memory"), "{refusal}");
    let headroom = before_start(&plan(&dir, Accelerator::Tcg, &text), true, 0).unwrap();
    assert_eq!((headroom.ram, headroom.is_enough()), (64 << 40, false));
    // What VMs have that end before counts as available.
    before_start(&plan(&dir, Accelerator::Tcg, &text), false, 65 << 40).unwrap();
}
