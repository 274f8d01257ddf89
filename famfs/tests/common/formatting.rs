// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How tests format a pool.

use famfs::store::mkfs::Options;
use uuid::Uuid;

/// Options with identities that are the same every time, and the log that the device's size asks
/// for.
pub fn options(extensions: bool) -> Options {
    Options {
        log_len: None,
        extensions,
        force: false,
        fs_uuid: Uuid::from_u128(1),
        dev_uuid: Uuid::from_u128(2),
        system_uuid: Uuid::from_u128(3),
        dev_name: "test".into(),
    }
}
