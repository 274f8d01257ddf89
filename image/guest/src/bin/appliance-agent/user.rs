// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Looks up whom a command runs as, in the guest's passwd(5) and group(5).

use std::fs;
use std::io::ErrorKind;

use rustix::process::{Gid, Uid};

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// The home of a user that has no entry.
const NO_HOME: &str = "/";

/// Whom a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
    /// The supplementary groups: those that have the user as a member, or only the group if one was
    /// asked for.
    pub groups: Vec<Gid>,
    /// The user's name, if there is an entry.
    pub name: Option<String>,
    /// The home directory.
    pub home: String,
}

impl User {
    /// Finds `NAME|UID[:GROUP|GID]`. A number needs no entry; without one, the group is 0 unless
    /// one is asked for.
    ///
    /// # Errors
    /// What is not there, for people.
    pub fn find(wanted: &str) -> Result<Self, String> {
        Self::look_up(wanted, &read(USERS)?, &read(GROUPS)?)
    }

    fn look_up(wanted: &str, users: &str, groups: &str) -> Result<Self, String> {
        let (user, group) = match wanted.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (wanted, None),
        };
        // name:password:uid:gid:comment:home:shell
        let entry = entry(users, user, 7);
        let field = |index: usize| entry.as_ref().map(|entry| entry[index]);
        let uid = field(2).or(Some(user)).and_then(number);
        let uid = uid.ok_or_else(|| format!("no user {user} in the guest's {USERS}"))?;
        let name = field(0).map(str::to_owned);
        let (gid, groups) = match group {
            Some(group) => {
                let found = self::entry(groups, group, 4).map_or(group, |entry| entry[2]);
                let gid = number(found)
                    .ok_or_else(|| format!("no group {group} in the guest's {GROUPS}"))?;
                (gid, vec![gid])
            }
            None => {
                let gid = field(3).map_or(Ok(0), |gid| {
                    number(gid).ok_or_else(|| {
                        format!(
                            "user {user} in the guest's {USERS}: {gid:?} is not a group's number"
                        )
                    })
                })?;
                let mut all = vec![gid];
                all.extend(name.iter().flat_map(|name| groups_of(groups, name)));
                all.sort_unstable();
                all.dedup();
                (gid, all)
            }
        };
        let home = field(5).filter(|home| home.starts_with('/')).unwrap_or(NO_HOME).to_owned();
        let groups = groups.into_iter().map(Gid::from_raw).collect();
        Ok(Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups, name, home })
    }
}

fn read(path: &str) -> Result<String, String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        // A root without the file has numbers only.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("cannot read the guest's {path}: {error}")),
    }
}

/// The entry with this name or, if there is none, with this number; entries with another number of
/// fields are none.
fn entry<'t>(text: &'t str, wanted: &str, fields: usize) -> Option<Vec<&'t str>> {
    let entries = || {
        let entries = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        entries.filter(|entry| entry.len() == fields && number(entry[2]).is_some())
    };
    let by_number =
        || entries().find(|entry| number(wanted).is_some_and(|n| number(entry[2]) == Some(n)));
    entries().find(|entry| !wanted.is_empty() && entry[0] == wanted).or_else(by_number)
}

/// The groups with this member.
fn groups_of(text: &str, member: &str) -> Vec<u32> {
    // name:password:gid:member,member
    let entries = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entries = entries.filter(|entry| entry.len() == 4);
    let groups = entries.filter(|entry| entry[3].split(',').any(|name| name == member));
    groups.filter_map(|entry| number(entry[2])).collect()
}

/// A user's or group's number; the highest one stands for none.
fn number(text: &str) -> Option<u32> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| is_plain && number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\n\
                         broken:x:7\n\
                         worse:x:-1:x::/:\n\
                         ann:x:1000:1001:Ann:/home/ann:/bin/sh\n\
                         odd:x:3000:users::/:\n\
                         42:x:2000:2000::relative:\n";
    const GROUPS: &str =
        "root:x:0:\nann:x:1001:\ndisk:x:6:bob,ann\nkvm:x:9:anna\ncut:x\nbad:x:y:ann\n";

    fn found(wanted: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        User::look_up(wanted, USERS, GROUPS).map(|user| {
            let groups = user.groups.iter().map(|gid| gid.as_raw()).collect();
            (user.uid.as_raw(), user.gid.as_raw(), groups, user.home)
        })
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let table = [
            ("root", (0, 0, vec![0], "/root")),
            ("ann", (1000, 1001, vec![6, 1001], "/home/ann")),
            ("1000", (1000, 1001, vec![6, 1001], "/home/ann")),
            ("ann:disk", (1000, 6, vec![6], "/home/ann")),
            ("ann:77", (1000, 77, vec![77], "/home/ann")),
            ("1234", (1234, 0, vec![0], "/")),
            ("1234:5", (1234, 5, vec![5], "/")),
            // A name goes before a number, and a home is a path from the root.
            ("42", (2000, 2000, vec![2000], "/")),
        ];
        for (wanted, (uid, gid, groups, home)) in table {
            assert_eq!(found(wanted), Ok((uid, gid, groups, home.to_owned())), "{wanted}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let (user, group) = ("no user", "no group");
        let table = [
            ("odd", "user odd in the guest's /etc/passwd: \"users\" is not a group's number"),
            ("3000", "user 3000 in the guest's /etc/passwd: \"users\" is not"),
            ("bob", user),
            ("broken", user),
            ("worse", user),
            ("", user),
            (":0", user),
            ("-1", user),
            ("+1", user),
            ("4294967295", user),
            ("4294967296", user),
            ("ann:", group),
            ("ann:none", group),
            ("ann:bad", group),
            ("ann:1:2", group),
            ("ann\nroot", user),
        ];
        for (wanted, expected) in table {
            let error = found(wanted).unwrap_err();
            assert!(error.starts_with(expected), "{wanted:?}: {error}");
        }
    }
}
