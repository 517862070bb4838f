//! Work on all threads with the same result on any number of them.

use std::ops::{AddAssign, Range};

use rayon::prelude::*;

/// Items a piece of work has: fixed, so that where sums are cut does not depend on the machine.
const PIECE: usize = 1024;

/// Adds up what `of_piece` gives for consecutive pieces of `0..n`, always cut and added in the same order.
pub(crate) fn sum_over<S>(n: usize, of_piece: impl Fn(Range<usize>) -> S + Sync) -> S
where
    S: AddAssign + Default + Send,
{
    sum_over_pieces(n, PIECE, of_piece)
}

/// [`sum_over`] with pieces of another size, for items that are more or less work than a few additions.
pub(crate) fn sum_over_pieces<S>(n: usize, piece: usize, of_piece: impl Fn(Range<usize>) -> S + Sync) -> S
where
    S: AddAssign + Default + Send,
{
    let parts: Vec<S> = (0..n.div_ceil(piece))
        .into_par_iter()
        .map(|at| of_piece(at * piece..((at + 1) * piece).min(n)))
        .collect();
    let mut sum = S::default();
    for part in parts {
        sum += part;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_the_same_to_the_last_bit_on_any_number_of_threads() {
        let values: Vec<f64> = (1..100_000).map(|x| 1.0 / f64::from(x)).collect();
        let on = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| sum_over(values.len(), |range| values[range].iter().sum::<f64>()))
        };
        assert!((on(1) - 12.090_146_129_863_428).abs() < 1e-4, "{}", on(1));
        assert_eq!(on(1).to_bits(), on(3).to_bits());
    }

    #[test]
    fn nothing_adds_up_to_zero() {
        assert_eq!(sum_over(0, |_| 1.0), 0.0);
    }
}
