// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Takes values more than once.

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

/// Takes the same number of values together in each of an odd number of rounds, and returns the
/// median of each.
pub fn medians_of(rounds: usize, take: impl FnMut() -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    Ok(columns(rounds, take)?.iter().map(|values| median(values)).collect())
}

/// Like [`medians_of`], with the minimum of each: for work that disturbances can only lengthen.
pub fn least_of(rounds: usize, take: impl FnMut() -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    Ok(columns(rounds, take)?.iter().map(|values| least(values)).collect())
}

/// Takes values together for some rounds, and returns the values of each position.
pub fn columns(rounds: usize, mut take: impl FnMut() -> Result<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
    let taken = (0..rounds).map(|_| take()).collect::<Result<Vec<_>>>()?;
    let count = taken.first().map_or(0, Vec::len);
    Ok((0..count).map(|i| taken.iter().map(|values| values[i]).collect()).collect())
}

/// The median of an odd number of values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The minimum.
pub fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
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
    fn each_value_is_chosen_among_its_own() {
        let rounds = || [vec![1.0, 9.0], vec![3.0, 7.0], vec![2.0, 8.0]].into_iter();
        let (mut first, mut second) = (rounds(), rounds());
        let medians = super::medians_of(3, || Ok(first.next().unwrap())).unwrap();
        assert_eq!(medians, [2.0, 8.0]);
        let least = super::least_of(3, || Ok(second.next().unwrap())).unwrap();
        assert_eq!(least, [1.0, 7.0]);
    }
}
