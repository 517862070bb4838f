//! CPU kernels of the CellPatch model: attention blocks over ragged cells, forward and backward.
//!
//! CellPatch is small and its shape is fixed: heads of 16 dimensions, rows of 32, a few hundred to a few thousand rows a
//! cell. So a cell's whole block fits into the cache of one core, and a kernel made for it need not write to memory what
//! a general framework must: scores, softmax weights, dropout masks, hidden states. This crate holds these kernels. It takes
//! slices and gives slices; it knows no deep-learning framework.
//!
//! # What there is
//!
//! [`block`] computes a post-norm attention block for every cell of a batch, one task a cell: projections, attention, residuals,
//! norms and MLP, and the gradients of all of it. What the queries read is the [`Memory`](block::Memory): themselves,
//! other rows, or genes by tables of keys and values ([`genes`]). [`attention`] is the attention alone, [`output`] the decoder's
//! last layer, and [`adam`] the optimizer in one pass over memory. [`peak`] measures what the processor could do at most.
//!
//! # How
//!
//! **Online softmax, nothing stored.** Scores live in registers; the backward pass computes them again from the logarithm of the
//! softmax's denominator (Dao et al. 2022). Queries stand in the lanes of vectors, so that no maximum and no sum ever
//! crosses lanes. Dropout is drawn from a counter inside the kernel: the backward pass finds what the forward pass drew.
//!
//! **Vectors.** Kernels are written once over a trait of vector instructions and compiled for AVX-512, for AVX2 and for
//! any processor; [`Instructions::detect`] chooses at run time. Exponentials have a relative error below 2.5e-7.
//!
//! **The same bits.** A cell's result depends on that cell alone, never on its batch or the number of threads: gradients
//! of weights are computed a part for each cell and added up in the order of cells. Different instructions differ by
//! rounding.
//!
//! **No allocation.** A thread keeps its scratch memory from one cell to the next; see also [`allocator`].
//!
//! # Example
//!
//! Four queries read six keys, in two heads of 16:
//!
//! ```
//! use cellpatch_kernels::Instructions;
//! use cellpatch_kernels::attention::{AttentionInput, attention_forward};
//! use cellpatch_kernels::block::PaddedRows;
//!
//! let rows = |n: usize| (0..n * 32).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<f32>>();
//! let (queries, keys, values) = (rows(4), rows(6), vec![0.25; 6 * 32]);
//! let all = |padded| PaddedRows { padded, lengths: None };
//! let input = AttentionInput {
//!     n_cells: 1,
//!     n_heads: 2,
//!     width: 32,
//!     queries: &queries,
//!     query_rows: all(4),
//!     keys: &keys,
//!     values: &values,
//!     key_rows: all(6),
//!     dropout: 0.0,
//!     seed: 0,
//! };
//! let (mut output, mut log_sum_exp) = (vec![0.0; 4 * 32], vec![0.0; 2 * 4]);
//! attention_forward(&input, &mut output, &mut log_sum_exp, Instructions::detect());
//! // A mean of equal values is that value.
//! assert!(output.iter().all(|element| (element - 0.25).abs() < 1e-6));
//! ```

#![allow(unsafe_code, reason = "vector instructions; every block says why it is sound")]

pub mod adam;
pub mod allocator;
pub mod attention;
pub mod block;
mod dropout;
mod exponential;
pub mod genes;
pub mod graph;
mod matrix;
pub mod norm;
pub mod output;
pub mod peak;
mod reduce;
mod simd;
pub mod sparse;
mod workspace;

pub use simd::Instructions;
