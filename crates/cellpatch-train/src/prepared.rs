//! Batches as the model takes them, made on the loader's threads.
//!
//! A batch is cut into parts of similar length, each is padded, and the slots of its input and of its targets are sorted by gene,
//! which is how gradients are summed. For 512 cells of 1,600 genes that costs as much time as a fast card's step. All of it is
//! copied to the device from there, too, while that computes on an earlier batch; nothing is left for the training thread.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use cellpatch_data::{MaskedBatch, PaddedShape};
use cellpatch_model::{
    CellPatchConfig, GeneLengths, GeneTargets, GeneTokens, GeneValues, Held, HostTokens, ModelBackend,
    PassShape, Sent, TokenUse, pad_rows,
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

/// How batches are made ready for a model on a backend's device.
#[derive(Debug, Clone)]
pub struct Preparation {
    cost: Cost,
    model: CellPatchConfig,
    device: Arc<dyn Destination>,
}

/// A device to which a batch goes.
trait Destination: Debug + Send + Sync {
    fn send(&self, numbers: TensorData) -> Sent;
    fn index_ahead(&self, tokens: &HostTokens, tokens_use: TokenUse<'_>, capacity: usize);
}

#[derive(Debug)]
struct On<B: ModelBackend>(B::Device);

impl<B: ModelBackend> Destination for On<B> {
    fn send(&self, numbers: TensorData) -> Sent {
        B::send(numbers, &self.0)
    }

    fn index_ahead(&self, tokens: &HostTokens, tokens_use: TokenUse<'_>, capacity: usize) {
        B::index_ahead(tokens, tokens_use, capacity, &self.0);
    }
}

impl Preparation {
    /// For a pretraining on a device.
    pub fn new<B: ModelBackend>(config: &PretrainingConfig, device: &B::Device) -> Self {
        let device = Arc::new(On::<B>(device.clone()));
        Self { cost: Cost::new::<B>(config), model: config.model.clone(), device }
    }

    /// Cuts, pads and sorts a batch, and sends it to the device.
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
        let input = self.padded(cells().map(|cell| batch.input(cell)));
        let targets = self.padded(cells().map(|cell| batch.target(cell)));
        // Kernels sum gradients by gene, where there are kernels.
        if !self.cost.stores_scores {
            let capacity = self.model.gene_capacity;
            let keys = TokenUse::Keys(self.model.padding.masked(&input.lengths));
            self.device.index_ahead(&input.genes, keys, capacity);
            self.device.index_ahead(&targets.genes, TokenUse::Embedded, capacity);
        }
        PreparedPart { input, targets }
    }

    /// Cells padded to the longest, on their way to the device.
    fn padded<'a>(&self, cells: impl Iterator<Item = (&'a [u32], &'a [f32])>) -> PaddedCells {
        let (genes, values): (Vec<&[u32]>, Vec<&[f32]>) = cells.unzip();
        let lengths = GeneLengths::new(genes.iter().map(|cell| cell.len()).collect::<Vec<_>>());
        let shape = [lengths.n_cells(), lengths.longest()];
        let genes = HostTokens::new(pad_rows(&genes, &lengths), shape);
        let tokens = self.device.send(genes.data());
        let values = self.device.send(TensorData::new(pad_rows(&values, &lengths), shape));
        PaddedCells { genes, tokens, values, lengths }
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
    /// Holds what the device may still read when the part is used no more.
    pub(crate) fn hold(&self, held: &mut Held) {
        for PaddedCells { genes, tokens, values, .. } in [&self.input, &self.targets] {
            held.hold(tokens, Some(genes));
            held.hold(values, None);
        }
    }

    /// What the model reads, what it is to predict, and the values it should: [cells, targets].
    pub(crate) fn on<B: ModelBackend>(
        self,
        device: &B::Device,
    ) -> (GeneValues<B>, GeneTargets<B>, Tensor<B, 2>) {
        let (genes, values, lengths) = self.input.on(device);
        let input = GeneValues { genes, values, lengths };
        let (genes, expected, lengths) = self.targets.on(device);
        (input, GeneTargets { genes, lengths }, expected)
    }
}

/// Cells padded to the longest.
#[derive(Debug, Clone)]
struct PaddedCells {
    genes: HostTokens,
    /// The same on the device: [cells, longest]
    tokens: Sent,
    /// [cells, longest]
    values: Sent,
    lengths: GeneLengths,
}

impl PaddedCells {
    fn on<B: ModelBackend>(self, device: &B::Device) -> (GeneTokens<B>, Tensor<B, 2>, GeneLengths) {
        let Self { genes, tokens, values, lengths } = self;
        (GeneTokens::taken(genes, tokens, device), values.floats(device), lengths)
    }
}
