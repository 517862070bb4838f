//! A whole post-norm attention block over a batch of ragged cells: one task a cell, everything between a block's input
//! and output in the cache of one core.
//!
//! `Block(q, kv) = LN(x + MLP(x))` with `x = LN(q + MHA(q, kv, kv))`, exact GELU, as PyTorch's modules compute it. The
//! forward pass keeps what attention gathered and the logarithms of its denominators; the backward pass computes the rest
//! again, which is cheaper than to write it to memory and read it back.

mod backward;
mod feedforward;
mod forward;
mod gradient;
pub mod reading;

pub use self::backward::{BlockGradient, block_backward};
pub use self::forward::{BlockOutput, Kept, block_forward};
pub use self::gradient::WeightGradients;

use crate::genes::GeneMemory;
use crate::matrix::transposed;
use crate::norm::NormWeights;
use crate::simd::Instructions;

/// Sizes of a block, and the dropout of one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockShape {
    /// Width `d` of queries and memory.
    pub embedding_dim: usize,
    /// Heads; head `h` owns the `h`-th of equal slices of `d`.
    pub n_heads: usize,
    /// Hidden width of the MLP.
    pub mlp_dim: usize,
    /// Probability with which a softmax weight is dropped; 0 outside training.
    pub dropout: f64,
    /// Of the dropout; forward and backward pass must be given the same.
    pub seed: u64,
}

impl BlockShape {
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.embedding_dim / self.n_heads
    }

    /// The widest instructions of this processor that have a kernel for this shape; `None` if none has.
    pub fn instructions(&self) -> Option<Instructions> {
        Instructions::available().into_iter().find(|&instructions| self.is_served_by(instructions))
    }

    /// Heads of 8, 16 or 32, and widths that fill vectors.
    pub fn is_served_by(&self, instructions: Instructions) -> bool {
        let heads = self.n_heads > 0 && self.embedding_dim.is_multiple_of(self.n_heads);
        let fills = |width: usize| width > 0 && width.is_multiple_of(instructions.lanes());
        heads && [8, 16, 32].contains(&self.head_dim()) && fills(self.head_dim()) && fills(self.mlp_dim)
    }
}

/// A block's weights, row-major.
#[derive(Debug, Clone, Copy)]
pub struct BlockWeights<'a> {
    /// [3 d, d], rows in the order query, key, value (`torch.nn.MultiheadAttention.in_proj_weight`).
    pub in_projection: &'a [f32],
    /// `[3 d]`
    pub in_projection_bias: &'a [f32],
    /// [d, d], input by output.
    pub out_projection: &'a [f32],
    /// `[d]`
    pub out_projection_bias: &'a [f32],
    /// Of the sum of query and attention.
    pub attention_norm: NormWeights<'a>,
    /// [d, mlp], input by output.
    pub expand: &'a [f32],
    /// `[mlp]`
    pub expand_bias: &'a [f32],
    /// [mlp, d], input by output.
    pub contract: &'a [f32],
    /// `[d]`
    pub contract_bias: &'a [f32],
    /// Of the block's result.
    pub mlp_norm: NormWeights<'a>,
}

/// What the queries read.
#[derive(Debug, Clone, Copy)]
pub enum Memory<'a> {
    /// The queries themselves.
    Own,
    /// [cells, keys, d]
    Rows(&'a [f32]),
    /// Genes and their values, by tables of keys and values.
    Genes(GeneMemory<'a>),
}

/// How many rows of a padded batch count.
#[derive(Debug, Clone, Copy)]
pub struct PaddedRows<'a> {
    /// Rows of every cell, padding included; at least 1.
    pub padded: usize,
    /// Of each cell, how many are not padding, at least 1; `None` if all are.
    pub lengths: Option<&'a [usize]>,
}

impl PaddedRows<'_> {
    pub(crate) fn of(&self, cell: usize) -> usize {
        self.lengths.map_or(self.padded, |lengths| lengths[cell].clamp(1, self.padded))
    }
}

/// A batch of cells in front of a block.
#[derive(Debug, Clone, Copy)]
pub struct BlockInput<'a> {
    /// Cells in the batch.
    pub n_cells: usize,
    /// [cells, queries, d], or [1, queries, d] where all cells ask the same and read another memory.
    pub queries: &'a [f32],
    /// Rows of the queries.
    pub query_rows: PaddedRows<'a>,
    /// What they read.
    pub memory: Memory<'a>,
    /// Rows of the memory; those of the queries where these read themselves.
    pub memory_rows: PaddedRows<'a>,
}

impl BlockInput<'_> {
    fn queries_are_shared(&self, d: usize) -> bool {
        let shared = self.n_cells != 1 && self.queries.len() == self.query_rows.padded * d;
        assert!(!shared || self.query_rows.lengths.is_none(), "queries that all cells share have no padding");
        shared
    }
}

/// Weights in the orders that the passes read them.
struct Prepared<'a> {
    shape: BlockShape,
    weights: BlockWeights<'a>,
    /// [d, d]
    for_queries: Vec<f32>,
    /// [d, 2 d]
    for_memory: Vec<f32>,
}

impl<'a> Prepared<'a> {
    fn new(shape: BlockShape, weights: BlockWeights<'a>) -> Self {
        let d = shape.embedding_dim;
        let (queries, memory) = weights.in_projection.split_at(d * d);
        Self { shape, weights, for_queries: transposed(queries, d), for_memory: transposed(memory, d) }
    }

    fn query_bias(&self) -> &[f32] {
        &self.weights.in_projection_bias[..self.shape.embedding_dim]
    }

    fn memory_bias(&self) -> &[f32] {
        &self.weights.in_projection_bias[self.shape.embedding_dim..]
    }
}
