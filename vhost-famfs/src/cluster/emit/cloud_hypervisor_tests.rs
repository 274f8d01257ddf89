// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;

#[test]
fn cloud_hypervisor_maps_pools_itself() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut plan = plan(&dir, TWO);
    let error = emit(&plan, Form::CloudHypervisor(None)).unwrap_err().to_string();
    assert!(error.contains("image, of 100%"), "a comma cannot be quoted there: {error}");
    for vm in &mut plan.vms {
        vm.config.system = Image::open(with_image(&dir)).unwrap().into();
    }
    let text = only(emit(&plan, Form::CloudHypervisor(None)).unwrap());
    let pool = plan.pool.path.display();
    assert!(text.contains(&format!("--pmem file={pool},discard_writes=off")), "{text}");
    assert!(text.contains(&format!("--pmem file={pool},discard_writes=on")), "the read-only VM");
    assert!(text.contains("VHOST_USER_PROTOCOL_F_SHMEM"), "says why: {text}");
    for vm in &plan.vms {
        let socket = vm.config.paths.vsock.display();
        assert!(text.contains(&format!("--vsock cid=3,socket={socket} ")), "{text}");
        let marks = format!("MARK={} {ROLE}={}/qemu \\\n", plan.instance, vm.name());
        assert!(text.contains(&(marks + "cloud-hypervisor ")), "{text}");
    }
    assert_eq!(text.matches("io.systemd.credential:famfs.vsock=1").count(), 2, "{text}");
    assert!(text.contains(" emitted start ") && text.contains("trap stop EXIT"), "{text}");
    let newest = CloudHypervisor::newest();
    assert!(text.contains("system_uuid=") && text.contains(",image_type=raw"), "{text}");
    let before = CloudHypervisor { uuid_option: "uuid", image_type: false, ..newest.clone() };
    let before = only(emit(&plan, Form::CloudHypervisor(Some(&before))).unwrap());
    assert!(before.contains("uuid=") && !before.contains("system_uuid="), "{before}");
    assert!(!before.contains("image_type="), "{before}");
    let old = CloudHypervisor { version: "20.0".into(), pmem: false, ..newest };
    let error = emit(&plan, Form::CloudHypervisor(Some(&old))).unwrap_err().to_string();
    assert!(error.contains("cloud-hypervisor 20.0: it has no --pmem"), "{error}");
}
