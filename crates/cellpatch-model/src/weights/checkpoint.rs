//! The tensors of a weights file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::TensorData;
use burn::tensor::backend::Backend;

use super::{CONFIG_KEY, parameters, pytorch, safetensors};
use crate::backend::ModelBackend;
use crate::config::{CellPatchConfig, ExpressionEmbedding, Padding};
use crate::error::{Error, Result};
use crate::model::CellPatch;

/// A weights file: tensors by released name, in PyTorch's layout, as 32-bit floats.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// Tensors by released name (`module.`, which PyTorch's data parallelism puts in front, is taken off).
    pub tensors: BTreeMap<String, TensorData>,
    /// Free text by name; empty for PyTorch files.
    pub metadata: BTreeMap<String, String>,
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

    /// Puts the tensors into a model; its parameters keep their identity, device and whether they learn.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`] or [`Error::WrongShape`] for the first parameter that no tensor fits.
    pub fn load_into<B: ModelBackend>(&self, model: CellPatch<B>) -> Result<(CellPatch<B>, LoadReport)> {
        self.load_into_module(model)
    }

    /// [`Checkpoint::load_into`] for any module made of this crate's parts: what the module has no place for is skipped.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::load_into`].
    pub fn load_into_module<B: Backend, M: Module<B>>(&self, model: M) -> Result<(M, LoadReport)> {
        let mut used = BTreeSet::new();
        let model = parameters::with_tensors(model, &self.tensors, &mut used)?;
        let skipped = self.tensors.keys().filter(|name| !used.contains(*name)).cloned().collect();
        Ok((model, LoadReport { n_loaded: used.len(), skipped }))
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
