// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The machine's power button (ACPI), by which VMMs ask a guest to shut down: `virsh shutdown`,
//! `system_powerdown` of QEMU.
//!
//! It is not needed for the boot, so its modules are loaded last.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// The kind of modules that the button needs.
pub const MODULES: &str = "power";

/// Input devices, and in each the device's name.
const INPUT: &str = "/sys/class/input";
const NAME: &str = "Power Button";

/// How often to look for the device node, which the kernel makes a moment after the modules are
/// loaded.
const LOOKS: u32 = 50;
const STEP: Duration = Duration::from_millis(20);

/// Size of `struct input_event` (linux/input.h): 16 bytes of time, type, code and value.
const EVENT: usize = 24;
/// A key that is pressed: `EV_KEY`, `KEY_POWER` (linux/input-event-codes.h), 1.
const TYPE_KEY: u16 = 1;
const CODE_POWER: u16 = 116;
const PRESSED: i32 = 1;

/// Opens the button; `None` if the machine has none.
pub fn open() -> Result<Option<File>> {
    let device = (0..LOOKS).find_map(|_| {
        thread::sleep(STEP);
        find(Path::new(INPUT))
    });
    device
        .map(|path| File::open(&path).with_context(|| format!("cannot open {}", path.display())))
        .transpose()
}

/// Calls a function each time that somebody presses the button, until it breaks or fails.
pub fn on_presses(
    mut button: impl Read,
    mut pressed: impl FnMut() -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut event = [0; EVENT];
    loop {
        button.read_exact(&mut event).context("cannot read from the power button")?;
        if is_press(&event) && pressed()?.is_break() {
            return Ok(());
        }
    }
}

/// The device node of the button, if there is one.
fn find(input: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(input).ok()?.flatten();
    let is_event = |name: &OsStr| name.as_encoded_bytes().starts_with(b"event");
    let mut events = entries.filter(|entry| is_event(&entry.file_name()));
    let button = events.find(|entry| {
        fs::read_to_string(entry.path().join("device/name")).is_ok_and(|name| name.trim() == NAME)
    })?;
    Some(Path::new("/dev/input").join(button.file_name()))
}

fn is_press(event: &[u8; EVENT]) -> bool {
    let [.., type0, type1, code0, code1, a, b, c, d] = *event;
    u16::from_ne_bytes([type0, type1]) == TYPE_KEY
        && u16::from_ne_bytes([code0, code1]) == CODE_POWER
        && i32::from_ne_bytes([a, b, c, d]) == PRESSED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> [u8; EVENT] {
        let mut bytes = [7; EVENT];
        bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
        bytes[18..20].copy_from_slice(&code.to_ne_bytes());
        bytes[20..].copy_from_slice(&value.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_press_is_told_from_other_events() {
        assert!(is_press(&event(1, 116, 1)));
        for other in [event(0, 0, 0), event(1, 116, 0), event(1, 28, 1)] {
            assert!(!is_press(&other), "{other:?}");
        }
    }

    #[test]
    fn each_press_counts_until_one_is_enough() {
        let (press, release) = (event(1, 116, 1), event(1, 116, 0));
        let events = [press, release, press, release, press].concat();
        let presses = |enough: usize| {
            let mut count = 0;
            let end = on_presses(&events[..], || {
                count += 1;
                Ok(if count == enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            });
            (count, end.is_ok())
        };
        assert_eq!(presses(2), (2, true));
        assert_eq!(presses(9), (3, false), "the button is gone");
    }

    #[test]
    fn the_button_is_found_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(dir.path()), None);
        for (event, name) in [("event0", "Keyboard\n"), ("event1", "Power Button\n"), ("js0", "")] {
            let device = dir.path().join(event).join("device");
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("name"), name).unwrap();
        }
        assert_eq!(find(dir.path()), Some(PathBuf::from("/dev/input/event1")));
    }
}
