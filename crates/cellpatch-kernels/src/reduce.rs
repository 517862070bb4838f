//! The order of work: tasks of unequal size, and sums whose order does not depend on the number of threads.

use rayon::prelude::*;

/// Elements of a sum that one task computes.
const COLUMNS: usize = 1024;

/// Adds up parts of `n` elements each, the first part first.
///
/// - parts: [parts, n]
pub(crate) fn sum_of_parts(parts: &[f32], n: usize) -> Vec<f32> {
    let mut sums = vec![0.0; n];
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(chunk, sums)| {
        for part in parts.chunks_exact(n.max(1)) {
            let part = &part[chunk * COLUMNS..][..sums.len()];
            for (sum, element) in sums.iter_mut().zip(part) {
                *sum += element;
            }
        }
    });
    sums
}

/// So that no thread is left with a large cell at the end.
pub(crate) fn largest_first<T>(tasks: &mut [T], cost: impl Fn(&T) -> usize) {
    tasks.sort_by_key(|task| std::cmp::Reverse(cost(task)));
}
