//! A whole post-norm attention block over a batch of ragged cells, composed of this crate's kernels.
//!
//! `Block(q, kv) = LN(x + MLP(x))` with `x = LN(q + MHA(q, kv, kv))`, exact GELU, as PyTorch's modules compute it. As in
//! `cellpatch_kernels::block`, the forward pass keeps what attention gathered and the logarithms of its denominators; the backward
//! pass computes the rest again.

use cubecl::prelude::*;

use crate::attention::{
    AttentionGradient, AttentionInput, AttentionOutput, attention_backward, attention_forward,
};
use crate::dropout::Seed;
use crate::feedforward::{
    FeedforwardGradient, FeedforwardRows, FeedforwardWeights, feedforward_backward, feedforward_forward,
};
use crate::matrix::{Layer, Tail, multiply, outer_products, transposed};
use crate::memory::{Floats, PaddedRows};
use crate::sum::{Columns, sum_of_columns};
use crate::{attention, feedforward};

/// A block's weights.
#[derive(Debug, Clone, Copy)]
pub struct BlockWeights<'a> {
    /// Heads; head `h` owns the `h`-th of equal slices of `d`.
    pub n_heads: usize,
    /// [3 d, d], rows in the order query, key, value (`torch.nn.MultiheadAttention.in_proj_weight`).
    pub in_projection: &'a Floats,
    /// `[3 d]`
    pub in_projection_bias: &'a Floats,
    /// Behind the attention.
    pub feedforward: FeedforwardWeights<'a>,
}

/// A batch of cells in front of a block.
#[derive(Debug, Clone, Copy)]
pub struct BlockInput<'a> {
    /// Cells in the batch.
    pub n_cells: usize,
    /// [cells, queries, d], or [1, queries, d] where all cells ask the same.
    pub queries: &'a Floats,
    /// Whether all cells ask the same; then no query is padding.
    pub queries_are_shared: bool,
    /// Rows of the queries.
    pub query_rows: &'a PaddedRows,
    /// What they read: [cells, keys, d]; `None` if each cell's queries read themselves.
    pub memory: Option<&'a Floats>,
    /// Rows of the memory; those of the queries where these read themselves.
    pub memory_rows: &'a PaddedRows,
    /// Probability with which a softmax weight is dropped; 0 outside training.
    pub dropout: f64,
    /// Of the dropout; forward and backward pass must be given the same.
    pub seed: &'a Seed,
}

/// What a block's forward pass computed.
#[derive(Debug, Clone)]
pub struct BlockOutput {
    /// [cells, queries, d]; at padding, what the block makes of a query that attended nothing.
    pub output: Floats,
    /// For the backward pass.
    pub attention: AttentionOutput,
}

/// The gradients of a block's inputs and weights.
#[derive(Debug, Clone)]
pub struct BlockGradients {
    /// In the shape of the queries.
    pub for_queries: Floats,
    /// [cells, keys, d], if the memory is not the queries' own.
    pub for_memory: Option<Floats>,
    /// Of the weights, in the order of [`BlockWeights`].
    pub for_weights: [Floats; 12],
}

/// Whether there are kernels for a block of these sizes on this device.
pub fn serves<R: Runtime>(
    client: &ComputeClient<R>,
    embedding_dim: usize,
    n_heads: usize,
    mlp_dim: usize,
) -> bool {
    attention::serves(client, embedding_dim, n_heads) && feedforward::serves(client, embedding_dim, mlp_dim)
}

/// Computes a block.
///
/// # Panics
/// When there are [no kernels](serves) for the widths, or memory is smaller than stated.
pub fn block_forward<R: Runtime>(
    client: &ComputeClient<R>,
    weights: &BlockWeights<'_>,
    input: &BlockInput<'_>,
) -> BlockOutput {
    let block = Block { client, weights, input };
    let projected = block.project();
    let attention = attention_forward(client, &block.attention(&projected));
    let rows = block.feedforward_rows(&attention);
    let output = feedforward_forward(client, &weights.feedforward, &rows);
    BlockOutput { output, attention }
}

/// Computes the gradients of a block's inputs and weights.
///
/// - attention: from the forward pass
/// - for_output: gradient of the output, [cells, queries, d]
///
/// # Panics
/// As [`block_forward`].
pub fn block_backward<R: Runtime>(
    client: &ComputeClient<R>,
    weights: &BlockWeights<'_>,
    input: &BlockInput<'_>,
    attention: &AttentionOutput,
    for_output: &Floats,
) -> BlockGradients {
    let block = Block { client, weights, input };
    let d = block.width();
    let rows = block.feedforward_rows(attention);
    let gradient = FeedforwardGradient { rows, for_output };
    let behind = feedforward_backward(client, &weights.feedforward, &gradient);
    let projected = block.project();
    let gradient = AttentionGradient { computed: attention, for_output: &behind.for_gathered };
    let inside = attention_backward(client, &block.attention(&projected), &gradient);

    let residual = if input.queries_are_shared {
        let n = input.query_rows.padded * d;
        let columns = Columns { stride: n, first: 0, n };
        sum_of_columns(client, &behind.for_queries, input.n_cells, columns, input.queries.storage)
    } else {
        behind.for_queries
    };
    let (n_queries, n_keys) = (block.n_queries(), block.n_keys());
    let mut for_queries = block.through(Part::Query, &inside.for_queries, n_queries, Some(&residual));
    let mut for_memory = None;
    let from = if input.memory.is_some() { None } else { Some(&for_queries) };
    let sum = block.through(Part::Key, &inside.for_keys, n_keys, from);
    let sum = block.through(Part::Value, &inside.for_values, n_keys, Some(&sum));
    match input.memory {
        Some(_) => for_memory = Some(sum),
        None => for_queries = sum,
    }

    let storage = weights.in_projection.storage;
    let for_projection = Floats::empty(client, 3 * d * d, storage);
    let for_projection_bias = Floats::empty(client, 3 * d, storage);
    let memory = input.memory.unwrap_or(input.queries);
    for (part, gradient, read, n) in [
        (Part::Query, &inside.for_queries, input.queries, n_queries),
        (Part::Key, &inside.for_keys, memory, n_keys),
        (Part::Value, &inside.for_values, memory, n_keys),
    ] {
        let weight = Tail { floats: &for_projection, first: part as usize * d * d };
        let bias = Tail { floats: &for_projection_bias, first: part as usize * d };
        outer_products(client, (gradient, d), (read, d), n, weight, bias);
    }
    let [a, b, c, e, f, g, h, i, j, k] = behind.for_weights;
    let for_weights = [for_projection, for_projection_bias, a, b, c, e, f, g, h, i, j, k];
    BlockGradients { for_queries, for_memory, for_weights }
}

/// What a part of the packed projection makes.
#[derive(Debug, Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

/// Projected queries, keys and values.
struct Projected([Floats; 3]);

struct Block<'a, R: Runtime> {
    client: &'a ComputeClient<R>,
    weights: &'a BlockWeights<'a>,
    input: &'a BlockInput<'a>,
}

impl<R: Runtime> Block<'_, R> {
    fn width(&self) -> usize {
        self.weights.feedforward.embedding_dim
    }

    /// Rows of queries, of all cells where these ask each for themselves.
    fn n_queries(&self) -> usize {
        let cells = if self.input.queries_are_shared { 1 } else { self.input.n_cells };
        cells * self.input.query_rows.padded
    }

    fn n_keys(&self) -> usize {
        self.input.n_cells * self.input.memory_rows.padded
    }

    fn project(&self) -> Projected {
        let d = self.width();
        let memory = self.input.memory.unwrap_or(self.input.queries);
        let part = |part: Part, rows: &Floats, n: usize| {
            let weight = transposed(self.client, self.weights.in_projection, part as usize * d, d, d);
            let layer = Layer {
                weight: Tail::start(&weight),
                bias: Some(Tail { floats: self.weights.in_projection_bias, first: part as usize * d }),
                inputs: d,
                outputs: d,
            };
            multiply(self.client, rows, n, &layer, None)
        };
        Projected([
            part(Part::Query, self.input.queries, self.n_queries()),
            part(Part::Key, memory, self.n_keys()),
            part(Part::Value, memory, self.n_keys()),
        ])
    }

    /// A gradient on its way back through a part of the packed projection.
    fn through(&self, part: Part, gradient: &Floats, n: usize, plus: Option<&Floats>) -> Floats {
        let d = self.width();
        let weight = Tail { floats: self.weights.in_projection, first: part as usize * d * d };
        multiply(self.client, gradient, n, &Layer { weight, bias: None, inputs: d, outputs: d }, plus)
    }

    fn attention<'b>(&'b self, Projected([queries, keys, values]): &'b Projected) -> AttentionInput<'b> {
        AttentionInput {
            n_cells: self.input.n_cells,
            n_heads: self.weights.n_heads,
            width: self.width(),
            queries,
            queries_are_shared: self.input.queries_are_shared,
            query_rows: self.input.query_rows,
            keys,
            values,
            key_rows: self.input.memory_rows,
            dropout: self.input.dropout,
            seed: self.input.seed,
        }
    }

    fn feedforward_rows<'b>(&'b self, attention: &'b AttentionOutput) -> FeedforwardRows<'b> {
        FeedforwardRows {
            n: self.input.n_cells * self.input.query_rows.padded,
            gathered: &attention.output,
            queries: self.input.queries,
            period: self.n_queries(),
        }
    }
}
