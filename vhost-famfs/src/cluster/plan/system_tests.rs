// SPDX-License-Identifier: Apache-2.0 OR MIT
use std::error::Error;
use std::fs;

use super::*;

/// A host with an appliance image, and the files of a user's own guest.
struct Place {
    dir: tempfile::TempDir,
    host: Host,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::for_tests(dir.path(), "image");
        let mut disk = vec![0; 4096];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        let qcow2 = [&b"QFI\xfb\0\0\0\x03"[..], &[0; 96]].concat();
        let others: [(_, &[u8]); 4] =
            [("qcow2", &qcow2), ("vmlinuz", b"k"), ("initrd", b"i"), ("fd", b"f")];
        for (name, content) in others.into_iter().chain([("disk", &disk[..])]) {
            fs::write(dir.path().join(name), content).unwrap();
        }
        Self { dir, host }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A VM with the user's disk.
    fn own(&self) -> VmSpec {
        VmSpec { image: Some(self.path("disk")), ..VmSpec::new("vm1") }
    }

    fn start(&self, spec: &VmSpec) -> Start {
        let (system, root) = plan(spec, &self.host).unwrap();
        let own = system.own().unwrap();
        assert_eq!(
            (&own.disk, own.format, root),
            (&self.path("disk"), DiskFormat::Raw, Root::Disk)
        );
        own.start.clone()
    }

    /// The key that an error is about, and its text.
    fn refusal(&self, spec: &VmSpec) -> (&'static str, String) {
        let error = plan(spec, &self.host).unwrap_err();
        let text = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        match error.subject() {
            Some(crate::cluster::spec::Subject::Vm(_, key)) => (key, text),
            other => panic!("{other:?}: {text}"),
        }
    }
}

#[test]
fn a_file_is_the_users_own_guest() {
    let mut place = Place::new();
    assert_eq!(place.start(&place.own()), Start::Firmware(None));
    let root = Some(Root::Disk);
    assert_eq!(place.start(&VmSpec { root, ..place.own() }), Start::Firmware(None));
    let ublk = VmSpec { root: Some(Root::Ublk), ..place.own() };
    assert_eq!(plan(&ublk, &place.host).unwrap().1, Root::Ublk);
    let firmware = Some(place.path("fd"));
    let spec = VmSpec { firmware: firmware.clone(), ..place.own() };
    assert_eq!(place.start(&spec), Start::Firmware(firmware));
    let (kernel, append) = (place.path("vmlinuz"), "root=/dev/vda1".to_owned());
    for initrd in [None, Some(place.path("initrd"))] {
        let spec = VmSpec {
            kernel: Some(kernel.clone()),
            initrd: initrd.clone(),
            append: Some(append.clone()),
            ..place.own()
        };
        let (kernel, append) = (kernel.clone(), append.clone());
        assert_eq!(place.start(&spec), Start::Kernel { kernel, initrd, append });
    }
    // The option --image may name it, too.
    place.host.image = Some(place.path("disk"));
    assert_eq!(place.start(&VmSpec::new("vm1")), Start::Firmware(None));
}

#[test]
fn what_an_image_does_not_take_is_refused_by_name() {
    let place = Place::new();
    let (own, path) = (place.own(), |name: &str| Some(place.path(name)));
    let words = || Some("root=/dev/vda1".to_owned());
    let (appliance, ublk) = (VmSpec::new("vm1"), Some(Root::Ublk));
    let table = [
        (VmSpec { root: Some(Root::Memory), ..own.clone() }, "root", "only appliance images have"),
        (VmSpec { root: ublk, image: path("qcow2"), ..own.clone() }, "root", "convert -O raw"),
        (VmSpec { root: ublk, ..appliance.clone() }, "root", "is never written"),
        (VmSpec { shell: true, ..own.clone() }, "shell", "omit it"),
        (VmSpec { append: words(), ..own.clone() }, "append", "without kernel"),
        (VmSpec { initrd: path("initrd"), ..own.clone() }, "initrd", "without kernel"),
        (VmSpec { kernel: path("vmlinuz"), ..own.clone() }, "kernel", "add append = \"root="),
        (
            VmSpec {
                kernel: path("vmlinuz"),
                append: words(),
                firmware: path("fd"),
                ..own.clone()
            },
            "firmware",
            "omit one of the two",
        ),
        (VmSpec { kernel: path("none"), ..own.clone() }, "kernel", "no kernel"),
        (VmSpec { firmware: path("none"), ..own.clone() }, "firmware", "no firmware"),
        (VmSpec { image: path("vmlinuz"), ..own.clone() }, "image", "expected a disk image"),
        (VmSpec { image: path("none"), ..own }, "image", "found nothing"),
        (
            VmSpec { image: Some("/dev/null".into()), ..place.own() },
            "image",
            "(a file or a block device)",
        ),
        (VmSpec { append: words(), ..appliance.clone() }, "append", "a disk image of your own"),
        (VmSpec { initrd: path("initrd"), ..appliance.clone() }, "initrd", "has its own"),
        (VmSpec { firmware: path("fd"), ..appliance }, "firmware", "has its own"),
    ];
    for (spec, key, why) in table {
        let (found, text) = place.refusal(&spec);
        assert!(found == key && text.starts_with("VM vm1") && text.contains(why), "{key}: {text}");
    }
}
