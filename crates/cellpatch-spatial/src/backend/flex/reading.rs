//! The first block of CellPatch over a slice.

use std::sync::Arc;

use burn::backend::Flex;
use burn_flex::FlexTensor;
use cellpatch_kernels::Instructions;
use cellpatch_kernels::block::reading::{ReadingInput, Zeros, read_genes, read_genes_backward};
use cellpatch_kernels::block::{BlockShape, BlockWeights, WeightGradients};
use cellpatch_kernels::norm::NormWeights;
use cellpatch_kernels::sparse::SparseMatrix;
use cellpatch_model::backend::flex::{Elements, dimensions, like, tensor};
use cellpatch_model::config::ExpressionEmbedding;
use cellpatch_model::operation::{Computed, Kernel};

use crate::operation::SpatialOperation;
use crate::resident::Resident;

/// Where the inputs lie.
const QUERIES: usize = 0;
const TABLE: usize = 1;
const SLOPE: usize = 2;
const BIAS: usize = 3;
const WEIGHTS: usize = 4;

/// As the model's own norms have it.
const NORM_EPSILON: f32 = 1e-5;

pub(super) fn kernel(operation: &SpatialOperation, inputs: &[FlexTensor]) -> Option<Arc<dyn Kernel<Flex>>> {
    let SpatialOperation::ReadGenes { expression, tokens, zeros, embedding, n_heads, dropout } = operation
    else {
        return None;
    };
    if *embedding != ExpressionEmbedding::Continuous {
        return None;
    }
    let [embedding_dim, mlp_dim] = dimensions(&inputs[WEIGHTS + 6]);
    let shape = BlockShape { embedding_dim, n_heads: *n_heads, mlp_dim, dropout: *dropout, seed: 0 };
    Some(Arc::new(FlexReading {
        expression: Arc::clone(expression),
        tokens: Arc::clone(tokens),
        zeros: *zeros,
        instructions: shape.instructions()?,
        shape,
    }))
}

#[derive(Debug)]
struct FlexReading {
    expression: Arc<Resident<SparseMatrix>>,
    tokens: Arc<[u32]>,
    zeros: Zeros,
    shape: BlockShape,
    instructions: Instructions,
}

/// A call's tensors, row-major.
struct Call {
    inputs: Vec<Elements>,
    /// Of each gene and of the padding token, the expression's bias included: [genes + 1, d].
    embeddings: Vec<f32>,
}

impl Call {
    fn new(inputs: &[FlexTensor], tokens: &[u32], d: usize) -> Self {
        let inputs: Vec<Elements> = inputs.iter().map(Elements::of).collect();
        let (table, bias) = (inputs[TABLE].slice(), inputs[BIAS].slice());
        let mut embeddings = Vec::with_capacity((tokens.len() + 1) * d);
        for &token in tokens.iter().chain(&[0]) {
            let row = &table[token as usize * d..][..d];
            embeddings.extend(row.iter().zip(bias).map(|(element, bias)| element + bias));
        }
        Self { inputs, embeddings }
    }

    fn weights(&self) -> BlockWeights<'_> {
        let weight = |index: usize| self.inputs[WEIGHTS + index].slice();
        let norm =
            |gain: usize| NormWeights { gain: weight(gain), bias: weight(gain + 1), epsilon: NORM_EPSILON };
        BlockWeights {
            in_projection: weight(0),
            in_projection_bias: weight(1),
            out_projection: weight(2),
            out_projection_bias: weight(3),
            attention_norm: norm(4),
            expand: weight(6),
            expand_bias: weight(7),
            contract: weight(8),
            contract_bias: weight(9),
            mlp_norm: norm(10),
        }
    }
}

impl FlexReading {
    fn input<'a>(&'a self, call: &'a Call) -> ReadingInput<'a> {
        ReadingInput {
            expression: &self.expression,
            zeros: self.zeros,
            queries: call.inputs[QUERIES].slice(),
            embeddings: &call.embeddings,
            slope: call.inputs[SLOPE].slice(),
        }
    }

    fn shape(&self, seed: u64) -> BlockShape {
        BlockShape { seed, ..self.shape }
    }
}

impl Kernel<Flex> for FlexReading {
    fn forward(&self, inputs: &[FlexTensor], seed: u64, keep: bool) -> Computed<Flex> {
        let call = Call::new(inputs, &self.tokens, self.shape.embedding_dim);
        let (shape, input) = (self.shape(seed), self.input(&call));
        let (output, kept) = read_genes(&shape, &call.weights(), &input, self.instructions);
        let [_, n_patches, d] = dimensions(&inputs[QUERIES]);
        let n_spots = self.expression.n_rows();
        let kept = if keep {
            let n_lanes = kept.log_sum_exp.len() / n_spots.max(1);
            vec![tensor(kept.gathered, [n_spots, n_patches, d]), tensor(kept.log_sum_exp, [n_spots, n_lanes])]
        } else {
            Vec::new()
        };
        Computed { output: tensor(output, [n_spots, n_patches, d]), kept }
    }

    fn backward(
        &self,
        inputs: &[FlexTensor],
        computed: &Computed<Flex>,
        gradient: FlexTensor,
        seed: u64,
        _wanted: &[bool],
    ) -> Vec<FlexTensor> {
        let d = self.shape.embedding_dim;
        let call = Call::new(inputs, &self.tokens, d);
        let shape = self.shape(seed);
        let [gathered, log_sum_exp] = [0, 1].map(|index| Elements::of(&computed.kept[index]));
        let gradients = read_genes_backward(
            &shape,
            &call.weights(),
            &self.input(&call),
            (gathered.slice(), log_sum_exp.slice()),
            Elements::of(&gradient).slice(),
            self.instructions,
        );
        let mut for_table = vec![0.0; call.inputs[TABLE].slice().len()];
        // Terms of both signs, as many as genes: single precision would leave little of a small sum.
        let mut for_bias = vec![0.0_f64; d];
        for (&token, row) in self.tokens.iter().chain(&[0]).zip(gradients.embeddings.chunks_exact(d)) {
            let into = &mut for_table[token as usize * d..][..d];
            for ((into, bias), element) in into.iter_mut().zip(&mut for_bias).zip(row) {
                *into += element;
                *bias += f64::from(*element);
            }
        }
        let mut tensors = vec![
            like(gradients.queries, &inputs[QUERIES]),
            like(for_table, &inputs[TABLE]),
            like(gradients.slope, &inputs[SLOPE]),
            like(for_bias.into_iter().map(|sum| sum as f32).collect(), &inputs[BIAS]),
        ];
        let mut rest = &gradients.weights[..];
        for (size, weight) in WeightGradients::sizes(&shape).into_iter().zip(&inputs[WEIGHTS..]) {
            let (gradient, remaining) = rest.split_at(size);
            tensors.push(like(gradient.to_vec(), weight));
            rest = remaining;
        }
        tensors
    }
}
