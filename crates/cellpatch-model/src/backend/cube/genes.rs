//! The embedding of genes, and which slots of a batch a gene has.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cellpatch_gpu::genes::{BatchGenes, SlotIndex, gather_rows, sum_by_row};
use cellpatch_kernels::genes::GeneIndex;

use super::floats::{floats, tensor};
use super::{CubeInputs, CubeKernel};
use crate::lengths::GeneLengths;
use crate::tokens::HostTokens;

/// The tokens of a batch, in whose order gradients are summed.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) n_cells: usize,
    pub(super) n_genes: usize,
    /// The same on the host, if it knows them.
    pub(super) host: Option<HostTokens>,
}

impl Tokens {
    /// The distinct genes of the batch.
    ///
    /// Where the host does not know the tokens, the queue waits here for the device to give them.
    ///
    /// - tensor: [cells, genes]
    /// - lengths: of cells, where padding does not count
    pub(super) fn index<R: CubeRuntime>(
        &self,
        tensor: &CubeTensor<R>,
        lengths: Option<&GeneLengths>,
        capacity: usize,
    ) -> Arc<GeneIndex> {
        match &self.host {
            Some(tokens) => tokens.index(lengths, capacity),
            None => self.read_back(tensor).index(lengths, capacity),
        }
    }

    fn read_back<R: CubeRuntime>(&self, tensor: &CubeTensor<R>) -> HostTokens {
        let bytes = tensor.client.read_one_unchecked(tensor.handle.clone());
        let words = bytes.chunks_exact(4).take(self.n_cells * self.n_genes);
        let tokens = words.map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect();
        HostTokens::new(tokens, [self.n_cells, self.n_genes])
    }
}

/// The genes that a block reads.
#[derive(Debug)]
pub(super) struct GenesRead {
    pub(super) tokens: Tokens,
    pub(super) genes: OnceLock<Arc<BatchGenes>>,
}

impl GenesRead {
    /// The batch's genes, found once for forward and backward pass.
    ///
    /// - inputs: with the tokens' tensor as the first of their integers
    pub(super) fn genes<R: CubeRuntime>(
        &self,
        inputs: &CubeInputs<R>,
        lengths: Option<&GeneLengths>,
        capacity: usize,
    ) -> Arc<BatchGenes> {
        let genes = self.genes.get_or_init(|| {
            let index = self.tokens.index(&inputs.integers[0], lengths, capacity);
            Arc::new(BatchGenes::new(&inputs.floats[0].client, &index, capacity))
        });
        Arc::clone(genes)
    }
}

/// Rows of the gene table, by tokens: its one integer tensor, [cells, genes].
///
/// Burn's own gradient adds the slots of a batch one after the other, in as many threads as a row has columns.
#[derive(Debug)]
pub(super) struct CubeEmbedding {
    pub(super) tokens: Tokens,
    pub(super) index: OnceLock<SlotIndex>,
}

impl CubeEmbedding {
    /// Rows of the batch, padding included.
    fn n(&self) -> usize {
        self.tokens.n_cells * self.tokens.n_genes
    }

    fn index<R: CubeRuntime>(&self, inputs: &CubeInputs<R>) -> &SlotIndex {
        let [capacity, _] = inputs.dims(0);
        self.index.get_or_init(|| {
            let index = self.tokens.index(&inputs.integers[0], None, capacity);
            SlotIndex::of_table(&inputs.floats[0].client, &index, capacity)
        })
    }
}

impl<R: CubeRuntime> CubeKernel<R> for CubeEmbedding {
    fn shapes(&self, inputs: &[Shape], _keep: bool) -> Vec<Shape> {
        let [_, d] = inputs[0].dims();
        vec![Shape::new([self.tokens.n_cells, self.tokens.n_genes, d])]
    }

    fn forward(&self, inputs: &CubeInputs<R>, keep: bool) -> Vec<CubeTensor<R>> {
        let table = &inputs.floats[0];
        let [capacity, d] = inputs.dims(0);
        let rows = gather_rows(
            &table.client,
            (&floats(table), capacity),
            d,
            (&inputs.integers[0].handle, self.n()),
            None,
        );
        if keep && self.tokens.host.is_some() {
            // While the device is busy with what was queued before: nothing waits for the order yet.
            self.index(inputs);
        }
        vec![tensor(table, rows, Shape::new([self.tokens.n_cells, self.tokens.n_genes, d]))]
    }

    fn backward(
        &self,
        inputs: &CubeInputs<R>,
        _computed: &[CubeTensor<R>],
        gradient: CubeTensor<R>,
        _wanted: &[bool],
    ) -> Vec<CubeTensor<R>> {
        let table = &inputs.floats[0];
        let [_, d] = inputs.dims(0);
        let gradient = floats(&gradient);
        let for_table =
            sum_by_row(&table.client, self.index(inputs), &gradient, self.n(), d, gradient.storage);
        vec![tensor(table, for_table, table.shape())]
    }
}
