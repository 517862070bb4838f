//! From a cell's latent patches to the expression of the genes asked for.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::attention::Ragged;
use crate::backend::ModelBackend;
use crate::block::Block;
use crate::config::CellPatchConfig;
use crate::initialization;
use crate::lengths::GeneLengths;
use crate::linear::{rows, rows_to_numbers};
use crate::operation::{Operation, primitive, tensor};

/// Predicts expression by letting target genes read the latent patches and each other.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    from_latent: Linear<B>,
    cross: Block<B>,
    self_blocks: Vec<Block<B>>,
    dropout: Dropout,
    output: Linear<B>,
}

/// A decoder's prediction with the attention maps behind it.
pub(crate) struct Decoded<B: Backend> {
    pub(crate) prediction: Tensor<B, 2>,
    pub(crate) cross: Tensor<B, 3>,
    pub(crate) self_blocks: Vec<Tensor<B, 3>>,
}

impl<B: ModelBackend> Decoder<B> {
    pub(crate) fn new(config: &CellPatchConfig, device: &B::Device) -> Self {
        let d = config.embedding_dim;
        Self {
            from_latent: initialization::linear(config.latent_dim, d, device),
            cross: Block::new(config, device),
            self_blocks: (0..config.decoder_self_blocks).map(|_| Block::new(config, device)).collect(),
            dropout: DropoutConfig::new(config.output_dropout).init(),
            output: initialization::linear(d, 1, device),
        }
    }

    /// - latent: [cells, n_patches, latent_dim]
    /// - targets: embedded target genes, [cells, targets, d]
    /// - lengths: of the targets, where padding is masked
    /// - output: [cells, targets]
    pub fn forward(
        &self,
        latent: Tensor<B, 3>,
        targets: Tensor<B, 3>,
        lengths: Option<&GeneLengths>,
    ) -> Tensor<B, 2> {
        let memory = rows(&self.from_latent, latent);
        let read = self.cross.forward(targets, memory, Ragged { queries: lengths, keys: None });
        let among = Ragged { queries: lengths, keys: lengths };
        let hidden = self.self_blocks.iter().fold(read, |hidden, block| block.forward_self(hidden, among));
        self.predict(hidden, lengths)
    }

    pub(crate) fn forward_with_scores(
        &self,
        latent: Tensor<B, 3>,
        targets: Tensor<B, 3>,
        lengths: Option<&GeneLengths>,
    ) -> Decoded<B> {
        let memory = rows(&self.from_latent, latent);
        let (mut hidden, cross) =
            self.cross.forward_with_scores(targets, memory, Ragged { queries: lengths, keys: None });
        let among = Ragged { queries: lengths, keys: lengths };
        let mut maps = Vec::with_capacity(self.self_blocks.len());
        for block in &self.self_blocks {
            let (next, map) = block.forward_with_scores(hidden.clone(), hidden, among);
            hidden = next;
            maps.push(map);
        }
        Decoded { prediction: self.predict(hidden, lengths), cross, self_blocks: maps }
    }

    fn predict(&self, hidden: Tensor<B, 3>, lengths: Option<&GeneLengths>) -> Tensor<B, 2> {
        self.predict_fused(&hidden, lengths)
            .unwrap_or_else(|| rows_to_numbers(&self.output, self.dropout.forward(hidden)))
    }

    fn predict_fused(&self, hidden: &Tensor<B, 3>, lengths: Option<&GeneLengths>) -> Option<Tensor<B, 2>> {
        let training = B::ad_enabled(&hidden.device());
        let operation = Operation::OutputLayer {
            lengths: lengths.cloned(),
            dropout: if training { self.dropout.prob } else { 0.0 },
        };
        let (weight, bias) = (self.output.weight.val(), self.output.bias.as_ref()?.val());
        let inputs = [primitive(hidden.clone()), primitive(weight), primitive(bias)];
        B::fused(&operation, inputs).map(tensor)
    }
}
