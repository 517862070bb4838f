//! The embedding of genes.

use burn::tensor::{Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cellpatch_gpu::genes::{SlotIndex, gather_rows, sum_by_row};
use cellpatch_kernels::block::PaddedRows;
use cellpatch_kernels::genes::GeneIndex;

use super::floats::{floats, tensor};
use super::{CubeInputs, CubeKernel};

/// Rows of the gene table, by tokens: its one integer tensor, [cells, genes].
///
/// Burn's own gradient adds the slots of a batch one after the other, in as many threads as a row has columns.
#[derive(Debug)]
pub(super) struct CubeEmbedding {
    pub(super) n_cells: usize,
    pub(super) n_genes: usize,
}

impl<R: CubeRuntime> CubeKernel<R> for CubeEmbedding {
    fn shapes(&self, inputs: &[Shape], _keep: bool) -> Vec<Shape> {
        let [_, d] = inputs[0].dims();
        vec![Shape::new([self.n_cells, self.n_genes, d])]
    }

    fn forward(&self, inputs: &CubeInputs<R>, _keep: bool) -> Vec<CubeTensor<R>> {
        let table = &inputs.floats[0];
        let [capacity, d] = inputs.dims(0);
        let (tokens, n) = (&inputs.integers[0].handle, self.n_cells * self.n_genes);
        let rows = gather_rows(&table.client, &floats(table), capacity, d, tokens, n);
        vec![tensor(table, rows, Shape::new([self.n_cells, self.n_genes, d]))]
    }

    /// Here the queue waits for the tokens, which are sorted on the host.
    fn backward(
        &self,
        inputs: &CubeInputs<R>,
        _computed: &[CubeTensor<R>],
        gradient: CubeTensor<R>,
        _wanted: &[bool],
    ) -> Vec<CubeTensor<R>> {
        let table = &inputs.floats[0];
        let [capacity, d] = inputs.dims(0);
        let n = self.n_cells * self.n_genes;
        let bytes = table.client.read_one_unchecked(inputs.integers[0].handle.clone());
        let tokens: Vec<u32> =
            bytes.chunks_exact(4).take(n).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
        let slots = PaddedRows { padded: self.n_genes, lengths: None };
        let index = GeneIndex::new(&tokens, slots, capacity);
        let index = SlotIndex::of_table(&table.client, &index, capacity);
        let for_table = sum_by_row(&table.client, &index, &floats(&gradient), n, d);
        vec![tensor(table, for_table, table.shape())]
    }
}
