// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};

use famfs::system::neighbours::wake_all_in;

use super::*;

/// A time that no working relay needs.
const LIMIT: Duration = Duration::from_secs(60);

/// A VM whose guest is this test, with its relay.
struct Guest {
    port: UnixStream,
    stop: Option<UnixStream>,
    relay: Option<JoinHandle<io::Result<()>>>,
}

impl Guest {
    fn start(pool: PoolId, dir: &Path, name: &str) -> Self {
        let path = dir.join(name);
        let relay = Relay::join(&base(dir), pool, path.clone()).unwrap();
        let (stop, stopped) = UnixStream::pair().unwrap();
        let relay = Some(thread::spawn(move || relay.run(stopped)));
        // After the relay, as QEMU does.
        thread::sleep(Duration::from_millis(30));
        let (port, _) = UnixListener::bind(&path).unwrap().accept().unwrap();
        port.set_read_timeout(Some(LIMIT)).unwrap();
        Self { port, stop: Some(stop), relay }
    }

    /// Waits for a wake-up.
    fn hears(&mut self) {
        assert_ne!(self.port.read(&mut [0; 4096]).unwrap(), 0);
    }

    /// Whether one comes within a tenth of a second.
    fn hears_something(&mut self) -> bool {
        self.port.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let heard = self.port.read(&mut [0; 4096]);
        self.port.set_read_timeout(Some(LIMIT)).unwrap();
        heard.is_ok()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(relay) = self.relay.take() {
            relay.join().unwrap().unwrap();
        }
    }
}

fn base(dir: &Path) -> PathBuf {
    dir.join("run")
}

/// A pool that nobody else has.
fn pool(dir: &Path) -> PoolId {
    let path = dir.join("pool");
    fs::write(&path, "").unwrap();
    PoolId::of(&path.metadata().unwrap())
}

#[test]
fn a_guest_is_woken_by_the_host_and_by_its_neighbours_but_not_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let [mut one, mut two] = ["one", "two"].map(|name| Guest::start(pool, dir.path(), name));
    wake_all_in(&base(dir.path()), pool);
    one.hears();
    two.hears();
    one.port.write_all(b"x").unwrap();
    two.hears();
    assert!(!one.hears_something());
    two.port.write_all(b"x").unwrap();
    one.hears();
    drop((one, two));
    assert!(!dir.path().join("run/.wake").exists());
}

#[test]
fn a_guest_that_sends_without_end_wakes_others_now_and_then() {
    // The second is, again and again, the start of a report that is none.
    for stream in [[0; 4096].as_slice(), [1, 0x50, 0, 0].repeat(1024).as_slice()] {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool(dir.path());
        let [mut bad, mut good] = ["bad", "good"].map(|name| Guest::start(pool, dir.path(), name));
        bad.port.set_nonblocking(true).unwrap();
        good.port.set_nonblocking(true).unwrap();
        let (start, mut heard, mut taken) = (Instant::now(), 0, 0);
        while start.elapsed() < Duration::from_millis(500) {
            taken += bad.port.write(stream).unwrap_or(0);
            heard += good.port.read(&mut [0; 4096]).unwrap_or(0);
        }
        // A burst, and one each 20 ms.
        let most = 9 + usize::try_from(start.elapsed().as_millis()).unwrap() / 20;
        assert!((1..=most).contains(&heard), "woken {heard} times, expected at most {most}");
        // What each takes of the port, and what the kernel holds.
        assert!(taken < (most + 8) << 16, "took {taken} bytes");
        good.port.set_nonblocking(false).unwrap();
        good.port.write_all(b"x").unwrap();
        bad.port.set_nonblocking(false).unwrap();
        bad.hears();
    }
}

#[test]
fn a_guest_that_does_not_read_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let [mut deaf, mut good] = ["deaf", "good"].map(|name| Guest::start(pool, dir.path(), name));
    // Until the socket of the deaf one is full.
    let full = |guest: &Guest| {
        let end = Instant::now() + LIMIT;
        let queued = || rustix::io::ioctl_fionread(&guest.port).unwrap();
        let (mut before, mut same) = (0, 0);
        while same < 100 && Instant::now() < end {
            wake_all_in(&base(dir.path()), pool);
            thread::sleep(Duration::from_millis(3));
            let now = queued();
            same = if now == before { same + 1 } else { 0 };
            before = now;
        }
        assert_eq!(same, 100, "{before} bytes");
    };
    full(&deaf);
    while good.hears_something() {}
    wake_all_in(&base(dir.path()), pool);
    good.hears();
    deaf.port.write_all(b"x").unwrap();
    good.hears();
    // It still finds that something happened.
    deaf.hears();
}
