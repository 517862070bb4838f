//! What reads a cell's genes into patches: the embeddings and the cross-attention block.

use burn::module::{Module, Param};
use burn::nn::{Embedding, LayerNorm};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

use crate::attention::Ragged;
use crate::backend::ModelBackend;
use crate::block::Block;
use crate::config::{CellPatchConfig, ExpressionEmbedding, Padding};
use crate::embedding::ExpressionLayer;
use crate::initialization;
use crate::input::GeneValues;
use crate::operation::{Operation, primitive, tensor};
use crate::tokens::GeneTokens;

/// The first part of the model alone: genes into patches by one cross-attention block, as CellPatch+STAGATE has it.
///
/// Its parameters have the released names of the whole model's.
#[derive(Module, Debug)]
pub struct PatchReader<B: Backend> {
    expression: ExpressionLayer<B>,
    /// In every released checkpoint, never used by the authors' code nor here.
    expression_norm: LayerNorm<B>,
    gene_embedding: Embedding<B>,
    /// [1, n_patches, d]
    patch_tokens: Param<Tensor<B, 3>>,
    cross: Block<B>,
    #[module(skip)]
    padding: Padding,
}

/// Everything that reading depends on, for a kernel of a caller's own.
#[derive(Debug, Clone)]
pub struct ReaderTensors<B: Backend> {
    /// Patch tokens ([1, n_patches, d]), the gene table ([capacity, d]), the expression's weights (a row [1, d] and a bias
    /// `[d]`, or bins [n, d]), and a block's twelve weights (see [`Operation`]).
    pub tensors: Vec<FloatTensor<B>>,
    /// What the expression's weights are.
    pub expression: ExpressionEmbedding,
    /// Attention heads of the block.
    pub n_heads: usize,
    /// Probability with which a softmax weight is dropped now: 0 outside training.
    pub dropout: f64,
}

impl<B: ModelBackend> PatchReader<B> {
    /// A reader with fresh weights, drawn as those of the whole model. Latent, decoder and self blocks of the configuration
    /// are left out.
    pub fn new(config: &CellPatchConfig, device: &B::Device) -> Self {
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
            padding: config.padding,
        }
    }

    /// A cell's patches after the cross-attention block.
    ///
    /// - output: [cells, n_patches, d]
    pub fn forward(&self, input: &GeneValues<B>) -> Tensor<B, 3> {
        self.reading().forward(input)
    }

    /// Patches and the attention map, averaged over heads.
    ///
    /// - output: ([cells, n_patches, d], [cells, n_patches, genes])
    pub fn forward_with_scores(&self, input: &GeneValues<B>) -> (Tensor<B, 3>, Tensor<B, 3>) {
        self.reading().forward_with_scores(input)
    }

    /// What a kernel needs to read genes; `None` if a layer lacks a bias, which no released one does.
    pub fn tensors(&self) -> Option<ReaderTensors<B>> {
        let mut tensors =
            vec![primitive(self.patch_tokens.val()), primitive(self.gene_embedding.weight.val())];
        let (expression, weights) = self.reading().expression_tensors()?;
        tensors.extend(weights);
        tensors.extend(self.cross.weights()?);
        let spec = self.cross.spec(Ragged::default(), &self.patch_tokens.val().device());
        Some(ReaderTensors { tensors, expression, n_heads: spec.n_heads, dropout: spec.dropout })
    }

    /// Patch tokens and their width.
    pub fn n_patches_and_width(&self) -> [usize; 2] {
        let [_, n_patches, d] = self.patch_tokens.dims();
        [n_patches, d]
    }

    fn reading(&self) -> Reading<'_, B> {
        Reading {
            expression: &self.expression,
            gene_embedding: &self.gene_embedding,
            patch_tokens: &self.patch_tokens,
            cross: &self.cross,
            padding: self.padding,
        }
    }
}

/// The parts that read a cell's genes, wherever they are kept.
pub(super) struct Reading<'a, B: Backend> {
    pub(super) expression: &'a ExpressionLayer<B>,
    pub(super) gene_embedding: &'a Embedding<B>,
    pub(super) patch_tokens: &'a Param<Tensor<B, 3>>,
    pub(super) cross: &'a Block<B>,
    pub(super) padding: Padding,
}

impl<B: ModelBackend> Reading<'_, B> {
    pub(super) fn forward(&self, input: &GeneValues<B>) -> Tensor<B, 3> {
        let ragged = Ragged { queries: None, keys: self.padding.masked(&input.lengths) };
        self.fused(input, ragged)
            .unwrap_or_else(|| self.cross.forward(self.patch_tokens.val(), self.embed(input), ragged))
    }

    pub(super) fn forward_with_scores(&self, input: &GeneValues<B>) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let ragged = Ragged { queries: None, keys: self.padding.masked(&input.lengths) };
        self.cross.forward_with_scores(self.patch_tokens.val(), self.embed(input), ragged)
    }

    pub(super) fn embed_genes(&self, genes: &GeneTokens<B>) -> Tensor<B, 3> {
        let operation = Operation::EmbedGenes { genes: genes.genes() };
        B::fused(&operation, [primitive(self.gene_embedding.weight.val())])
            .map_or_else(|| self.gene_embedding.forward(genes.tensor()), tensor)
    }

    fn embed(&self, input: &GeneValues<B>) -> Tensor<B, 3> {
        self.embed_genes(&input.genes) + self.expression.forward(input.values.clone())
    }

    /// The cross block with its embedding inside, if the backend has a kernel for it.
    fn fused(&self, input: &GeneValues<B>, ragged: Ragged<'_>) -> Option<Tensor<B, 3>> {
        let (expression, weights) = self.expression_tensors()?;
        let operation = Operation::GeneBlock {
            attention: self.cross.spec(ragged, &input.values.device()),
            genes: input.genes.genes(),
            expression,
        };
        let mut inputs = vec![
            primitive(self.patch_tokens.val()),
            primitive(self.gene_embedding.weight.val()),
            primitive(input.values.clone()),
        ];
        inputs.extend(weights);
        match expression {
            ExpressionEmbedding::Continuous => self.cross.fused::<17>(&operation, inputs),
            ExpressionEmbedding::Binned { .. } => self.cross.fused::<16>(&operation, inputs),
        }
    }

    /// Kind and weights of the expression embedding.
    fn expression_tensors(&self) -> Option<(ExpressionEmbedding, Vec<FloatTensor<B>>)> {
        Some(match self.expression {
            ExpressionLayer::Continuous(layer) => {
                let weights = vec![primitive(layer.weight.val()), primitive(layer.bias.as_ref()?.val())];
                (ExpressionEmbedding::Continuous, weights)
            }
            ExpressionLayer::Binned(bins) => {
                let [n_bins, _] = bins.weight.dims();
                (ExpressionEmbedding::Binned { max_value: n_bins - 1 }, vec![primitive(bins.weight.val())])
            }
        })
    }
}
