//! Graph attention on lists of neighbours and products with a sparse matrix, forward and backward.
//!
//! As `cellpatch_kernels::graph` and `cellpatch_kernels::sparse`, whose lists are copied to the device once ([`Adjacency`],
//! [`SparseMatrix`]). No matrix of all pairs and no copy of features by edge is made. The way back goes through the
//! transposed lists: every sum has one owner and one order, so nothing is added atomically and results repeat to the last bit.

mod adjacency;
mod gather;
mod lanes;
mod lists;
mod product;
mod weights;

pub use self::adjacency::{Adjacency, Edges};
pub use self::gather::{GatherGradients, gather, gather_backward};
pub use self::product::SparseMatrix;
pub use self::weights::{
    AttentionVectors, AttentionWeights, WeightGradients, attention_weights, attention_weights_backward,
};

use cubecl::prelude::*;

/// Numbers that a unit loads at once from rows of that width.
fn vector_size<R: Runtime>(client: &ComputeClient<R>, width: usize) -> usize {
    let fits = |&size: &usize| size <= 4 && width.is_multiple_of(size);
    client.io_optimized_vector_sizes(size_of::<f32>()).find(fits).unwrap_or(1)
}

/// How a kernel of that many independent units is launched.
fn units<R: Runtime>(client: &ComputeClient<R>, n: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(client, n);
    (cubecl::calculate_cube_count_elemwise(client, n, dim), dim)
}

#[cfg(test)]
mod tests;
