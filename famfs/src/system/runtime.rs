// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directory for what lives as long as virtual machines of this user. All programs that must
//! meet there take it from here.

use std::env;
use std::path::{Path, PathBuf};

/// Its name in the runtime directory of the user.
const NAME: &str = "vhost-famfs";

/// There is no place for such a directory.
#[derive(Debug, thiserror::Error)]
#[error(
    "no runtime directory: XDG_RUNTIME_DIR is not set and {} does not exist; log in through your \
     system's login service, or set XDG_RUNTIME_DIR to a directory of your own in memory", .0.display()
)]
pub struct NoRuntime(pub PathBuf);

/// The directory: in `$XDG_RUNTIME_DIR`, else where login services put that directory. It need not
/// exist.
///
/// # Errors
/// There is no place for it.
pub fn runtime_dir() -> Result<PathBuf, NoRuntime> {
    if let Some(dir) = env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join(NAME));
    }
    let uid = rustix::process::geteuid();
    let usual = PathBuf::from(format!("/run/user/{}", uid.as_raw()));
    if usual.is_dir() {
        return Ok(usual.join(NAME));
    }
    // Root uses /run directly, as system services do.
    if uid.is_root() && Path::new("/run").is_dir() {
        return Ok(Path::new("/run").join(NAME));
    }
    Err(NoRuntime(usual))
}
