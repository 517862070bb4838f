//! The memory of a device that training takes, estimated before anything is allocated.

use crate::config::{CellPatchConfig, ExpressionEmbedding};
use crate::precision::Precision;

/// Bytes of a number that is stored with 32 bits.
const WIDE: usize = 4;
/// Copies of the scores that plain operations hold at once: scores, exponentials, softmax and what dropout leaves are kept, and
/// their gradients come and go.
const COPIES_OF_SCORES: usize = 6;
/// Rows of width `d` that plain operations keep for a query of a block: projections, what attention gathered, residuals, and the
/// steps of two norms.
const ROWS_OF_A_QUERY: usize = 20;
/// Rows of the MLP's width that plain operations keep for a query: before, after and within the GELU.
const HIDDEN_ROWS: usize = 6;

/// The padded shape of what one forward and backward pass computes: a batch, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassShape {
    /// Cells.
    pub n_cells: usize,
    /// Genes that the longest cell shows.
    pub longest_input: usize,
    /// Targets of the cell that has most.
    pub longest_target: usize,
}

/// How a pass is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Computation {
    /// By a card's kernels, which store no scores, in a precision.
    Kernels(Precision),
    /// By plain operations, which write every score.
    Plain,
}

/// Bytes that pretraining takes on a device.
///
/// An estimate: shapes and what is kept are those of the passes, but allocators round up and backends keep pages for later, so
/// leave them a fifth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingMemory {
    /// The parameters.
    pub weights: usize,
    /// Adam's two means of each parameter.
    pub moments: usize,
    /// A gradient for each parameter, and one more where parts of a batch are added up.
    pub gradients: usize,
    /// What the optimizer writes beside the largest parameter and its moments before it lets go of the old ones.
    pub update: usize,
    /// Batch, and what the forward pass keeps for the backward pass.
    pub kept: usize,
    /// What the hungriest block holds while it is computed, beside what is kept.
    pub working: usize,
}

impl TrainingMemory {
    /// Estimates what pretraining a model takes.
    pub fn new(config: &CellPatchConfig, shape: PassShape, computation: Computation) -> Self {
        let weights = n_parameters(config) * WIDE;
        let pass = Pass { config, shape };
        let (kept, working) = match computation {
            Computation::Kernels(precision) => (pass.kept(precision), pass.working(precision)),
            Computation::Plain => (pass.kept_plain(), pass.working_plain()),
        };
        Self {
            weights,
            moments: 2 * weights,
            gradients: 2 * weights,
            update: 3 * config.gene_capacity * config.embedding_dim * WIDE,
            kept,
            working,
        }
    }

    /// The most that is held at once.
    pub fn peak(&self) -> usize {
        self.weights + self.moments + self.gradients + self.update.max(self.kept + self.working)
    }

    /// The most cells of these lengths whose pass fits into memory; none if the weights do not.
    ///
    /// - bytes: of the device, less what others hold
    /// - lengths: as `shape` of [`TrainingMemory::new`]; its number of cells is not looked at
    pub fn cells_that_fit(
        config: &CellPatchConfig,
        lengths: PassShape,
        computation: Computation,
        bytes: usize,
    ) -> usize {
        let fits = |n_cells| Self::new(config, PassShape { n_cells, ..lengths }, computation).peak() <= bytes;
        let (mut fit, mut too_many) = (0, 1);
        while fits(too_many) {
            (fit, too_many) = (too_many, 2 * too_many);
            if too_many > 1 << 30 {
                return fit;
            }
        }
        while too_many - fit > 1 {
            let middle = fit + (too_many - fit) / 2;
            if fits(middle) {
                fit = middle;
            } else {
                too_many = middle;
            }
        }
        fit
    }
}

/// Numbers of all parameters of the pretraining model.
pub fn n_parameters(config: &CellPatchConfig) -> usize {
    let CellPatchConfig { embedding_dim: d, mlp_dim, latent_dim, .. } = *config;
    let linear = |inputs: usize, outputs: usize| inputs * outputs + outputs;
    let norm = 2 * d;
    let block = linear(d, 3 * d) + linear(d, d) + linear(d, mlp_dim) + linear(mlp_dim, d) + 2 * norm;
    let expression = match config.expression {
        ExpressionEmbedding::Continuous => linear(1, d),
        ExpressionEmbedding::Binned { max_value } => (max_value + 1) * d,
    };
    let blocks = 2 + config.encoder_self_blocks + config.decoder_self_blocks;
    let tables = (config.gene_capacity + config.n_patches) * d;
    tables + expression + norm + blocks * block + linear(d, latent_dim) + linear(latent_dim, d) + linear(d, 1)
}

struct Pass<'a> {
    config: &'a CellPatchConfig,
    shape: PassShape,
}

impl Pass<'_> {
    fn d(&self) -> usize {
        self.config.embedding_dim
    }

    /// Slots of the padded batch's input.
    fn slots(&self) -> usize {
        self.shape.n_cells * self.shape.longest_input.max(1)
    }

    fn targets(&self) -> usize {
        self.shape.n_cells * self.shape.longest_target.max(1)
    }

    fn patches(&self) -> usize {
        self.shape.n_cells * self.config.n_patches
    }

    /// Queries of all blocks together.
    fn queries(&self) -> usize {
        (1 + self.config.encoder_self_blocks) * self.patches()
            + (1 + self.config.decoder_self_blocks) * self.targets()
    }

    /// Whether the first block reads genes by tables.
    fn reads_tables(&self) -> bool {
        self.config.expression == ExpressionEmbedding::Continuous
    }

    /// Distinct genes of the batch, at most.
    fn genes(&self) -> usize {
        self.config.gene_capacity.min(self.slots())
    }

    /// Tokens, values and their order; embedded targets; latent patches; prediction and loss.
    fn batch(&self) -> usize {
        let numbers = 4 * self.slots() + 8 * self.targets();
        let rows = self.targets() + self.patches();
        (numbers + rows * self.d() + self.patches() * self.config.latent_dim) * WIDE
    }

    /// Of each block its output, what attention gathered and the logarithms of its denominators.
    fn kept(&self, precision: Precision) -> usize {
        let row = self.d() * (WIDE + precision.bytes()) + self.config.n_heads * WIDE;
        let embedded = if self.reads_tables() { 0 } else { self.slots() * self.d() * WIDE };
        self.batch() + self.queries() * row + embedded
    }

    /// The backward pass of a block: projections and their gradients, and the gradients of what it was given.
    fn working(&self, precision: Precision) -> usize {
        let block = |queries: usize, keys: usize| {
            // Queries: projected, its gradient, what came back to attention; the output's gradient, the residual's and two sums.
            let of_queries = queries * self.d() * (3 * precision.bytes() + 4 * WIDE);
            // Keys and values, and their gradients.
            of_queries + keys * self.d() * 4 * precision.bytes()
        };
        let memory = |keys: usize| 2 * keys * self.d() * WIDE;
        let reading = if self.reads_tables() {
            // Gradients of slots; of genes the embedding, key and value, their sums, and gradients; the table's.
            let gene = 2 * precision.bytes() + 5 * WIDE;
            let tables = self.genes() * gene + self.config.gene_capacity * WIDE;
            block(self.patches(), 0) + (2 * self.slots() * precision.bytes() + tables) * self.d()
        } else {
            block(self.patches(), self.slots()) + memory(self.slots())
        };
        let among_patches = block(self.patches(), self.patches());
        let cross = block(self.targets(), self.patches()) + memory(self.patches());
        let among_targets = block(self.targets(), self.targets());
        reading.max(among_patches).max(cross).max(among_targets)
    }

    /// Scores of each block.
    fn scores(&self) -> [usize; 4] {
        let PassShape { longest_input, longest_target, .. } = self.shape;
        let of = |queries: usize, keys: usize| queries * keys * self.config.n_heads;
        [
            of(self.patches(), longest_input),
            self.config.encoder_self_blocks * of(self.patches(), self.config.n_patches),
            of(self.targets(), self.config.n_patches),
            self.config.decoder_self_blocks * of(self.targets(), longest_target),
        ]
    }

    fn kept_plain(&self) -> usize {
        let row = ROWS_OF_A_QUERY * self.d() + HIDDEN_ROWS * self.config.mlp_dim;
        // Embedded genes and their sum, keys and values.
        let slots = 4 * self.slots() * self.d();
        let scores: usize = self.scores().iter().sum();
        self.batch() + (self.queries() * row + slots + (COPIES_OF_SCORES - 2) * scores) * WIDE
    }

    fn working_plain(&self) -> usize {
        let most = self.scores().into_iter().max().unwrap_or_default();
        (2 * most + 4 * self.slots() * self.d()) * WIDE
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::module::Module;

    use super::*;
    use crate::config::Preset;

    const F32: Computation = Computation::Kernels(Precision::F32);

    fn shape(n_cells: usize) -> PassShape {
        PassShape { n_cells, longest_input: 1_500, longest_target: 700 }
    }

    #[test]
    fn every_parameter_is_counted() {
        let binned = ExpressionEmbedding::Binned { max_value: 5 };
        for config in [
            Preset::Tiny.config(),
            Preset::Tiny.config().with_expression(binned),
            Preset::Tiny.config().with_embedding_dim(16).with_mlp_dim(24).with_encoder_self_blocks(0),
        ] {
            let model = config.init::<Flex>(&Default::default());
            assert_eq!(n_parameters(&config), model.num_params());
        }
    }

    #[test]
    fn memory_grows_with_cells_and_shrinks_with_kernels_and_precision() {
        let config = Preset::Paper.config();
        let of = |n, computation| TrainingMemory::new(&config, shape(n), computation);
        let (one, two) = (of(64, F32), of(128, F32));
        assert_eq!((one.weights, one.moments), (two.weights, two.moments));
        assert_eq!(2 * one.kept, two.kept);
        assert!(two.working > one.working && two.working < 2 * one.working, "tables do not grow with cells");
        let narrow = of(128, Computation::Kernels(Precision::Bf16));
        assert!(narrow.kept < two.kept && narrow.working < two.working);
        let plain = of(128, Computation::Plain);
        // The first block's scores alone: 128 cells, 2 heads, 64 patches, 1,500 genes.
        assert!(plain.peak() > two.peak() + 128 * 2 * 64 * 1_500 * 4);
    }

    /// The paper's model by kernels: 70,000 genes x 32 x 4 bytes are 9 MB, and of a cell with 1,500 genes and 700 targets the
    /// kept rows are (3 x 64 + 2 x 700) x 2 x 32 x 4 bytes, 0.4 MB, and half as much again.
    #[test]
    fn orders_are_those_of_the_shapes() {
        let memory = TrainingMemory::new(&Preset::Paper.config(), shape(512), F32);
        assert!((8_960_000..9_500_000).contains(&memory.weights));
        let megabytes = memory.kept / 1_000_000;
        assert!((210..420).contains(&megabytes), "{megabytes}");
    }

    #[test]
    fn what_fits_fits_and_one_more_does_not() {
        let config = Preset::Paper.config();
        for computation in [F32, Computation::Kernels(Precision::Bf16), Computation::Plain] {
            let bytes = 4 << 30;
            let fit = TrainingMemory::cells_that_fit(&config, shape(1), computation, bytes);
            let peak = |n| TrainingMemory::new(&config, shape(n), computation).peak();
            assert!(fit > 0 && peak(fit) <= bytes && peak(fit + 1) > bytes, "{computation:?}: {fit}");
        }
        assert_eq!(TrainingMemory::cells_that_fit(&config, shape(1), F32, 1 << 20), 0);
    }
}
