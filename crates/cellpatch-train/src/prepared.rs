//! Batches as the model takes them, made on the loader's threads.
//!
//! A batch is cut into parts of similar length, each is padded, and the slots of its input and of its targets are sorted by gene,
//! which is how gradients are summed. For 512 cells of 1,600 genes that costs as much time as a fast card's step; what is
//! left for the training thread is to hand memory over.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use cellpatch_data::{MaskedBatch, PaddedShape};
use cellpatch_model::{
    CellPatchConfig, GeneLengths, GeneTargets, GeneTokens, GeneValues, HostTokens, ModelBackend, PassShape,
};

use crate::config::PretrainingConfig;

/// What a part of a batch holds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    pub max_scores: usize,
    n_heads: usize,
    n_patches: usize,
    embedding_dim: usize,
    pub stores_scores: bool,
}

impl Cost {
    pub(crate) fn new<B: ModelBackend>(config: &PretrainingConfig) -> Self {
        let model = &config.model;
        Self {
            max_scores: config.max_scores,
            n_heads: model.n_heads,
            n_patches: model.n_patches,
            embedding_dim: model.embedding_dim,
            stores_scores: B::stores_scores(model),
        }
    }

    /// Numbers that a padded part holds in memory at once: the attention scores of the largest block, or, where a kernel
    /// stores none, the rows that are kept for the backward pass.
    fn of(&self, shape: PaddedShape) -> usize {
        let PaddedShape { n_cells, longest_input, longest_target } = shape;
        if !self.stores_scores {
            // Keys and values of the input; of the targets embedding, output and what was gathered, in each of two blocks.
            return n_cells * self.embedding_dim * (2 * longest_input + 6 * longest_target);
        }
        let encoder = self.n_patches * longest_input.max(self.n_patches);
        let decoder = longest_target * longest_target.max(self.n_patches);
        n_cells * self.n_heads * encoder.max(decoder)
    }

    pub(crate) fn of_cell(&self, PassShape { longest_input, longest_target, .. }: PassShape) -> usize {
        self.of(PaddedShape { n_cells: 1, longest_input, longest_target }).max(1)
    }
}

/// How batches are made ready for a model on a backend.
#[derive(Debug, Clone)]
pub struct Preparation {
    cost: Cost,
    model: CellPatchConfig,
}

impl Preparation {
    /// For a pretraining on a backend.
    pub fn new<B: ModelBackend>(config: &PretrainingConfig) -> Self {
        Self { cost: Cost::new::<B>(config), model: config.model.clone() }
    }

    /// Cuts, pads and sorts a batch.
    pub fn prepare(&self, batch: &MaskedBatch) -> PreparedCells {
        let mut parts = batch.micro_batches(self.cost.max_scores, |shape| self.cost.of(shape));
        // A part without targets has no loss and no gradient.
        parts.retain(|part| part.n_targets() > 0);
        PreparedCells {
            n_cells: batch.n_cells(),
            n_targets: batch.n_targets(),
            parts: parts.iter().map(|part| self.part(part)).collect(),
        }
    }

    fn part(&self, batch: &MaskedBatch) -> PreparedPart {
        let cells = || 0..batch.n_cells();
        let input = PaddedCells::new(cells().map(|cell| batch.input(cell)));
        let targets = PaddedCells::new(cells().map(|cell| batch.target(cell)));
        // Kernels sum gradients by gene, where there are kernels.
        if !self.cost.stores_scores {
            input.genes.sort(self.model.padding.masked(&input.lengths));
            targets.genes.sort(None);
        }
        PreparedPart { input, targets }
    }
}

/// A batch of masked cells, ready for the model.
#[derive(Debug, Clone)]
pub struct PreparedCells {
    pub(crate) n_cells: usize,
    pub(crate) n_targets: usize,
    pub(crate) parts: Vec<PreparedPart>,
}

impl PreparedCells {
    /// Cells of the batch.
    pub fn n_cells(&self) -> usize {
        self.n_cells
    }

    /// Targets of all cells together.
    pub fn n_targets(&self) -> usize {
        self.n_targets
    }
}

/// Cells of similar length.
#[derive(Debug, Clone)]
pub(crate) struct PreparedPart {
    input: PaddedCells,
    targets: PaddedCells,
}

impl PreparedPart {
    /// What the model reads, what it is to predict, and the values it should: [cells, targets].
    pub(crate) fn on<B: Backend>(self, device: &B::Device) -> (GeneValues<B>, GeneTargets<B>, Tensor<B, 2>) {
        let (genes, values, lengths) = self.input.on(device);
        let input = GeneValues { genes, values, lengths };
        let (genes, expected, lengths) = self.targets.on(device);
        (input, GeneTargets { genes, lengths }, expected)
    }
}

/// Cells padded to the longest, on the host.
#[derive(Debug, Clone)]
struct PaddedCells {
    genes: HostTokens,
    /// [cells, longest]
    values: Vec<f32>,
    lengths: GeneLengths,
}

impl PaddedCells {
    fn new<'a>(cells: impl Iterator<Item = (&'a [u32], &'a [f32])> + Clone) -> Self {
        let lengths = GeneLengths::new(cells.clone().map(|(genes, _)| genes.len()).collect::<Vec<_>>());
        let shape = [lengths.n_cells(), lengths.longest()];
        let mut tokens = vec![0; shape[0] * shape[1]];
        let mut values = vec![0.0; shape[0] * shape[1]];
        for (cell, (cell_genes, cell_values)) in cells.enumerate() {
            let first = cell * shape[1];
            tokens[first..first + cell_genes.len()].copy_from_slice(cell_genes);
            values[first..first + cell_values.len()].copy_from_slice(cell_values);
        }
        Self { genes: HostTokens::new(tokens, shape), values, lengths }
    }

    fn on<B: Backend>(self, device: &B::Device) -> (GeneTokens<B>, Tensor<B, 2>, GeneLengths) {
        let values = Tensor::from_data(TensorData::new(self.values, self.genes.dims()), device);
        (GeneTokens::from_host(self.genes, device), values, self.lengths)
    }
}
