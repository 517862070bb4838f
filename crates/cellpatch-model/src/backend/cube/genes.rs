//! The embedding of genes, and which slots of a batch a gene has.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cellpatch_gpu::ahead::on_stream_of_copies;
use cellpatch_gpu::genes::{BatchGenes, SlotIndex, gather_rows, sum_by_row};
use cellpatch_kernels::genes::GeneIndex;

use super::floats::{floats, tensor};
use super::{CubeInputs, CubeKernel, Promise};
use crate::lengths::GeneLengths;
use crate::operation::Genes;
use crate::tokens::{HostTokens, TokenUse};

/// The tokens of a batch, in whose order gradients are summed.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) n_cells: usize,
    pub(super) n_genes: usize,
    /// The same on the host, once it knows them.
    host: OnceLock<HostTokens>,
}

impl Tokens {
    /// Those that an operation reads.
    pub(super) fn of<R: CubeRuntime>(genes: &Genes<Promise<R>>) -> Self {
        let [n_cells, n_genes] = genes.tensor.shape.dims();
        Self { n_cells, n_genes, host: genes.host.clone().map_or_else(OnceLock::new, OnceLock::from) }
    }

    /// Slots of the padded batch.
    fn n(&self) -> usize {
        self.n_cells * self.n_genes
    }

    /// The distinct genes of the batch, found once.
    ///
    /// - inputs: with the tokens' tensor as the first of their integers
    /// - lengths: of cells, where padding does not count
    pub(super) fn genes<R: CubeRuntime>(
        &self,
        inputs: &CubeInputs<R>,
        lengths: Option<&GeneLengths>,
        capacity: usize,
    ) -> Arc<BatchGenes> {
        let device = &inputs.floats[0].device;
        genes_on::<R>(device, self.on_host(&inputs.integers[0]), lengths, capacity)
    }

    /// The slots of each row of the table, found once.
    fn rows<R: CubeRuntime>(&self, inputs: &CubeInputs<R>) -> Arc<SlotIndex> {
        let device = &inputs.floats[0].device;
        let [capacity, _] = inputs.dims(0);
        rows_on::<R>(device, self.on_host(&inputs.integers[0]), capacity)
    }

    /// Where the host does not know the tokens, the queue waits here for the device to give them.
    fn on_host<R: CubeRuntime>(&self, tensor: &CubeTensor<R>) -> &HostTokens {
        self.host.get_or_init(|| {
            let bytes = tensor.client.read_one_unchecked(tensor.handle.clone());
            let words = bytes.chunks_exact(4).take(self.n());
            let tokens = words.map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect();
            HostTokens::new(tokens, [self.n_cells, self.n_genes])
        })
    }
}

/// The distinct genes of a batch, on a device.
///
/// - lengths: of cells, where padding does not count
fn genes_on<R: CubeRuntime>(
    device: &R::Device,
    tokens: &HostTokens,
    lengths: Option<&GeneLengths>,
    capacity: usize,
) -> Arc<BatchGenes> {
    let make = |index: &GeneIndex| BatchGenes::new(&R::client(device), index, capacity);
    placed::<R, _>(device, tokens, lengths, capacity, make)
}

/// The slots of each row of a gene table, on a device.
fn rows_on<R: CubeRuntime>(device: &R::Device, tokens: &HostTokens, capacity: usize) -> Arc<SlotIndex> {
    let make = |index: &GeneIndex| SlotIndex::of_table(&R::client(device), index, capacity);
    placed::<R, _>(device, tokens, None, capacity, make)
}

/// An index of tokens on a device, for a table of some capacity, made once.
fn placed<R: CubeRuntime, T: Send + Sync + 'static>(
    device: &R::Device,
    tokens: &HostTokens,
    lengths: Option<&GeneLengths>,
    capacity: usize,
    make: impl FnOnce(&GeneIndex) -> T,
) -> Arc<T> {
    struct Placed<R: CubeRuntime, T> {
        device: R::Device,
        capacity: usize,
        index: Arc<T>,
    }
    let is = |placed: &Placed<R, T>| placed.device == *device && placed.capacity == capacity;
    let place = |index: &GeneIndex| Placed { device: device.clone(), capacity, index: Arc::new(make(index)) };
    Arc::clone(&tokens.on_device(lengths, capacity, is, place).index)
}

/// Sends ahead what kernels ask of a batch's tokens.
pub(super) fn index_ahead<R: CubeRuntime>(
    tokens: &HostTokens,
    tokens_use: TokenUse<'_>,
    capacity: usize,
    device: &R::Device,
) {
    on_stream_of_copies(|| match tokens_use {
        TokenUse::Keys(lengths) => drop(genes_on::<R>(device, tokens, lengths, capacity)),
        TokenUse::Embedded => drop(rows_on::<R>(device, tokens, capacity)),
    });
}

/// Rows of the gene table, by tokens: its one integer tensor, [cells, genes].
///
/// Burn's own gradient adds the slots of a batch one after the other, in as many threads as a row has columns.
#[derive(Debug)]
pub(super) struct CubeEmbedding {
    pub(super) tokens: Tokens,
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
            (&inputs.integers[0].handle, self.tokens.n()),
            None,
        );
        if keep && self.tokens.host.get().is_some() {
            // While the device is busy with what was queued before: nothing waits for the order yet.
            self.tokens.rows(inputs);
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
        let (slots, n) = (self.tokens.rows(inputs), self.tokens.n());
        let for_table = sum_by_row(&table.client, &slots, &gradient, n, d, gradient.storage);
        vec![tensor(table, for_table, table.shape())]
    }
}
