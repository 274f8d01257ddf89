// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Taking values more than once.

use anyhow::Result;

/// How often a value is taken.
pub const ROUNDS: usize = 3;

/// Takes two values in turn, so that both see the same conditions, and returns the median of
/// each.
pub fn medians(
    mut value: impl FnMut() -> Result<f64>,
    mut peer: impl FnMut() -> Result<f64>,
) -> Result<(f64, f64)> {
    let medians = medians_of(ROUNDS, || Ok(vec![value()?, peer()?]))?;
    Ok((medians[0], medians[1]))
}

/// Takes several values together, always as many, for an odd number of rounds, and returns the
/// median of each.
pub fn medians_of(rounds: usize, mut take: impl FnMut() -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    let taken = (0..rounds).map(|_| take()).collect::<Result<Vec<_>>>()?;
    let count = taken.first().map_or(0, Vec::len);
    Ok((0..count).map(|i| median(taken.iter().map(|values| values[i]).collect())).collect())
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

    #[test]
    fn each_value_has_a_median_of_its_own() {
        let mut rounds = [vec![1.0, 9.0], vec![3.0, 7.0], vec![2.0, 8.0]].into_iter();
        let medians = super::medians_of(3, || Ok(rounds.next().unwrap())).unwrap();
        assert_eq!(medians, [2.0, 8.0]);
    }
}
