//! The operations of this crate: what a backend may compute in one go, with a hand-written backward pass.
//!
//! As in `cellpatch_model::operation`: a model asks [`SpatialBackend::spatial_fused`](crate::SpatialBackend::spatial_fused) first; where
//! the backend has no kernel, [`plain`](crate::plain) operations do, and they are what the kernels are tested against.

use std::sync::Arc;

use cellpatch_kernels::graph::Adjacency;
use cellpatch_kernels::sparse::SparseMatrix;
use cellpatch_model::config::ExpressionEmbedding;

pub use cellpatch_kernels::block::reading::Zeros;

use crate::resident::Resident;

/// An operation, beside the float tensors it computes with.
#[derive(Debug, Clone)]
pub enum SpatialOperation {
    /// The expression times a matrix. Of a matrix ([genes, d]); to [spots, d].
    ExpressionProduct {
        /// [spots, genes]
        expression: Arc<Resident<SparseMatrix>>,
    },
    /// Softmax over each spot's neighbours j of `sigmoid(a_src . h_j + a_dst . h_i)`. Of rows ([spots, d]), a_src and
    /// a_dst (`[d]` each); to `[edges]`.
    AttentionWeights {
        /// Who reads whom.
        adjacency: Arc<Resident<Adjacency>>,
        /// Which edges count, if not all do; the others have weight 0.
        kept: Option<Arc<Resident<Arc<[bool]>>>>,
    },
    /// ELU of the weighted sum of neighbours. Of rows ([spots, d]) and weights (`[edges]`); to [spots, d].
    Gather {
        /// Who reads whom.
        adjacency: Arc<Resident<Adjacency>>,
    },
    /// Mean over spots and genes of `(X - H W^T - 1 b^T)^2`, without the reconstruction. Of X W ([spots, d]), H ([spots, d]),
    /// W ([genes, d]) and, where there is one, b (`[genes]`); to `[1]`.
    SquaredError(SquaredError),
    /// The first block of CellPatch over a slice. Of patch tokens ([1, patches, d]), gene table ([capacity, d]), a row
    /// [1, d] and a bias `[d]` of the expression, and a block's twelve weights; to [spots, patches, d].
    ReadGenes {
        /// [spots, genes]
        expression: Arc<Resident<SparseMatrix>>,
        /// Row of the gene table of each gene.
        tokens: Arc<[u32]>,
        /// Whether zeros are read.
        zeros: Zeros,
        /// What the expression's weights are.
        embedding: ExpressionEmbedding,
        /// Attention heads.
        n_heads: usize,
        /// Probability with which a softmax weight is dropped.
        dropout: f64,
    },
}

/// What is known of X in a squared error.
#[derive(Debug, Clone)]
pub struct SquaredError {
    /// Sum of the squares of X.
    pub sum_of_squares: f64,
    /// Sum of each column of X.
    pub sums_by_gene: Arc<[f32]>,
}
