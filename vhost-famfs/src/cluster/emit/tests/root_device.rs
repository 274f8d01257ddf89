// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;

#[test]
fn a_root_device_needs_up() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut disk = [0; 512];
    disk[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::write(dir.path().join("disk"), disk).unwrap();
    let plan = plan(&dir, "[[vm]]\nimage = \"disk\"\nroot = \"ublk\"\noverlay = \"kept\"\n");
    let device = plan.vms[0].root_device.as_ref().unwrap();
    assert_eq!(device.image, dir.path().join("disk"));
    assert_eq!(device.overlay, Some(dir.path().join("kept")));
    for form in [Form::Qemu, Form::Systemd, Form::Libvirt, Form::CloudHypervisor(None)] {
        let expected = EmitError::RootDevice("vm".to_owned());
        assert_eq!(emit(&plan, form).unwrap_err(), expected);
    }
}
