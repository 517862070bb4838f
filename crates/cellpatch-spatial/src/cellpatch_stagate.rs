//! CellPatch+STAGATE: a graph attention autoencoder over patches and expression.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor, TensorData};
use cellpatch_model::operation::tensor;
use cellpatch_model::product::product;
use cellpatch_model::weights::{Checkpoint, LoadReport};
use cellpatch_model::{GeneLengths, GeneTokens, GeneValues, Padding, PatchReader};

use crate::backend::SpatialBackend;
use crate::config::{CellPatchStagateConfig, GenesRead};
use crate::error::Result;
use crate::input::SpatialInput;
use crate::operation::SpatialOperation;
use crate::stagate::{Pass, Stagate, StagateOutput, decoder_error, expression_product};
use crate::training::PatchGenes;

/// Spots whose genes plain operations read at once.
const SPOTS: usize = 256;

/// The patches of CellPatch's first block, flattened and beside the expression, through STAGATE, and by a linear map back to
/// expression (Zhu, Yuan, Yang et al., bioRxiv 2024).
///
/// Make one with [`CellPatchStagateConfig::init`].
#[derive(Module, Debug)]
pub struct CellPatchStagate<B: Backend> {
    reader: PatchReader<B>,
    pub(crate) autoencoder: Stagate<B>,
    /// From reconstructed features to genes.
    to_genes: Linear<B>,
    #[module(skip)]
    genes_read: GenesRead,
}

/// A slice, and what patches read of its spots.
#[derive(Debug, Clone)]
pub struct CellPatchInput<B: Backend> {
    slice: SpatialInput<B>,
    genes: PatchGenes,
}

impl<B: Backend> CellPatchInput<B> {
    /// Patches that read the slice's own genes.
    ///
    /// - tokens: row of the gene table of each of the slice's genes; no two are equal and none is 0, the padding
    /// - gene_capacity: rows of the table
    ///
    /// # Errors
    ///
    /// [`Error::Disagreement`](crate::Error::Disagreement) if there is not a token for each gene, [`Error::BadExpression`](crate::Error::BadExpression) if a token is no gene's or two
    /// genes share one.
    pub fn new(slice: SpatialInput<B>, tokens: impl Into<Arc<[u32]>>, gene_capacity: usize) -> Result<Self> {
        let genes = PatchGenes::new(slice.expression().clone(), tokens, gene_capacity)?;
        Ok(Self { slice, genes })
    }

    /// - genes: of the slice's spots, in their order
    pub(crate) fn of_genes(slice: SpatialInput<B>, genes: PatchGenes) -> Self {
        Self { slice, genes }
    }

    /// Expression and neighbours.
    pub fn slice(&self) -> &SpatialInput<B> {
        &self.slice
    }

    /// What the patches read.
    pub fn genes(&self) -> &PatchGenes {
        &self.genes
    }
}

impl<B: SpatialBackend> CellPatchStagate<B> {
    pub(crate) fn new(config: &CellPatchStagateConfig, device: &B::Device) -> Self {
        let width = config.patch_width() + config.n_genes;
        // As `torch.nn.Linear` starts.
        let bound = (width as f64).powf(-0.5);
        let uniform = Distribution::Uniform(-bound, bound);
        Self {
            reader: PatchReader::new(&config.cell_patch.clone().with_padding(Padding::Masked), device),
            autoencoder: Stagate::new(&config.autoencoder(), device),
            to_genes: Linear {
                weight: Param::from_tensor(Tensor::random([width, config.n_genes], uniform, device)),
                bias: Some(Param::from_tensor(Tensor::random([config.n_genes], uniform, device))),
            },
            genes_read: config.genes_read,
        }
    }

    /// The same with embeddings and first block of a pretrained CellPatch.
    ///
    /// # Errors
    ///
    /// [`Error::Model`](crate::Error::Model) if a tensor is missing or of another shape.
    pub fn with_pretrained(mut self, checkpoint: &Checkpoint) -> Result<(Self, LoadReport)> {
        let (reader, report) = checkpoint.load_into(self.reader)?;
        self.reader = reader;
        Ok((self, report))
    }

    /// The same, with embeddings and first block as they are from now on.
    pub fn freeze_patches(mut self) -> Self {
        self.reader = self.reader.no_grad();
        self
    }

    /// Patches of each spot after CellPatch's first block, side by side.
    ///
    /// - output: [spots, n_patches * d]
    pub fn patches(&self, input: &CellPatchInput<B>) -> Tensor<B, 2> {
        let [n_patches, d] = self.reader.n_patches_and_width();
        let n_spots = input.slice.graph().n_spots();
        let patches = self.patches_fused(input).unwrap_or_else(|| self.patches_by_model(input));
        patches.reshape([n_spots, n_patches * d])
    }

    fn patches_fused(&self, input: &CellPatchInput<B>) -> Option<Tensor<B, 3>> {
        let reader = self.reader.tensors()?;
        let operation = SpatialOperation::ReadGenes {
            expression: Arc::clone(input.genes.expression().matrix()),
            tokens: Arc::clone(input.genes.tokens()),
            zeros: self.genes_read.into(),
            embedding: reader.expression,
            n_heads: reader.n_heads,
            dropout: reader.dropout,
        };
        let inputs: [_; 16] = reader.tensors.try_into().ok()?;
        B::spatial_fused(&operation, inputs).map(tensor)
    }

    /// The patches by the model's own first block over padded rows of genes, some spots at a time: what backends without a
    /// kernel for slices do, and the reference for that kernel.
    ///
    /// - output: [spots, n_patches, d]
    pub fn patches_by_model(&self, input: &CellPatchInput<B>) -> Tensor<B, 3> {
        let (slice, device) = (&input.slice, input.slice.device());
        let (matrix, tokens) = (input.genes.expression().matrix(), input.genes.tokens());
        let n_genes = tokens.len();
        let n_spots = slice.graph().n_spots();
        let parts = (0..n_spots).step_by(SPOTS).map(|first| {
            let spots = first..n_spots.min(first + SPOTS);
            let n_read = |spot| match self.genes_read {
                GenesRead::NonZero => matrix.row(spot).0.len(),
                GenesRead::All => n_genes,
            };
            let lengths = GeneLengths::new(spots.clone().map(n_read).collect::<Vec<_>>());
            let shape = [spots.len(), lengths.longest()];
            let mut genes = vec![0_u32; shape[0] * shape[1]];
            let mut values = vec![0.0_f32; genes.len()];
            for (row, spot) in spots.enumerate() {
                let (genes, values) = (&mut genes[row * shape[1]..], &mut values[row * shape[1]..]);
                if self.genes_read == GenesRead::All {
                    genes.iter_mut().zip(tokens.iter()).for_each(|(slot, &token)| *slot = token);
                }
                let (columns, entries) = matrix.row(spot);
                for (place, (&gene, &value)) in columns.iter().zip(entries).enumerate() {
                    let slot = if self.genes_read == GenesRead::All { gene as usize } else { place };
                    genes[slot] = tokens[gene as usize];
                    values[slot] = value;
                }
            }
            self.reader.forward(&GeneValues {
                genes: GeneTokens::new(genes, shape, device),
                values: Tensor::from_data(TensorData::new(values, shape), device),
                lengths,
            })
        });
        Tensor::cat(parts.collect(), 0)
    }

    /// What the autoencoder reads: patches beside expression.
    ///
    /// - output: [spots, n_patches * d + genes]
    pub fn features(&self, input: &CellPatchInput<B>) -> Tensor<B, 2> {
        let expression = input.slice.expression();
        let dense = TensorData::new(expression.to_dense(), [expression.n_spots(), expression.n_genes()]);
        Tensor::cat(vec![self.patches(input), Tensor::from_data(dense, input.slice.device())], 1)
    }

    /// The embedding that domains are made of.
    ///
    /// - output: [spots, latent_dim]
    pub fn latent(&self, input: &CellPatchInput<B>) -> Tensor<B, 2> {
        self.pass(input).latent
    }

    /// Weights of edges, in the order of [`SpatialGraph::edges`](crate::graph::SpatialGraph::edges).
    ///
    /// - output: `[edges]`
    pub fn attention(&self, input: &CellPatchInput<B>) -> Tensor<B, 1> {
        self.pass(input).weights
    }

    /// Embedding and reconstruction of expression. The latter is of every spot and gene: training needs
    /// [`CellPatchStagate::loss`] only.
    pub fn forward(&self, input: &CellPatchInput<B>) -> StagateOutput<B> {
        let pass = self.pass(input);
        let reconstruction = product(pass.hidden, self.folded());
        let reconstruction = match &self.to_genes.bias {
            Some(bias) => reconstruction + bias.val().unsqueeze(),
            None => reconstruction,
        };
        StagateOutput { latent: pass.latent, reconstruction }
    }

    /// The features as the autoencoder reconstructs them, before the map to genes.
    ///
    /// - output: [spots, n_patches * d + genes]
    pub fn reconstructed_features(&self, input: &CellPatchInput<B>) -> Tensor<B, 2> {
        product(self.pass(input).hidden, self.autoencoder.decoder().transpose())
    }

    /// Mean squared error of the reconstructed expression of the spots that count.
    ///
    /// The decoder's last map and the map to genes fold into one, and the error of a linear decoder follows from products of
    /// its width: neither features nor expression are reconstructed.
    ///
    /// - output: `[1]`
    pub fn loss(&self, input: &CellPatchInput<B>) -> Tensor<B, 1> {
        let pass = self.pass(input);
        let weight = self.folded().transpose();
        let product = expression_product(&input.slice, weight.clone());
        let bias = self.to_genes.bias.as_ref().map(|bias| bias.val());
        decoder_error(&input.slice, product, pass.hidden, weight, bias)
    }

    /// The decoder's last map and the map to genes in one: [hidden_dim, genes].
    fn folded(&self) -> Tensor<B, 2> {
        product(self.autoencoder.decoder().transpose(), self.to_genes.weight.val())
    }

    fn pass(&self, input: &CellPatchInput<B>) -> Pass<B> {
        let patches = self.patches(input);
        let ([_, width], first) = (patches.dims(), self.autoencoder.conv1.lin_src.val());
        let [n_features, hidden_dim] = first.dims();
        let of_patches = first.clone().slice([0..width, 0..hidden_dim]);
        let of_genes = first.slice([width..n_features, 0..hidden_dim]);
        let rows = product(patches, of_patches) + expression_product(&input.slice, of_genes);
        self.autoencoder.pass(&input.slice, rows)
    }
}
