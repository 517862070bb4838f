//! The first block, which reads genes by tables of keys and values, and the embedding of genes.

use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::DType;
use burn_flex::FlexTensor;
use cellpatch_kernels::Instructions;
use cellpatch_kernels::block::{BlockGradient, BlockInput, Memory, PaddedRows, block_backward};
use cellpatch_kernels::genes::{
    Expression, GeneIndex, GeneMemory, gather_rows, project_rows, project_rows_backward, sum_by_gene,
};

use super::block::{self, Weights, weight_gradients};
use super::{Elements, dimensions, like, padded, tensor};
use crate::config::ExpressionEmbedding;
use crate::operation::{AttentionSpec, Computed, Genes, Kernel};
use crate::tokens::HostTokens;

/// Tokens as numbers; `None` if they are of a type no gene has.
fn tokens(genes: &Genes<FlexTensor>) -> Option<HostTokens> {
    if let Some(tokens) = &genes.host {
        return Some(tokens.clone());
    }
    let shape = dimensions(&genes.tensor);
    let genes = genes.tensor.to_contiguous();
    let range = genes.layout().start_offset()..;
    let n = genes.layout().shape().num_elements();
    let tokens = match genes.dtype() {
        DType::I32 => genes.storage::<i32>()[range][..n].iter().map(|&token| token as u32).collect(),
        DType::I64 => genes.storage::<i64>()[range][..n].iter().map(|&token| token as u32).collect(),
        _ => return None,
    };
    Some(HostTokens::new(tokens, shape))
}

/// The rows of the batch's genes: [genes of the batch, d].
fn rows_of(index: &GeneIndex, table: &[f32], d: usize) -> Vec<f32> {
    let mut rows = Vec::with_capacity(index.genes().len() * d);
    for &gene in index.genes() {
        rows.extend_from_slice(&table[gene as usize * d..][..d]);
    }
    rows
}

/// The gradient of the whole table from that of the batch's genes.
fn spread(index: &GeneIndex, for_rows: &[f32], table: &FlexTensor) -> FlexTensor {
    let [capacity, d] = dimensions(table);
    let mut for_table = vec![0.0; capacity * d];
    for (&gene, for_row) in index.genes().iter().zip(for_rows.chunks_exact(d)) {
        for_table[gene as usize * d..][..d].copy_from_slice(for_row);
    }
    tensor(for_table, [capacity, d])
}

pub(super) fn embedding_kernel(
    genes: &Genes<FlexTensor>,
    inputs: &[FlexTensor],
) -> Option<Arc<dyn Kernel<Flex>>> {
    let [n_cells, n_genes] = dimensions(&genes.tensor);
    let [capacity, _] = dimensions(&inputs[0]);
    let index = tokens(genes)?.index(None, capacity);
    Some(Arc::new(FlexEmbedding { index, n_cells, n_genes }))
}

#[derive(Debug)]
struct FlexEmbedding {
    index: Arc<GeneIndex>,
    n_cells: usize,
    n_genes: usize,
}

impl Kernel<Flex> for FlexEmbedding {
    fn forward(&self, inputs: &[FlexTensor], _seed: u64, _keep: bool) -> Computed<Flex> {
        let [_, d] = dimensions(&inputs[0]);
        let rows = rows_of(&self.index, Elements::of(&inputs[0]).slice(), d);
        let mut output = vec![0.0; self.n_cells * self.n_genes * d];
        let slots = PaddedRows { padded: self.n_genes, lengths: None };
        gather_rows(&rows, d, self.index.rows(), slots, &mut output);
        Computed { output: tensor(output, [self.n_cells, self.n_genes, d]), kept: Vec::new() }
    }

    fn backward(
        &self,
        inputs: &[FlexTensor],
        _computed: &Computed<Flex>,
        gradient: FlexTensor,
        _seed: u64,
        _wanted: &[bool],
    ) -> Vec<FlexTensor> {
        let [_, d] = dimensions(&inputs[0]);
        let for_rows = sum_by_gene(&self.index, Elements::of(&gradient).slice(), d);
        vec![spread(&self.index, &for_rows, &inputs[0])]
    }
}

/// Where the inputs of a gene block lie.
const QUERIES: usize = 0;
const TABLE: usize = 1;
const VALUES: usize = 2;
const EXPRESSION: usize = 3;

pub(super) fn block_kernel(
    spec: &AttentionSpec,
    genes: &Genes<FlexTensor>,
    expression: ExpressionEmbedding,
    inputs: &[FlexTensor],
) -> Option<Arc<dyn Kernel<Flex>>> {
    let first_weight = match expression {
        ExpressionEmbedding::Continuous => EXPRESSION + 2,
        ExpressionEmbedding::Binned { .. } => EXPRESSION + 1,
    };
    let instructions = block::shape(spec, &inputs[first_weight..], 0).instructions()?;
    let [n_cells, n_genes] = dimensions(&genes.tensor);
    let [capacity, _] = dimensions(&inputs[TABLE]);
    let index = tokens(genes)?.index(spec.key_lengths.as_ref(), capacity);
    Some(Arc::new(FlexGeneBlock {
        spec: spec.clone(),
        expression,
        index,
        n_cells,
        n_genes,
        first_weight,
        instructions,
    }))
}

#[derive(Debug)]
struct FlexGeneBlock {
    spec: AttentionSpec,
    expression: ExpressionEmbedding,
    index: Arc<GeneIndex>,
    n_cells: usize,
    n_genes: usize,
    first_weight: usize,
    instructions: Instructions,
}

/// A call's tensors.
struct Call {
    queries: Elements,
    table: Elements,
    values: Elements,
    /// One row, or a row a bin: [n, d].
    expression: Elements,
    /// `[d]`, of a continuous expression.
    expression_bias: Option<Elements>,
    weights: Weights,
}

impl FlexGeneBlock {
    fn call(&self, inputs: &[FlexTensor]) -> Call {
        let bias = (self.expression == ExpressionEmbedding::Continuous).then(|| &inputs[EXPRESSION + 1]);
        Call {
            queries: Elements::of(&inputs[QUERIES]),
            table: Elements::of(&inputs[TABLE]),
            values: Elements::of(&inputs[VALUES]),
            expression: Elements::of(&inputs[EXPRESSION]),
            expression_bias: bias.map(Elements::of),
            weights: Weights::of(&inputs[self.first_weight..]),
        }
    }

    /// Embeddings of the batch's genes without their values: [genes of the batch, d].
    fn embeddings(&self, call: &Call, d: usize) -> Vec<f32> {
        let mut rows = rows_of(&self.index, call.table.slice(), d);
        if let Some(bias) = &call.expression_bias {
            for row in rows.chunks_exact_mut(d) {
                for (element, bias) in row.iter_mut().zip(bias.slice()) {
                    *element += bias;
                }
            }
        }
        rows
    }

    fn input<'a>(&'a self, call: &'a Call, n_queries: usize, memory: &'a Tables) -> BlockInput<'a> {
        let expression = match self.expression {
            ExpressionEmbedding::Continuous => Expression::Continuous(&memory.expression),
            ExpressionEmbedding::Binned { .. } => Expression::Binned(&memory.expression),
        };
        BlockInput {
            n_cells: self.n_cells,
            queries: call.queries.slice(),
            query_rows: padded(n_queries, &self.spec.query_lengths),
            memory: Memory::Genes(GeneMemory {
                rows: self.index.rows(),
                table: &memory.genes,
                values: call.values.slice(),
                expression,
            }),
            memory_rows: padded(self.n_genes, &self.spec.key_lengths),
        }
    }
}

/// Keys and values: of genes, [genes of the batch, 2 d], and of what expression adds, [rows, 2 d].
struct Tables {
    genes: Vec<f32>,
    expression: Vec<f32>,
}

impl Tables {
    fn new(call: &Call, embeddings: &[f32], d: usize, instructions: Instructions) -> Self {
        let weights = call.weights.slices();
        let (weight, bias) = (&weights.in_projection[d * d..], &weights.in_projection_bias[d..]);
        Self {
            genes: project_rows(embeddings, d, weight, Some(bias), instructions),
            expression: project_rows(call.expression.slice(), d, weight, None, instructions),
        }
    }
}

impl Kernel<Flex> for FlexGeneBlock {
    fn forward(&self, inputs: &[FlexTensor], seed: u64, keep: bool) -> Computed<Flex> {
        let call = self.call(inputs);
        let shape = block::shape(&self.spec, &inputs[self.first_weight..], seed);
        let [_, n_queries, d] = dimensions(&inputs[QUERIES]);
        let tables = Tables::new(&call, &self.embeddings(&call, d), d, self.instructions);
        let input = self.input(&call, n_queries, &tables);
        block::forward(&shape, &call.weights, &input, keep, self.instructions)
    }

    fn backward(
        &self,
        inputs: &[FlexTensor],
        computed: &Computed<Flex>,
        gradient: FlexTensor,
        seed: u64,
        wanted: &[bool],
    ) -> Vec<FlexTensor> {
        let call = self.call(inputs);
        let weights = &inputs[self.first_weight..];
        let shape = block::shape(&self.spec, weights, seed);
        let [_, n_queries, d] = dimensions(&inputs[QUERIES]);
        let embeddings = self.embeddings(&call, d);
        let tables = Tables::new(&call, &embeddings, d, self.instructions);

        let mut for_queries = vec![0.0; call.queries.slice().len()];
        let mut for_slots = vec![0.0; self.n_cells * self.n_genes * 2 * d];
        let mut for_expression = vec![0.0; tables.expression.len()];
        let [gathered, log_sum_exp] = [0, 1].map(|index| Elements::of(&computed.kept[index]));
        let gradient = Elements::of(&gradient);
        let given = BlockGradient {
            gathered: gathered.slice(),
            log_sum_exp: log_sum_exp.slice(),
            for_output: gradient.slice(),
            for_queries: &mut for_queries,
            for_memory: &mut for_slots,
            for_expression: &mut for_expression,
        };
        let input = self.input(&call, n_queries, &tables);
        let mut for_weights =
            block_backward(&shape, &call.weights.slices(), &input, given, self.instructions);

        let projection = &call.weights.slices().in_projection[d * d..];
        let back = |rows: &[f32], gradient: &[f32]| {
            project_rows_backward(rows, d, projection, gradient, self.instructions)
        };
        let for_genes = sum_by_gene(&self.index, &for_slots, 2 * d);
        let (for_embeddings, of_genes, for_bias) = back(&embeddings, &for_genes);
        let (for_expression_rows, of_expression, _) = back(call.expression.slice(), &for_expression);
        let for_projection = of_genes.iter().zip(&of_expression).map(|(a, b)| a + b);
        for (gradient, more) in for_weights[d * d..3 * d * d].iter_mut().zip(for_projection) {
            *gradient += more;
        }
        for (gradient, more) in for_weights[3 * d * d + d..3 * d * d + 3 * d].iter_mut().zip(&for_bias) {
            *gradient += more;
        }

        let mut gradients = vec![
            like(for_queries, &inputs[QUERIES]),
            if wanted[TABLE] {
                spread(&self.index, &for_embeddings, &inputs[TABLE])
            } else {
                inputs[TABLE].clone()
            },
            if wanted[VALUES] {
                like(self.for_values(&for_slots, &tables), &inputs[VALUES])
            } else {
                inputs[VALUES].clone()
            },
            like(for_expression_rows, &inputs[EXPRESSION]),
        ];
        if call.expression_bias.is_some() {
            // Terms of both signs, as many as genes: single precision would leave little of a small sum.
            let mut for_bias = vec![0.0_f64; d];
            for row in for_embeddings.chunks_exact(d) {
                for (sum, element) in for_bias.iter_mut().zip(row) {
                    *sum += f64::from(*element);
                }
            }
            gradients.push(tensor(for_bias.into_iter().map(|sum| sum as f32).collect(), [d]));
        }
        gradients.extend(weight_gradients(&shape, &for_weights, weights));
        gradients
    }
}

impl FlexGeneBlock {
    /// The gradient of the expression values: 0 where they were rounded to bins.
    ///
    /// - for_slots: of keys and values, [cells, genes, 2 d]
    fn for_values(&self, for_slots: &[f32], tables: &Tables) -> Vec<f32> {
        match self.expression {
            ExpressionEmbedding::Binned { .. } => vec![0.0; self.n_cells * self.n_genes],
            ExpressionEmbedding::Continuous => for_slots
                .chunks_exact(tables.expression.len())
                .map(|slot| slot.iter().zip(&tables.expression).map(|(a, b)| a * b).sum())
                .collect(),
        }
    }
}
