//! What a block does with what attention gathered, row by row: projection, residual, norm, MLP with the exact GELU, residual,
//! norm; forward and backward.
//!
//! A workgroup takes a few rows at a time and keeps every state between input and output in shared memory. The backward pass
//! computes the states again; a workgroup sums the gradients of the weights over all the rows it takes, and the sums of workgroups
//! are added in their order.

mod backward;
mod forward;
mod norm;
mod tile;

pub use self::backward::{FeedforwardGradient, FeedforwardGradients, feedforward_backward};
pub use self::forward::feedforward_forward;

use cubecl::prelude::*;

use crate::memory::Floats;
use crate::tile::LANES;

/// Memory that the kernel with most of it is bound to, sizes and numbers included.
const BINDINGS: u32 = 19;
/// Units of a workgroup.
const UNITS: usize = 64;

/// The weights behind a block's attention. All linear weights are input by output.
#[derive(Debug, Clone, Copy)]
pub struct FeedforwardWeights<'a> {
    /// Width of a row.
    pub embedding_dim: usize,
    /// Hidden width of the MLP.
    pub mlp_dim: usize,
    /// [d, d]
    pub out_projection: &'a Floats,
    /// `[d]`
    pub out_projection_bias: &'a Floats,
    /// `[d]`
    pub attention_gain: &'a Floats,
    /// `[d]`
    pub attention_bias: &'a Floats,
    /// [d, mlp]
    pub expand: &'a Floats,
    /// `[mlp]`
    pub expand_bias: &'a Floats,
    /// [mlp, d]
    pub contract: &'a Floats,
    /// `[d]`
    pub contract_bias: &'a Floats,
    /// `[d]`
    pub mlp_gain: &'a Floats,
    /// `[d]`
    pub mlp_bias: &'a Floats,
    /// Added to the variance in both norms.
    pub epsilon: f32,
}

/// The rows that a feedforward reads.
#[derive(Debug, Clone, Copy)]
pub struct FeedforwardRows<'a> {
    /// Rows of all cells.
    pub n: usize,
    /// What attention gathered: [n, d]; it may be stored otherwise than everything else.
    pub gathered: &'a Floats,
    /// What the block's attention asked with, to which its result is added: [period, d].
    pub queries: &'a Floats,
    /// After how many rows the queries begin anew: `n`, or the queries of one cell where all cells ask the same.
    pub period: usize,
}

/// Whether there is a kernel for these widths on this device.
pub fn serves<R: Runtime>(client: &ComputeClient<R>, embedding_dim: usize, mlp_dim: usize) -> bool {
    let whole = |width: usize| width > 0 && width.is_multiple_of(LANES);
    let hardware = &client.properties().hardware;
    whole(embedding_dim)
        && whole(mlp_dim)
        && hardware.max_units_per_cube as usize >= UNITS
        && hardware.max_bindings >= BINDINGS
        && backward::shared_bytes(embedding_dim, mlp_dim).max(forward::shared_bytes(embedding_dim, mlp_dim))
            <= hardware.max_shared_memory_size
}

/// What a kernel is compiled for; widths in vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    narrow: usize,
    wide: usize,
    /// Rows of a workgroup.
    rows: usize,
    /// Rows that a unit multiplies together: each weight is loaded once for all of them.
    together: usize,
}

impl Plan {
    fn new(weights: &FeedforwardWeights<'_>, rows: usize, together: usize) -> Self {
        Self { narrow: weights.embedding_dim / LANES, wide: weights.mlp_dim / LANES, rows, together }
    }

    /// From row to row in shared memory: one vector more, so that units with a row each meet different banks.
    fn stride(&self, width: usize) -> usize {
        width + 1
    }

    /// Vectors of a tile of narrow rows.
    fn narrow_tile(&self) -> usize {
        self.rows * self.stride(self.narrow)
    }

    /// Vectors of a tile of wide rows.
    fn wide_tile(&self) -> usize {
        self.rows * self.stride(self.wide)
    }
}
