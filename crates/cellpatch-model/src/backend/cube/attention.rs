//! Attention alone.

use burn::tensor::{Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cellpatch_gpu::attention::{
    AttentionGradient, AttentionInput, AttentionOutput, attention_backward, attention_forward,
};
use cellpatch_gpu::dropout::Seed;
use cellpatch_gpu::memory::{Floats, PaddedRows};

use super::floats::{floats, tensor};
use super::{CubeInputs, CubeKernel};
use crate::lengths::GeneLengths;
use crate::operation::AttentionSpec;

#[derive(Debug)]
pub(super) struct CubeAttention {
    pub(super) spec: AttentionSpec,
}

/// A batch's rows as kernels take them.
pub(super) fn padded<R: CubeRuntime>(
    inputs: &CubeInputs<R>,
    n_cells: usize,
    n: usize,
    lengths: &Option<GeneLengths>,
) -> PaddedRows {
    let lengths = lengths.as_ref().map(GeneLengths::n_genes);
    PaddedRows::new(&inputs.floats[0].client, n_cells, n, lengths)
}

/// The call's seed: the last of its integers, if anything is dropped.
///
/// - n_others: integers in front of it
pub(super) fn seed<R: CubeRuntime>(inputs: &CubeInputs<R>, n_others: usize) -> Seed {
    match inputs.integers.get(n_others) {
        Some(halves) => Seed::on_device(halves.handle.clone()),
        None => Seed::new(&inputs.floats[0].client, 0),
    }
}

/// What attention computed, from the output and the logarithms beside it.
pub(super) fn computed<R: CubeRuntime>(
    output: &CubeTensor<R>,
    log_sum_exp: &CubeTensor<R>,
) -> AttentionOutput {
    AttentionOutput { output: floats(output), log_sum_exp: floats(log_sum_exp) }
}

/// Query, key and value of a call.
struct Call {
    tensors: [Floats; 3],
    query_rows: PaddedRows,
    key_rows: PaddedRows,
    n_cells: usize,
    width: usize,
    queries_are_shared: bool,
    seed: Seed,
}

impl Call {
    fn of<R: CubeRuntime>(inputs: &CubeInputs<R>, spec: &AttentionSpec) -> Self {
        let [n_query_cells, n_queries, _] = inputs.dims(0);
        let [n_cells, n_keys, width] = inputs.dims(1);
        Self {
            tensors: [0, 1, 2].map(|index| floats(&inputs.floats[index])),
            query_rows: padded(inputs, n_cells, n_queries, &spec.query_lengths),
            key_rows: padded(inputs, n_cells, n_keys, &spec.key_lengths),
            n_cells,
            width,
            queries_are_shared: n_query_cells != n_cells,
            seed: seed(inputs, 0),
        }
    }

    fn input(&self, spec: &AttentionSpec) -> AttentionInput<'_> {
        let [queries, keys, values] = &self.tensors;
        AttentionInput {
            n_cells: self.n_cells,
            n_heads: spec.n_heads,
            width: self.width,
            queries,
            queries_are_shared: self.queries_are_shared,
            query_rows: &self.query_rows,
            keys,
            values,
            genes: None,
            key_rows: &self.key_rows,
            dropout: spec.dropout,
            seed: &self.seed,
        }
    }
}

impl<R: CubeRuntime> CubeKernel<R> for CubeAttention {
    fn shapes(&self, inputs: &[Shape], keep: bool) -> Vec<Shape> {
        let [_, n_queries, _] = inputs[0].dims();
        let [n_cells, _, width] = inputs[1].dims();
        let mut shapes = vec![Shape::new([n_cells, n_queries, width])];
        if keep {
            shapes.push(Shape::new([n_cells, self.spec.n_heads, n_queries]));
        }
        shapes
    }

    fn forward(&self, inputs: &CubeInputs<R>, keep: bool) -> Vec<CubeTensor<R>> {
        let call = Call::of(inputs, &self.spec);
        let computed = attention_forward(&inputs.floats[0].client, &call.input(&self.spec));
        let like = &inputs.floats[0];
        let (n_cells, n_queries) = (call.n_cells, call.query_rows.padded);
        let mut tensors = vec![tensor(like, computed.output, Shape::new([n_cells, n_queries, call.width]))];
        if keep {
            let shape = Shape::new([n_cells, self.spec.n_heads, n_queries]);
            tensors.push(tensor(like, computed.log_sum_exp, shape));
        }
        tensors
    }

    fn backward(
        &self,
        inputs: &CubeInputs<R>,
        kept: &[CubeTensor<R>],
        gradient: CubeTensor<R>,
        _wanted: &[bool],
    ) -> Vec<CubeTensor<R>> {
        let call = Call::of(inputs, &self.spec);
        let given =
            AttentionGradient { computed: &computed(&kept[0], &kept[1]), for_output: &floats(&gradient) };
        let gradients = attention_backward(&inputs.floats[0].client, &call.input(&self.spec), &given);
        [gradients.for_queries, gradients.for_keys, gradients.for_values]
            .into_iter()
            .zip(&inputs.floats)
            .map(|(gradient, input)| tensor(input, gradient, input.shape()))
            .collect()
    }
}
