//! From a cell's genes to its patches.

mod reader;

use burn::module::{Module, Param};
use burn::nn::{Embedding, LayerNorm, Linear};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::attention::Ragged;
use crate::backend::ModelBackend;
use crate::block::Block;
use crate::config::{CellPatchConfig, Padding};
use crate::embedding::ExpressionLayer;
use crate::initialization;
use crate::input::GeneValues;
use crate::lengths::GeneLengths;
use crate::linear::rows;
use crate::tokens::GeneTokens;

use self::reader::Reading;
pub use self::reader::{PatchReader, ReaderTensors};

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
        let expression = ExpressionLayer::new(config.expression, d, device);
        let gene_embedding = initialization::input_table(config.gene_capacity, d, device);
        let patch_tokens = initialization::standard_normal([1, config.n_patches, d], device);
        let cross = Block::reading(config, &expression, device);
        Self {
            expression,
            expression_norm: initialization::layer_norm(d, device),
            gene_embedding,
            patch_tokens,
            cross,
            self_blocks: (0..config.encoder_self_blocks).map(|_| Block::new(config, device)).collect(),
            to_latent: initialization::linear(d, config.latent_dim, device),
            padding: config.padding,
        }
    }

    /// Patches after the cross-attention block alone.
    ///
    /// - output: [cells, n_patches, d]
    pub fn cross_patches(&self, input: &GeneValues<B>) -> Tensor<B, 3> {
        self.reading().forward(input)
    }

    /// The parts that read a cell's genes.
    fn reading(&self) -> Reading<'_, B> {
        Reading {
            expression: &self.expression,
            gene_embedding: &self.gene_embedding,
            patch_tokens: &self.patch_tokens,
            cross: &self.cross,
            padding: self.padding,
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
        let (mut patches, cross) = self.reading().forward_with_scores(input);
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
        self.reading().forward_with_scores(input).1
    }

    /// Rows of the gene embedding table.
    ///
    /// - genes: [cells, genes]
    /// - output: [cells, genes, d]
    pub fn embed_genes(&self, genes: &GeneTokens<B>) -> Tensor<B, 3> {
        self.reading().embed_genes(genes)
    }

    /// The whole gene embedding table.
    ///
    /// - output: [gene_capacity, d]
    pub fn gene_table(&self) -> Tensor<B, 2> {
        self.gene_embedding.weight.val()
    }

    /// The lengths attention must respect, if padding is not attended.
    pub(crate) fn masked<'a>(&self, lengths: &'a GeneLengths) -> Option<&'a GeneLengths> {
        self.padding.masked(lengths)
    }
}
