//! What the processor could do at most: the measure of every kernel.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

use crate::simd::{Instructions, Simd, Vectorized, dispatch};

const ROUNDS: usize = 2_000_000;
/// Sums that do not wait for each other: enough to hide the latency of a multiply-add.
const SUMS: usize = 12;
const RUNS: usize = 7;

/// Multiply-adds a second of all threads together, from registers: the best of several runs.
pub fn multiply_adds_per_second(instructions: Instructions) -> f64 {
    let n_threads = rayon::current_num_threads();
    let run = |_| {
        let start = Instant::now();
        (0..n_threads).into_par_iter().with_max_len(1).for_each(|_| {
            black_box(dispatch(instructions, MultiplyAdds));
        });
        start.elapsed().as_secs_f64()
    };
    let seconds = (0..RUNS).map(run).fold(f64::INFINITY, f64::min);
    (n_threads * ROUNDS * SUMS * instructions.lanes()) as f64 / seconds
}

struct MultiplyAdds;

impl Vectorized for MultiplyAdds {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) -> f32 {
        let (factor, term) = (S::splat(black_box(0.999)), S::splat(black_box(0.001)));
        let mut sums = [S::splat(black_box(1.0)); SUMS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = S::fma(*sum, factor, term);
            }
        }
        let mut total = sums[0];
        for sum in &sums[1..] {
            total = S::add(total, *sum);
        }
        S::sum(total)
    }
}
