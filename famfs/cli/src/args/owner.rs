// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Users and groups as chown(1) takes them.

use std::str::FromStr;

use super::number::id;

/// New owners: `USER`, `USER:GROUP`, `:GROUP`, or `USER:` for a user and its login group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOwner {
    /// The user; `None` to keep it.
    pub user: Option<Id>,
    /// The group.
    pub group: NewGroup,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    /// By its number.
    Number(u32),
    /// By its name on this system.
    Name(String),
}

/// The new group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewGroup {
    /// It stays.
    Keep,
    /// The login group of the user, who is given by name.
    Login,
    /// This one.
    Is(Id),
}

impl FromStr for NewOwner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            None => (text, None),
            Some((user, group)) => (user, Some(group)),
        };
        let user = if user.is_empty() { None } else { Some(Id::parse(user)?) };
        let group = match (group, &user) {
            (None, Some(_)) => NewGroup::Keep,
            (Some(""), Some(Id::Name(_))) => NewGroup::Login,
            (Some(""), Some(Id::Number(number))) => {
                return Err(format!("user {number} is a number: name the group after the colon"));
            }
            (None | Some(""), None) => {
                return Err("expected USER, USER:GROUP or :GROUP".to_owned());
            }
            (Some(group), _) => NewGroup::Is(Id::parse(group)?),
        };
        Ok(Self { user, group })
    }
}

impl Id {
    fn parse(text: &str) -> Result<Self, String> {
        match text.as_bytes()[0].is_ascii_digit() {
            true => id()(text).map(Self::Number),
            false => Ok(Self::Name(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_those_of_chown() {
        let owner = |user, group| Ok(NewOwner { user, group });
        let name = |name: &str| Id::Name(name.to_owned());
        for (text, expected) in [
            ("7", owner(Some(Id::Number(7)), NewGroup::Keep)),
            ("ann", owner(Some(name("ann")), NewGroup::Keep)),
            ("ann:", owner(Some(name("ann")), NewGroup::Login)),
            ("ann:9", owner(Some(name("ann")), NewGroup::Is(Id::Number(9)))),
            ("7:staff", owner(Some(Id::Number(7)), NewGroup::Is(name("staff")))),
            (":staff", owner(None, NewGroup::Is(name("staff")))),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in ["", ":", "7:", "4294967295", "7x", ":4294967295", "ann:2x"] {
            assert!(text.parse::<NewOwner>().is_err(), "{text}");
        }
    }
}
