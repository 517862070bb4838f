//! From a cell's genes to its patches.

use burn::module::{Module, Param};
use burn::nn::{Embedding, LayerNorm, Linear};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

use crate::attention::Ragged;
use crate::backend::ModelBackend;
use crate::block::Block;
use crate::config::{CellPatchConfig, ExpressionEmbedding, Padding};
use crate::embedding::ExpressionLayer;
use crate::initialization;
use crate::input::GeneValues;
use crate::lengths::GeneLengths;
use crate::linear::rows;
use crate::operation::{Operation, primitive, tensor};

/// Reads a bag of (gene, expression) pairs into learned patch tokens.
#[derive(Module, Debug)]
pub struct Encoder<B: Backend> {
    expression: ExpressionLayer<B>,
    /// In every released checkpoint, never used by the authors' code nor here.
    expression_norm: LayerNorm<B>,
    gene_embedding: Embedding<B>,
    /// [1, n_patches, d]
    patch_tokens: Param<Tensor<B, 3>>,
    cross: Block<B>,
    self_blocks: Vec<Block<B>>,
    to_latent: Linear<B>,
    #[module(skip)]
    padding: Padding,
}

impl<B: ModelBackend> Encoder<B> {
    pub(crate) fn new(config: &CellPatchConfig, device: &B::Device) -> Self {
        let d = config.embedding_dim;
        Self {
            expression: ExpressionLayer::new(config.expression, d, device),
            expression_norm: initialization::layer_norm(d, device),
            gene_embedding: initialization::embedding(config.gene_capacity, d, device),
            patch_tokens: initialization::standard_normal([1, config.n_patches, d], device),
            cross: Block::new(config, device),
            self_blocks: (0..config.encoder_self_blocks).map(|_| Block::new(config, device)).collect(),
            to_latent: initialization::linear(d, config.latent_dim, device),
            padding: config.padding,
        }
    }

    /// Patches after the cross-attention block alone.
    ///
    /// - output: [cells, n_patches, d]
    pub fn cross_patches(&self, input: &GeneValues<B>) -> Tensor<B, 3> {
        let ragged = Ragged { queries: None, keys: self.masked(&input.lengths) };
        self.cross_fused(input, ragged)
            .unwrap_or_else(|| self.cross.forward(self.patch_tokens.val(), self.embed(input), ragged))
    }

    /// The cross block with its embedding inside, if the backend has a kernel for it.
    fn cross_fused(&self, input: &GeneValues<B>, ragged: Ragged<'_>) -> Option<Tensor<B, 3>> {
        let operation = |expression| Operation::GeneBlock {
            attention: self.cross.spec(ragged, &input.values.device()),
            genes: input.genes.clone().into_primitive(),
            expression,
        };
        let mut inputs = vec![
            primitive(self.patch_tokens.val()),
            primitive(self.gene_table()),
            primitive(input.values.clone()),
        ];
        match &self.expression {
            ExpressionLayer::Continuous(layer) => {
                inputs.extend([primitive(layer.weight.val()), primitive(layer.bias.as_ref()?.val())]);
                self.cross.fused::<17>(&operation(ExpressionEmbedding::Continuous), inputs)
            }
            ExpressionLayer::Binned(bins) => {
                let [n_bins, _] = bins.weight.dims();
                inputs.push(primitive(bins.weight.val()));
                let expression = ExpressionEmbedding::Binned { max_value: n_bins - 1 };
                self.cross.fused::<16>(&operation(expression), inputs)
            }
        }
    }

    /// Patches after all blocks: the features of downstream tasks.
    ///
    /// - output: [cells, n_patches, d]
    pub fn patches(&self, input: &GeneValues<B>) -> Tensor<B, 3> {
        let crossed = self.cross_patches(input);
        self.self_blocks.iter().fold(crossed, |patches, block| block.forward_self(patches, Ragged::default()))
    }

    /// The bottleneck the decoder reads.
    ///
    /// - patches: [cells, n_patches, d]
    /// - output: [cells, n_patches, latent_dim]
    pub fn latent(&self, patches: Tensor<B, 3>) -> Tensor<B, 3> {
        rows(&self.to_latent, patches)
    }

    /// Patches, the cross block's attention map ([cells, n_patches, genes]) and the self blocks'
    /// ([cells, n_patches, n_patches] each), averaged over heads.
    pub(crate) fn patches_with_scores(
        &self,
        input: &GeneValues<B>,
    ) -> (Tensor<B, 3>, Tensor<B, 3>, Vec<Tensor<B, 3>>) {
        let ragged = Ragged { queries: None, keys: self.masked(&input.lengths) };
        let (mut patches, cross) =
            self.cross.forward_with_scores(self.patch_tokens.val(), self.embed(input), ragged);
        let mut maps = Vec::with_capacity(self.self_blocks.len());
        for block in &self.self_blocks {
            let (next, map) = block.forward_with_scores(patches.clone(), patches, Ragged::default());
            patches = next;
            maps.push(map);
        }
        (patches, cross, maps)
    }

    /// How much each patch attended each gene in the cross block, averaged over heads (paper, Supplementary Fig. 7). The
    /// map is held in memory whole: give few cells at a time.
    ///
    /// - output: [cells, n_patches, genes]; every row sums to 1, 0 at masked padding
    pub fn cross_scores(&self, input: &GeneValues<B>) -> Tensor<B, 3> {
        let ragged = Ragged { queries: None, keys: self.masked(&input.lengths) };
        self.cross.forward_with_scores(self.patch_tokens.val(), self.embed(input), ragged).1
    }

    /// Rows of the gene embedding table.
    ///
    /// - genes: [cells, genes]
    /// - output: [cells, genes, d]
    pub fn embed_genes(&self, genes: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let operation = Operation::EmbedGenes { genes: genes.clone().into_primitive() };
        B::fused(&operation, [primitive(self.gene_table())])
            .map_or_else(|| self.gene_embedding.forward(genes), tensor)
    }

    /// The whole gene embedding table.
    ///
    /// - output: [gene_capacity, d]
    pub fn gene_table(&self) -> Tensor<B, 2> {
        self.gene_embedding.weight.val()
    }

    /// The lengths attention must respect, if padding is not attended.
    pub(crate) fn masked<'a>(&self, lengths: &'a GeneLengths) -> Option<&'a GeneLengths> {
        (self.padding == Padding::Masked).then_some(lengths)
    }

    fn embed(&self, input: &GeneValues<B>) -> Tensor<B, 3> {
        self.embed_genes(input.genes.clone()) + self.expression.forward(input.values.clone())
    }
}
