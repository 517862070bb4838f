//! Graph attention on lists of neighbours, forward and backward.
//!
//! The attention of STAGATE (Dong and Zhang 2022; Velickovic et al. 2018): the weight of neighbour j for spot i is the
//! softmax, over the neighbours of i, of `sigmoid(a_src . h_j + a_dst . h_i)`. No matrix of all pairs and no copy of features by
//! edge is made; the way back goes through the transposed lists, so that every sum has one owner and one order.

mod adjacency;
mod gather;
mod weights;

pub use self::adjacency::Adjacency;
pub use self::gather::{GatherGradients, gather, gather_backward};
pub use self::weights::{AttentionVectors, WeightGradients, attention_weights, attention_weights_backward};

use crate::simd::Simd;

/// Rows that one task works on.
const ROWS: usize = 32;

#[inline(always)]
fn dot<S: Simd>(a: &[f32], b: &[f32]) -> f32 {
    let (mut sums, vectors) = ([S::splat(0.0); 2], a.len() / S::LANES);
    for vector in 0..vectors {
        let at = vector * S::LANES;
        sums[vector % 2] = S::fma(S::load(&a[at..]), S::load(&b[at..]), sums[vector % 2]);
    }
    let rest = vectors * S::LANES;
    let rest: f32 = a[rest..].iter().zip(&b[rest..]).map(|(a, b)| a * b).sum();
    S::sum(S::add(sums[0], sums[1])) + rest
}

/// `sum += factor row`
#[inline(always)]
fn add_scaled<S: Simd>(sum: &mut [f32], factor: f32, row: &[f32]) {
    let vectors = sum.len() / S::LANES;
    for vector in 0..vectors {
        let at = vector * S::LANES;
        let result = S::fma(S::splat(factor), S::load(&row[at..]), S::load(&sum[at..]));
        S::store(result, &mut sum[at..]);
    }
    let rest = vectors * S::LANES;
    for (sum, element) in sum[rest..].iter_mut().zip(&row[rest..]) {
        *sum += factor * element;
    }
}

#[cfg(test)]
mod tests;
