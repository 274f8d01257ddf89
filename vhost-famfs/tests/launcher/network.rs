// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ports of the host that are forwarded to VMs.

use std::fs;
use std::net::TcpListener;

use libtest_mimic::Trial;

use super::host::Host;
use super::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_port_that_qemu_cannot_have_is_refused_before_anything_starts", refused),
        trial("a_change_that_needs_a_port_in_use_ends_nothing", changed),
    ]
}

fn write(host: &Host, port: u16) -> String {
    let file = host.path().join("lab.toml");
    let text = format!(
        "[pool]\nsize = \"64M\"\n[[vm]]\nname = \"web\"\nnetwork = \"user\"\nports = [\"{port}:80\"]\n"
    );
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn refused() {
    let host = Host::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let file = write(&host, port);
    let up = |more: &[&str]| {
        let output = host.run(&[&["up", &file], more].concat());
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = up(&["--overcommit"]);
    assert_eq!(code, Some(1), "{said}");
    let expected = format!(
        "lab.toml:6:9: VM web: cannot listen on 127.0.0.1:{port} of the host for \
         127.0.0.1:{port}:80/tcp; forward another port"
    );
    assert!(said.contains(&expected), "{said}");
    host.assert_nothing_left("a port in use");
    // Another host may have it.
    let (code, said) = up(&["--dry-run", "--emit", "qemu"]);
    assert_eq!(code, Some(0), "{said}");
    drop(listener);
    let (code, said) = up(&["--dry-run", "--overcommit"]);
    assert_eq!(code, Some(0), "{said}");
    let expected = format!("network:      web in user mode, 127.0.0.1:{port} -> 80/tcp\n");
    assert!(said.contains(&expected), "{said}");
    write(&host, 1);
    let (code, said) = up(&["--overcommit"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("VM web: port 1 of the host is below "), "{said}");
}

fn changed() {
    let host = Host::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let up = |file: &str| host.run(&["up", file, "--overcommit"]);
    let file = write(&host, free);
    assert!(up(&file).status.success());
    let pid = host.state("lab").unwrap()["vms"][0]["qemu"].clone();
    write(&host, taken);
    let refused = up(&file);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("VM web: cannot listen on 127.0.0.1:{taken}")), "{said}");
    assert_eq!(host.state("lab").unwrap()["vms"][0]["qemu"], pid, "the VM that runs");
    // The port of a VM that is started anew is in use only until then.
    let listening = TcpListener::bind(("127.0.0.1", free)).unwrap();
    write(&host, free);
    let smaller = fs::read_to_string(&file).unwrap() + "memory = \"512M\"\n";
    fs::write(&file, smaller).unwrap();
    let next = up(&file);
    assert!(next.status.success(), "{next:?}");
    drop(listening);
    assert!(host.run(&["down"]).status.success());
}
