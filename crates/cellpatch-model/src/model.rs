//! The pretraining model: encoder and decoder around one gene embedding table.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::backend::ModelBackend;
use crate::config::CellPatchConfig;
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::input::{GeneTargets, GeneValues};

/// CellPatch: reads a cell into patches, and predicts the expression of genes from them (Zhu, Yuan, Yang et al.,
/// bioRxiv 2024).
///
/// Make one with [`CellPatchConfig::init`].
#[derive(Module, Debug)]
pub struct CellPatch<B: Backend> {
    encoder: Encoder<B>,
    decoder: Decoder<B>,
}

/// Who attended whom, averaged over heads. Every row of every map sums to 1.
#[derive(Debug, Clone)]
pub struct AttentionScores<B: Backend> {
    /// The cross block: [cells, n_patches, genes], 0 at masked padding.
    pub cross: Tensor<B, 3>,
    /// The encoder's self blocks: [cells, n_patches, n_patches] each.
    pub self_blocks: Vec<Tensor<B, 3>>,
}

/// Who attended whom in the decoder, averaged over heads.
#[derive(Debug, Clone)]
pub struct DecoderScores<B: Backend> {
    /// The cross block: [cells, targets, n_patches].
    pub cross: Tensor<B, 3>,
    /// The self blocks: [cells, targets, targets] each, 0 at masked padding.
    pub self_blocks: Vec<Tensor<B, 3>>,
}

impl<B: ModelBackend> CellPatch<B> {
    pub(crate) fn new(config: &CellPatchConfig, device: &B::Device) -> Self {
        Self { encoder: Encoder::new(config, device), decoder: Decoder::new(config, device) }
    }

    /// A cell's patches after the cross block and the self blocks: the features downstream tasks use.
    ///
    /// - output: [cells, n_patches, d]
    pub fn patches(&self, input: &GeneValues<B>) -> Tensor<B, 3> {
        self.encoder.patches(input)
    }

    /// The bottleneck between encoder and decoder.
    ///
    /// - patches: [cells, n_patches, d]
    /// - output: [cells, n_patches, latent_dim]
    pub fn latent(&self, patches: Tensor<B, 3>) -> Tensor<B, 3> {
        self.encoder.latent(patches)
    }

    /// Expression of the target genes. What stands at padding is finite and means nothing.
    ///
    /// - latent: [cells, n_patches, latent_dim]
    /// - output: [cells, targets], log1p-normalised
    pub fn predict(&self, latent: Tensor<B, 3>, targets: &GeneTargets<B>) -> Tensor<B, 2> {
        let embedded = self.encoder.embed_genes(&targets.genes);
        self.decoder.forward(latent, embedded, self.encoder.masked(&targets.lengths))
    }

    /// Expression of the target genes, from what the cell shows.
    ///
    /// - output: [cells, targets], log1p-normalised
    pub fn forward(&self, input: &GeneValues<B>, targets: &GeneTargets<B>) -> Tensor<B, 2> {
        self.predict(self.latent(self.patches(input)), targets)
    }

    /// The encoder's attention maps.
    pub fn attention_scores(&self, input: &GeneValues<B>) -> AttentionScores<B> {
        let (_, cross, self_blocks) = self.encoder.patches_with_scores(input);
        AttentionScores { cross, self_blocks }
    }

    /// The decoder's prediction and attention maps.
    ///
    /// - latent: [cells, n_patches, latent_dim]
    /// - output: ([cells, targets], maps)
    pub fn predict_with_scores(
        &self,
        latent: Tensor<B, 3>,
        targets: &GeneTargets<B>,
    ) -> (Tensor<B, 2>, DecoderScores<B>) {
        let embedded = self.encoder.embed_genes(&targets.genes);
        let decoded =
            self.decoder.forward_with_scores(latent, embedded, self.encoder.masked(&targets.lengths));
        (decoded.prediction, DecoderScores { cross: decoded.cross, self_blocks: decoded.self_blocks })
    }

    /// The encoder alone.
    pub fn encoder(&self) -> &Encoder<B> {
        &self.encoder
    }
}
