// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Taking a value more than once.

use anyhow::Result;

/// How often a value is taken.
pub const ROUNDS: usize = 3;

/// Takes two values in turn, so that both see the same conditions, and returns the median of
/// each.
pub fn medians(
    mut value: impl FnMut() -> Result<f64>,
    mut peer: impl FnMut() -> Result<f64>,
) -> Result<(f64, f64)> {
    let mut values = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..ROUNDS {
        values.push(value()?);
        peers.push(peer()?);
    }
    Ok((median(values), median(peers)))
}

/// The middle value of an odd number of values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    #[test]
    fn medians_of_both() {
        let count = Cell::new(0.0);
        let next = || {
            count.set(count.get() + 1.0);
            Ok(count.get())
        };
        assert_eq!(super::medians(next, next).unwrap(), (3.0, 4.0));
    }
}
