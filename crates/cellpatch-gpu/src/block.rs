//! A whole post-norm attention block over a batch of ragged cells, composed of this crate's kernels.
//!
//! `Block(q, kv) = LN(x + MLP(x))` with `x = LN(q + MHA(q, kv, kv))`, exact GELU, as PyTorch's modules compute it. As in
//! `cellpatch_kernels::block`, the forward pass keeps what attention gathered and the logarithms of its denominators; the backward
//! pass computes the rest again.

use cubecl::prelude::*;

use crate::attention::{
    AttentionGradient, AttentionGradients, AttentionInput, AttentionOutput, GeneSlots, attention_backward,
    attention_forward,
};
use crate::dropout::Seed;
use crate::feedforward::{
    FeedforwardGradient, FeedforwardRows, FeedforwardWeights, feedforward_backward, feedforward_forward,
};
use crate::genes::BatchGenes;
use crate::matrix::{Layer, Tail, multiply, outer_products, transposed};
use crate::memory::{Floats, PaddedRows};
use crate::sum::{Columns, sum_of_columns, sum_of_many};
use crate::vector::{add_outer_product, row_products};
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
    /// What they read.
    pub memory: BlockMemory<'a>,
    /// Rows of the memory; those of the queries where these read themselves.
    pub memory_rows: &'a PaddedRows,
    /// How projected queries, keys and values, what attention gathered, and the gradients of all of these are stored.
    /// Everything is computed in 32 bits, and all else is stored as the queries and the weights are, which is alike.
    pub between: StorageType,
    /// Probability with which a softmax weight is dropped; 0 outside training.
    pub dropout: f64,
    /// Of the dropout; forward and backward pass must be given the same.
    pub seed: &'a Seed,
}

/// What the queries of a block read.
#[derive(Debug, Clone, Copy)]
pub enum BlockMemory<'a> {
    /// Each cell's queries read themselves.
    Own,
    /// [cells, keys, d]
    Rows(&'a Floats),
    /// Genes and their expression.
    Genes(GeneMemory<'a>),
}

/// The genes that a batch's slots hold. As an embedding is affine in the expression, so are key and value: a row of a table of
/// the batch's genes, which is projected once a gene, and a multiple of one vector. Nothing is made for a slot.
#[derive(Debug, Clone, Copy)]
pub struct GeneMemory<'a> {
    /// The batch's genes.
    pub genes: &'a BatchGenes,
    /// Their embeddings at expression 0: [genes, d].
    pub embeddings: &'a Floats,
    /// Of each slot, as `f32`: [cells, keys]; 0 at padding.
    pub expression: &'a Floats,
    /// What one unit of expression adds to an embedding: `[d]`.
    pub slope: &'a Floats,
    /// Whether the backward pass gives the expression's gradient.
    pub differentiates_expression: bool,
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
    /// [cells, keys, d], if the memory is not the queries' own; where it is genes, of their embeddings: [genes, d].
    pub for_memory: Option<Floats>,
    /// Where the memory is genes.
    pub for_genes: Option<GeneGradients>,
    /// Of the weights, in the order of [`BlockWeights`].
    pub for_weights: [Floats; 12],
}

/// The gradients of what stands beside embeddings of genes.
#[derive(Debug, Clone)]
pub struct GeneGradients {
    /// `[d]`, `f32`
    pub for_slope: Floats,
    /// Of a vector that was added to all embeddings: `[d]`, `f32`.
    pub for_shift: Floats,
    /// [cells, keys], if it was asked for.
    pub for_expression: Option<Floats>,
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
    let from = if matches!(input.memory, BlockMemory::Own) { Some(&for_queries) } else { None };
    let (for_keys, for_values) = block.by_projected_row(&inside);
    let sum = block.through(Part::Key, &for_keys, n_keys, from);
    let sum = block.through(Part::Value, &for_values, n_keys, Some(&sum));
    match input.memory {
        BlockMemory::Own => for_queries = sum,
        BlockMemory::Rows(_) | BlockMemory::Genes(_) => for_memory = Some(sum),
    }

    let storage = weights.in_projection.storage;
    let for_projection = Floats::empty(client, 3 * d * d, storage);
    let for_projection_bias = Floats::empty(client, 3 * d, storage);
    let memory = block.memory();
    for (part, gradient, read, n) in [
        (Part::Query, &inside.for_queries, input.queries, n_queries),
        (Part::Key, &for_keys, memory, n_keys),
        (Part::Value, &for_values, memory, n_keys),
    ] {
        let weight = Tail { floats: &for_projection, first: part as usize * d * d };
        let bias = Tail { floats: &for_projection_bias, first: part as usize * d };
        outer_products(client, (gradient, d), (read, d), n, weight, bias);
    }
    let for_genes = match (input.memory, &for_memory) {
        (BlockMemory::Genes(genes), Some(for_embeddings)) => {
            Some(block.gene_gradients(&genes, &projected, &inside, for_embeddings, &for_projection))
        }
        _ => None,
    };
    let [a, b, c, e, f, g, h, i, j, k] = behind.for_weights;
    let for_weights = [for_projection, for_projection_bias, a, b, c, e, f, g, h, i, j, k];
    BlockGradients { for_queries, for_memory, for_genes, for_weights }
}

/// What a part of the packed projection makes.
#[derive(Debug, Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

/// Projected queries, keys and values: of genes, these have a row a gene.
struct Projected {
    rows: [Floats; 3],
    /// What one unit of expression adds to a key, then to a value: [2, d].
    slopes: Option<Floats>,
}

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

    fn n_slots(&self) -> usize {
        self.input.n_cells * self.input.memory_rows.padded
    }

    /// Rows that keys and values are projected of.
    fn n_keys(&self) -> usize {
        match self.input.memory {
            BlockMemory::Own | BlockMemory::Rows(_) => self.n_slots(),
            BlockMemory::Genes(memory) => memory.genes.n(),
        }
    }

    /// What keys and values are projected of.
    fn memory(&self) -> &Floats {
        match self.input.memory {
            BlockMemory::Own => self.input.queries,
            BlockMemory::Rows(rows) => rows,
            BlockMemory::Genes(memory) => memory.embeddings,
        }
    }

    fn project(&self) -> Projected {
        let (d, storage) = (self.width(), self.input.between);
        let part = |part: Part, rows: &Floats, n: usize| {
            let weight = transposed(self.client, self.weights.in_projection, part as usize * d, d, d);
            let layer = Layer {
                weight: Tail::start(&weight),
                bias: Some(Tail { floats: self.weights.in_projection_bias, first: part as usize * d }),
                inputs: d,
                outputs: d,
            };
            multiply(self.client, rows, n, &layer, None, storage)
        };
        let slopes = |slope: &Floats| {
            let weight = transposed(self.client, self.weights.in_projection, d, 2 * d, d);
            let layer = Layer { weight: Tail::start(&weight), bias: None, inputs: d, outputs: 2 * d };
            multiply(self.client, slope, 1, &layer, None, storage)
        };
        Projected {
            rows: [
                part(Part::Query, self.input.queries, self.n_queries()),
                part(Part::Key, self.memory(), self.n_keys()),
                part(Part::Value, self.memory(), self.n_keys()),
            ],
            slopes: match self.input.memory {
                BlockMemory::Genes(memory) => Some(slopes(memory.slope)),
                BlockMemory::Own | BlockMemory::Rows(_) => None,
            },
        }
    }

    /// Gradients of keys and values by the row that these were projected of: slots are summed by gene.
    fn by_projected_row(&self, inside: &AttentionGradients) -> (Floats, Floats) {
        let AttentionGradients { for_keys, for_values, .. } = inside;
        match self.input.memory {
            BlockMemory::Own | BlockMemory::Rows(_) => (for_keys.clone(), for_values.clone()),
            BlockMemory::Genes(memory) => {
                let sum = |slots| memory.genes.sum(self.client, slots, self.n_slots(), self.width());
                (sum(for_keys), sum(for_values))
            }
        }
    }

    /// The gradients of slope, shift and expression; the slope's part of the projection's is added to it.
    ///
    /// - for_embeddings: [genes, d]
    fn gene_gradients(
        &self,
        memory: &GeneMemory<'_>,
        projected: &Projected,
        inside: &AttentionGradients,
        for_embeddings: &Floats,
        for_projection: &Floats,
    ) -> GeneGradients {
        let (client, d, n) = (self.client, self.width(), self.n_slots());
        let sum = |slots| sum_of_many(client, slots, Some(memory.expression), n, d);
        let (for_key, for_value) = (sum(&inside.for_keys), sum(&inside.for_values));
        for (part, gradient) in [(Part::Key, &for_key), (Part::Value, &for_value)] {
            let into = Tail { floats: for_projection, first: part as usize * d * d };
            add_outer_product(client, (gradient, d), (memory.slope, d), into);
        }
        let for_slope = self.through(Part::Key, &for_key, 1, None);
        let for_slope = self.through(Part::Value, &for_value, 1, Some(&for_slope));
        let slopes = projected.slopes.as_ref().filter(|_| memory.differentiates_expression);
        let for_expression = slopes.map(|slopes| {
            let products = |slots, first, plus| {
                row_products(client, slots, n, (Tail { floats: slopes, first }, d), plus)
            };
            let of_keys = products(&inside.for_keys, 0, None);
            products(&inside.for_values, d, Some(&of_keys))
        });
        let for_shift = sum_of_many(client, for_embeddings, None, memory.genes.n(), d);
        GeneGradients { for_slope, for_shift, for_expression }
    }

    /// A gradient on its way back through a part of the packed projection.
    fn through(&self, part: Part, gradient: &Floats, n: usize, plus: Option<&Floats>) -> Floats {
        let d = self.width();
        let weight = Tail { floats: self.weights.in_projection, first: part as usize * d * d };
        let layer = Layer { weight, bias: None, inputs: d, outputs: d };
        multiply(self.client, gradient, n, &layer, plus, self.weights.in_projection.storage)
    }

    fn attention<'b>(&'b self, projected: &'b Projected) -> AttentionInput<'b> {
        let [queries, keys, values] = &projected.rows;
        let genes = match (self.input.memory, &projected.slopes) {
            (BlockMemory::Genes(memory), Some(slopes)) => Some(GeneSlots {
                n_genes: memory.genes.n(),
                rows: memory.genes.rows(),
                expression: memory.expression,
                slopes,
            }),
            _ => None,
        };
        AttentionInput {
            genes,
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
