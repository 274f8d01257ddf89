// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What QEMU can do with the pool through its open files.

use std::fs;

use libtest_mimic::Trial;

use super::host::Host;
use super::trial;

/// The bits of a file's flags that tell how it was opened (open(2)).
const ACCESS_MODE: u32 = 0o3;
const READ_ONLY: u32 = 0;

pub fn trials() -> Vec<Trial> {
    vec![trial("a_vm_that_only_reads_holds_the_pool_for_reading_only", only_reads)]
}

fn only_reads() {
    let host = Host::new();
    let pool = host.path().join("pool");
    let file = host.path().join("lab.toml");
    let text = format!(
        "[pool]\npath = {pool:?}\nsize = \"16M\"\n[[vm]]\nname = \"writer\"\ntransport = \"pmem\"\n\
         [[vm]]\nname = \"reader\"\naccess = \"ro\"\n"
    );
    fs::write(&file, text).unwrap();
    host.json(&["up", file.to_str().unwrap(), "--overcommit", "--json"]);
    let state = host.state("lab").unwrap();
    for (index, reads) in [(0, false), (1, true)] {
        let pid = &state["vms"][index]["qemu"]["pid"];
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let held = open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|file| file == pool));
        let modes: Vec<_> = held
            .map(|fd| {
                let number = fd.file_name().into_string().unwrap();
                let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap();
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
                u32::from_str_radix(flags.trim(), 8).unwrap() & ACCESS_MODE == READ_ONLY
            })
            .collect();
        assert_eq!(modes, [reads], "VM {index}");
    }
    // The lock is there nevertheless.
    let resize = host.run(&["pool", "resize", pool.to_str().unwrap(), "--size", "32M"]);
    assert!(!resize.status.success(), "{resize:?}");
    host.json(&["down", "--json"]);
    host.assert_nothing_left("down");
}
