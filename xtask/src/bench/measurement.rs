// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A figure and its comparison with a peer.

use std::fmt::Write;

use serde::Serialize;

/// Which direction is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Smaller is better: times, bytes used.
    Lower,
    /// Larger is better: rates.
    Higher,
}

/// A measured value, the same value measured for a peer in the same run, and the goal.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// A stable id for tools that compare runs.
    pub id: String,
    /// What was measured, in words.
    pub what: String,
    /// The value.
    pub value: f64,
    /// The unit of `value` and `peer_value`.
    pub unit: String,
    /// The peer.
    pub peer: String,
    /// The peer's value.
    pub peer_value: f64,
    /// The goal for `value / peer_value`; `None` if the value is only recorded.
    pub goal: Option<f64>,
    /// Which direction is better.
    pub better: Better,
    /// Whether the ratio meets the goal.
    pub ok: Option<bool>,
}

impl Measurement {
    /// A measurement; `ok` follows from the figures.
    pub fn new(
        id: &str,
        what: &str,
        unit: &str,
        value: f64,
        (peer, peer_value): (&str, f64),
        (better, goal): (Better, impl Into<Option<f64>>),
    ) -> Self {
        let ratio = value / peer_value;
        let goal = goal.into();
        let ok = goal.map(|goal| match better {
            Better::Lower => ratio <= goal,
            Better::Higher => ratio >= goal,
        });
        Self {
            id: id.to_owned(),
            what: what.to_owned(),
            value,
            unit: unit.to_owned(),
            peer: peer.to_owned(),
            peer_value,
            goal,
            better,
            ok,
        }
    }
}

/// The measurements as a table.
pub fn table(name: &str, measurements: &[Measurement]) -> String {
    let mut text = format!(
        "{name:<44} {:>16} {:>16} {:>6} {:>9} peer\n",
        "value", "peer value", "ratio", "goal"
    );
    for m in measurements {
        let sign = match m.better {
            Better::Lower => "<=",
            Better::Higher => ">=",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<44} {:>10.3} {:<5} {:>10.3} {:<5} {:>6.3} {:>9} {}{}",
            m.what,
            m.value,
            m.unit,
            m.peer_value,
            m.unit,
            m.value / m.peer_value,
            m.goal.map_or_else(|| "-".to_owned(), |goal| format!("{sign} {goal:.2}")),
            m.peer,
            if m.ok == Some(false) { "  (goal missed)" } else { "" }
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Better, Measurement};

    #[test]
    fn goal_follows_the_direction() {
        let make = |better| Measurement::new("i", "w", "s", 2.0, ("p", 1.0), (better, 1.5));
        assert_eq!(make(Better::Lower).ok, Some(false));
        assert_eq!(make(Better::Higher).ok, Some(true));
    }

    #[test]
    fn what_has_no_goal_cannot_miss_it() {
        let recorded = Measurement::new("i", "w", "s", 2.0, ("p", 1.0), (Better::Lower, None));
        assert_eq!(recorded.ok, None);
        assert!(!super::table("t", &[recorded]).contains("missed"));
    }
}
