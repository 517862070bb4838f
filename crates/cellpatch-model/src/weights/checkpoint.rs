//! The tensors of a weights file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor, TensorData};

use super::{ANNOTATOR_KEY, CONFIG_KEY, parameters, pytorch, safetensors};
use crate::annotation::AnnotatorConfig;
use crate::backend::ModelBackend;
use crate::config::{CellPatchConfig, ExpressionEmbedding, Padding};
use crate::encoder::Encoder;
use crate::error::{Error, Result};

/// A weights file: tensors by released name, in PyTorch's layout, as 32-bit floats.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// Tensors by released name (`module.`, which PyTorch's data parallelism puts in front, is taken off).
    pub tensors: BTreeMap<String, TensorData>,
    /// Free text by name; empty for PyTorch files.
    pub metadata: BTreeMap<String, String>,
}

const GENE_TABLE: &str = "gene2vector.weight";

/// Gives the encoder's parameters the path they have in a whole model.
#[derive(Module, Debug)]
struct EncoderAlone<B: Backend> {
    encoder: Encoder<B>,
}

/// What happened to the tensors of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// How many tensors went into the model.
    pub n_loaded: usize,
    /// Tensors of the file the model has no place for, by name: the heads of an annotation model, for example.
    pub skipped: Vec<String>,
}

impl Checkpoint {
    /// Reads a PyTorch file if its name ends in `.pth`, `.pt` or `.bin`, and a safetensors file otherwise.
    ///
    /// # Errors
    ///
    /// What the readers return.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let extension =
            path.as_ref().extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension {
            "pth" | "pt" | "bin" => Self::read_pth(path),
            _ => Self::read_safetensors(path),
        }
    }

    /// Reads a safetensors file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read, [`Error::Unreadable`] if it is damaged, [`Error::WrongType`] if a tensor
    /// is not of floating-point numbers.
    pub fn read_safetensors(path: impl AsRef<Path>) -> Result<Self> {
        safetensors::read(path.as_ref())
    }

    /// Reads a file written by `torch.save`: a state dict, or a dict that holds one as `model_state_dict`.
    /// No Python code in it is run.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::read_safetensors`].
    pub fn read_pth(path: impl AsRef<Path>) -> Result<Self> {
        pytorch::read(path.as_ref())
    }

    pub(super) fn new(
        tensors: impl IntoIterator<Item = (String, TensorData)>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self> {
        let tensors = tensors
            .into_iter()
            .map(|(name, data)| {
                let name = name.strip_prefix("module.").map_or(name.clone(), str::to_string);
                if !data.dtype.is_float() {
                    return Err(Error::WrongType { name, found: format!("{:?}", data.dtype) });
                }
                Ok((name, data.convert::<f32>()))
            })
            .collect::<Result<_>>()?;
        Ok(Self { tensors, metadata })
    }

    /// Puts the tensors into a model ([`CellPatch`](crate::CellPatch) or [`Annotator`](crate::Annotator)); its parameters
    /// keep their identity, device and whether they learn.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`] or [`Error::WrongShape`] for the first parameter that no tensor fits.
    pub fn load_into<B: ModelBackend, M: Module<B>>(&self, model: M) -> Result<(M, LoadReport)> {
        let mut used = BTreeSet::new();
        let model = parameters::with_tensors(model, &self.tensors, &mut used)?;
        let skipped = self.tensors.keys().filter(|name| !used.contains(*name)).cloned().collect();
        Ok((model, LoadReport { n_loaded: used.len(), skipped }))
    }

    /// The encoder alone, of a pretrained or an annotating model.
    ///
    /// - config: the model's, of [`Checkpoint::config`] or with another capacity: see [`Checkpoint::fit_gene_table`]
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::load_into`].
    pub fn encoder<B: ModelBackend>(
        &self,
        config: &CellPatchConfig,
        device: &B::Device,
    ) -> Result<Encoder<B>> {
        Ok(self.load_into(EncoderAlone { encoder: Encoder::new(config, device) })?.0.encoder)
    }

    /// Draws the rows of the gene table from `first_new` on anew, standard normal as in a fresh model, and makes it as long
    /// as asked: L2 has shrunk the rows of tokens that no cell of the pretraining had. They come from the device's random
    /// stream (`B::seed`).
    ///
    /// # Errors
    ///
    /// [`Error::NotCellPatch`] if there is no gene table.
    pub fn fit_gene_table<B: Backend>(
        &mut self,
        first_new: usize,
        capacity: usize,
        device: &B::Device,
    ) -> Result<()> {
        let [n_rows, d] = self.shape(GENE_TABLE)?;
        let Some(table) = self.tensors.remove(GENE_TABLE) else { return Ok(()) };
        let n_kept = first_new.min(n_rows).min(capacity);
        let mut values: Vec<f32> = table.iter::<f32>().take(n_kept * d).collect();
        if capacity > n_kept {
            let normal = Distribution::Normal(0.0, 1.0);
            let fresh: Tensor<B, 2> = Tensor::random([capacity - n_kept, d], normal, device);
            values.extend(fresh.into_data().iter::<f32>());
        }
        self.tensors.insert(GENE_TABLE.to_string(), TensorData::new(values, [capacity, d]));
        Ok(())
    }

    /// The configuration of an annotating model: the one in the metadata if there is one, else what names and shapes tell.
    /// They do not tell what the head reads, taken as [`AnnotationHead::Direct`].
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::config`]; [`Error::NotCellPatch`] if there is no annotation head.
    pub fn annotator_config(&self) -> Result<AnnotatorConfig> {
        if let Some(json) = self.metadata.get(ANNOTATOR_KEY) {
            let config = AnnotatorConfig::load_binary(json.as_bytes()).map_err(|error| {
                Error::NotCellPatch { reason: format!("their metadata {ANNOTATOR_KEY}: {error}") }
            })?;
            config.validate()?;
            return Ok(config);
        }
        let [hidden_1, _] = self.shape("lp_fc1.weight")?;
        let [n_classes, hidden_2] = self.shape("lp_fc3.weight")?;
        let config = AnnotatorConfig::new(self.config()?, n_classes).with_hidden([hidden_1, hidden_2]);
        config.validate()?;
        Ok(config)
    }

    /// The configuration the tensors belong to: the one in the metadata if there is one, else what names and shapes
    /// tell. Shapes do not tell the number of heads, taken as heads of 16 as in the paper; nor dropout, taken as the
    /// paper's; nor the treatment of padding, taken as the authors' code does it ([`Padding::Attended`]).
    ///
    /// # Errors
    ///
    /// [`Error::NotCellPatch`] if a tensor that every pretraining model has is missing or of another rank, or if the
    /// metadata are not a valid configuration.
    pub fn config(&self) -> Result<CellPatchConfig> {
        if self.metadata.contains_key(ANNOTATOR_KEY) {
            return Ok(self.annotator_config()?.model);
        }
        if let Some(json) = self.metadata.get(CONFIG_KEY) {
            let config = CellPatchConfig::load_binary(json.as_bytes()).map_err(|error| {
                Error::NotCellPatch { reason: format!("their metadata {CONFIG_KEY}: {error}") }
            })?;
            config.validate()?;
            return Ok(config);
        }
        let [gene_capacity, embedding_dim] = self.shape("gene2vector.weight")?;
        let [_, n_patches, _] = self.shape("pathway_token")?;
        let [mlp_dim, _] = self.shape("cross_extract_blocks_mlp.0.weight")?;
        let [latent_dim, _] = self.shape("encoder_projection.weight")?;
        let expression = match self.tensors.contains_key("count2vector.bias") {
            true => ExpressionEmbedding::Continuous,
            false => {
                let [n_bins, _] = self.shape("count2vector.weight")?;
                ExpressionEmbedding::Binned { max_value: n_bins.saturating_sub(1) }
            }
        };
        let config = CellPatchConfig::new()
            .with_gene_capacity(gene_capacity)
            .with_embedding_dim(embedding_dim)
            .with_n_patches(n_patches)
            .with_n_heads(if embedding_dim.is_multiple_of(16) { embedding_dim / 16 } else { 1 })
            .with_mlp_dim(mlp_dim)
            .with_latent_dim(latent_dim)
            .with_encoder_self_blocks(self.n_blocks("self_extract_blocks"))
            .with_decoder_self_blocks(self.n_blocks("decoder_selfattn_blocks"))
            .with_expression(expression)
            .with_padding(Padding::Attended);
        config.validate()?;
        Ok(config)
    }

    fn shape<const D: usize>(&self, name: &str) -> Result<[usize; D]> {
        let Some(data) = self.tensors.get(name) else {
            return Err(Error::NotCellPatch { reason: format!("there is no tensor {name:?}") });
        };
        <[usize; D]>::try_from(data.shape.to_vec()).map_err(|shape| Error::NotCellPatch {
            reason: format!("{name} has {} dimensions instead of {D}", shape.len()),
        })
    }

    fn n_blocks(&self, released: &str) -> usize {
        let block = |index: usize| format!("{released}_attn.{index}.in_proj_weight");
        (0..).take_while(|&index| self.tensors.contains_key(&block(index))).count()
    }
}
