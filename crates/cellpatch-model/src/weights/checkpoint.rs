//! The tensors of a weights file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::TensorData;
use burn::tensor::backend::Backend;

use super::contents::{Contents, LeftOut, LeftOutKind};
use super::fault::Fault;
use super::fit::{Fit, NamedShape, ShapeMismatch};
use super::tensors::NamedTensor;
use super::{ANNOTATOR_KEY, CONFIG_KEY, PthLayout, parameters, pytorch, safetensors};
use crate::annotation::AnnotatorConfig;
use crate::backend::ModelBackend;
use crate::config::{CellPatchConfig, ExpressionEmbedding, Padding};
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::initialization::input_rows;

/// What PyTorch's data parallelism puts in front of names.
const PARALLEL_PREFIX: &str = "module.";
/// How many blocks metadata may say a decoder has that is not in the file.
const MOST_UNSEEN_BLOCKS: usize = 64;
const PYTORCH: &str = "PyTorch";
const SAFETENSORS: &str = "safetensors";

/// A weights file: tensors by released name, in PyTorch's layout, as 32-bit floats.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// Tensors by released name (`module.`, which PyTorch's data parallelism puts in front, is taken off).
    pub tensors: BTreeMap<String, TensorData>,
    /// Free text by name; in PyTorch files the texts beside the state dict, as `metadata`.
    pub metadata: BTreeMap<String, String>,
    /// What the file holds beside: optimizer state, counters, tensors of integers. It is not written back.
    pub left_out: Vec<LeftOut>,
}

const GENE_TABLE: &str = "gene2vector.weight";

/// Gives the encoder's parameters the path they have in a whole model.
#[derive(Module, Debug)]
struct EncoderAlone<B: Backend> {
    encoder: Encoder<B>,
}

/// What happened to the tensors of a file; [`Fit`] tells more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// How many tensors went into the model.
    pub n_loaded: usize,
    /// Tensors of the file the model has no place for, by name: the heads of an annotation model, for example.
    pub skipped: Vec<String>,
    /// What else the file holds: optimizer state, counters, tensors of integers.
    pub left_out: Vec<LeftOut>,
}

impl Checkpoint {
    /// Takes a model's weights; start the metadata with [`config_metadata`](super::config_metadata), so that they
    /// say what model the weights belong to.
    pub fn of<B: Backend, M: Module<B>>(model: &M, metadata: BTreeMap<String, String>) -> Self {
        Self { tensors: parameters::named_tensors(model), metadata, left_out: Vec::new() }
    }

    /// Reads a weights file of either kind: a PyTorch file if it starts as one, or if its name ends in `.pth`, `.pt`
    /// or `.bin`, and a safetensors file otherwise.
    ///
    /// # Errors
    ///
    /// What the readers return.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = bytes(path)?;
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if matches!(extension, "pth" | "pt" | "bin") || pytorch::is_pytorch(&bytes) {
            Self::new(path, PYTORCH, pytorch::contents(&bytes))
        } else {
            Self::new(path, SAFETENSORS, safetensors::contents(&bytes))
        }
    }

    /// Reads a safetensors file. Numbers of 16 and 64 bits become 32-bit floats.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read, [`Error::Unreadable`] if it is damaged.
    pub fn read_safetensors(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::new(path, SAFETENSORS, safetensors::contents(&bytes(path)?))
    }

    /// Reads a file written by `torch.save`: a state dict, or a dict that holds one as `model_state_dict`,
    /// `state_dict` or `model`. Numbers of 16 and 64 bits become 32-bit floats.
    ///
    /// No Python code in it is run, and one that asks for any is refused: a whole pickled module as well as a file
    /// made to do harm ([`Fault::ForbiddenGlobal`]).
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::read_safetensors`].
    pub fn read_pth(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::new(path, PYTORCH, pytorch::contents(&bytes(path)?))
    }

    fn new(path: &Path, format: &'static str, contents: Result<Contents, Fault>) -> Result<Self> {
        contents.and_then(Self::from_contents).map_err(|fault| Error::Unreadable {
            path: path.to_path_buf(),
            format,
            fault,
        })
    }

    pub(super) fn from_contents(contents: Contents) -> Result<Self, Fault> {
        let Contents { tensors: found, metadata, mut left_out } = contents;
        let mut tensors = BTreeMap::new();
        for (name, data) in found {
            let name = without_prefix(name);
            if tensors.insert(name.clone(), data.convert::<f32>()).is_some() {
                return Err(Fault::TwoTensors { name });
            }
        }
        for item in &mut left_out {
            item.name = without_prefix(std::mem::take(&mut item.name));
        }
        Ok(Self { tensors, metadata, left_out })
    }

    /// Writes a safetensors file, atomically: it is written beside its place and renamed. The same tensors and
    /// metadata give the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with the path; [`Error::WrongType`], [`Error::WrongLength`] or [`Error::ReservedName`] if the
    /// tensors are not such as a file can hold, which is never so when they came from a file or a model.
    pub fn write_safetensors(&self, path: impl AsRef<Path>) -> Result<()> {
        safetensors::write(path.as_ref(), &self.named()?, &self.metadata)
    }

    /// Writes a file for `torch.load(path, weights_only=True)`, atomically: it is written beside its place and
    /// renamed. The same tensors, metadata and layout give the same bytes.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::write_safetensors`]; above 4 GB [`Error::Io`] of kind
    /// [`FileTooLarge`](std::io::ErrorKind::FileTooLarge).
    pub fn write_pth(&self, path: impl AsRef<Path>, layout: PthLayout) -> Result<()> {
        pytorch::write(path.as_ref(), &self.named()?, &self.metadata, layout)
    }

    fn named(&self) -> Result<Vec<NamedTensor<'_>>> {
        let tensors = self.tensors.iter().map(|(name, data)| {
            let values = match data.num_elements() {
                0 => &[],
                _ => data.as_slice::<f32>().map_err(|_| Error::WrongType {
                    name: name.clone(),
                    found: format!("{:?}", data.dtype),
                })?,
            };
            NamedTensor::new(name, &data.shape, values)
        });
        tensors.collect()
    }

    /// Compares the tensors with a model's parameters, and changes neither.
    pub fn fit<B: Backend, M: Module<B>>(&self, model: &M) -> Fit {
        let mut fit = Fit { left_out: self.left_out.clone(), ..Fit::default() };
        let parameters = parameters::shapes(model);
        for (name, expected) in &parameters {
            let (name, expected) = (name.clone(), expected.clone());
            match self.tensors.get(&name).map(|data| data.shape.to_vec()) {
                Some(found) if found == expected => fit.matching.push(name),
                Some(found) => fit.mismatched.push(ShapeMismatch { name, found, expected }),
                None => fit.missing.push(NamedShape { name, shape: expected }),
            }
        }
        let unused = self.tensors.iter().filter(|(name, _)| !parameters.contains_key(*name));
        fit.unused = unused
            .map(|(name, data)| NamedShape { name: name.clone(), shape: data.shape.to_vec() })
            .collect();
        fit
    }

    /// Puts the tensors into a model, or any module made of this crate's parts; its parameters keep their identity, device
    /// and whether they learn. What the module has no place for is skipped.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`], [`Error::WrongType`] or [`Error::WrongShape`] for the first parameter that no tensor
    /// fits; [`Checkpoint::fit`] lists all of them.
    pub fn load_into<B: Backend, M: Module<B>>(&self, model: M) -> Result<(M, LoadReport)> {
        let mut used = BTreeSet::new();
        let model = parameters::with_tensors(model, &self.tensors, &mut used)
            .map_err(|error| self.with_element_type(error))?;
        let skipped = self.tensors.keys().filter(|name| !used.contains(*name)).cloned().collect();
        Ok((model, LoadReport { n_loaded: used.len(), skipped, left_out: self.left_out.clone() }))
    }

    /// A tensor that is missing because it does not hold floating-point numbers is of the wrong type.
    fn with_element_type(&self, error: Error) -> Error {
        let Error::MissingTensor { name } = &error else {
            return error;
        };
        self.left_out
            .iter()
            .find_map(|item| match &item.kind {
                LeftOutKind::Tensor { elements } if item.name == *name => {
                    Some(Error::WrongType { name: name.clone(), found: elements.clone() })
                }
                _ => None,
            })
            .unwrap_or(error)
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
            let fresh = input_rows::<B>(capacity - n_kept, d, device);
            values.extend(fresh.into_data().iter::<f32>());
        }
        self.tensors.insert(GENE_TABLE.to_string(), TensorData::new(values, [capacity, d]));
        Ok(())
    }

    /// Keeps some rows of the gene table only, after that of padding: the token of `tokens[i]` becomes `i + 1`. What the others
    /// held plays no part in cells that do not have their genes.
    ///
    /// # Errors
    ///
    /// [`Error::NotCellPatch`] if there is no gene table, [`Error::BadConfig`] for a token that has no row.
    pub fn keep_gene_rows(&mut self, tokens: &[u32]) -> Result<()> {
        let [n_rows, d] = self.shape(GENE_TABLE)?;
        let mut config = self.config()?;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= n_rows) {
            return Err(Error::BadConfig {
                field: "gene_capacity",
                value: n_rows.to_string(),
                reason: format!("there is no row for token {token}"),
            });
        }
        let Some(table) = self.tensors.remove(GENE_TABLE) else { return Ok(()) };
        let values: Vec<f32> = table.iter::<f32>().collect();
        let rows = std::iter::once(0).chain(tokens.iter().copied());
        let kept: Vec<f32> = rows.flat_map(|row| values[row as usize * d..][..d].iter().copied()).collect();
        config.gene_capacity = tokens.len() + 1;
        self.tensors.insert(GENE_TABLE.to_string(), TensorData::new(kept, [config.gene_capacity, d]));
        self.metadata.extend(super::config_metadata(&config));
        Ok(())
    }

    /// The configuration of an annotating model: the one in the metadata if there is one, else what names and shapes tell.
    /// They do not tell what the head reads, taken as [`AnnotationHead::Direct`](crate::AnnotationHead::Direct).
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::config`]; [`Error::NotCellPatch`] if there is no annotation head.
    pub fn annotator_config(&self) -> Result<AnnotatorConfig> {
        let [hidden_1, _] = self.shape("lp_fc1.weight")?;
        let [n_classes, hidden_2] = self.shape("lp_fc3.weight")?;
        let Some(json) = self.metadata.get(ANNOTATOR_KEY) else {
            let config = AnnotatorConfig::new(self.config()?, n_classes).with_hidden([hidden_1, hidden_2]);
            config.validate()?;
            return Ok(config);
        };
        let config = AnnotatorConfig::load_binary(json.as_bytes()).map_err(|error| Error::NotCellPatch {
            reason: format!("their metadata {ANNOTATOR_KEY}: {error}"),
        })?;
        config.validate()?;
        self.check_agreement(&config.model)?;
        if (config.n_classes, config.hidden) != (n_classes, [hidden_1, hidden_2]) {
            let reason = "the head's sizes in their metadata are not those of the tensors".into();
            return Err(Error::NotCellPatch { reason });
        }
        Ok(config)
    }

    /// The configuration the tensors belong to: the one in the metadata if there is one, else what names and shapes
    /// tell. Shapes do not tell the number of heads, taken as heads of 16 as in the paper; nor dropout, taken as the
    /// paper's; nor the treatment of padding, taken as the authors' code does it ([`Padding::Attended`]).
    ///
    /// Its sizes are those of tensors that are there, so that a model made from it is no larger than the file lets
    /// expect.
    ///
    /// # Errors
    ///
    /// [`Error::NotCellPatch`] if a tensor that every pretraining model has is missing or of another rank, if tensors
    /// contradict each other or the metadata, or if the metadata are not a valid configuration.
    pub fn config(&self) -> Result<CellPatchConfig> {
        if self.metadata.contains_key(ANNOTATOR_KEY) {
            return Ok(self.annotator_config()?.model);
        }
        let Some(json) = self.metadata.get(CONFIG_KEY) else {
            return self.config_of_shapes();
        };
        let config = CellPatchConfig::load_binary(json.as_bytes()).map_err(|error| Error::NotCellPatch {
            reason: format!("their metadata {CONFIG_KEY}: {error}"),
        })?;
        config.validate()?;
        self.check_agreement(&config)?;
        Ok(config)
    }

    /// Checks that a configuration's sizes are those of the tensors.
    fn check_agreement(&self, config: &CellPatchConfig) -> Result<()> {
        let told = self.config_of_shapes()?;
        // An annotation model has no decoder that could tell.
        let decoder_self_blocks = match self.tensors.contains_key("decoder_projection.weight") {
            true => told.decoder_self_blocks,
            false => config.decoder_self_blocks.min(MOST_UNSEEN_BLOCKS),
        };
        let agreed = told
            .with_n_heads(config.n_heads)
            .with_attention_dropout(config.attention_dropout)
            .with_output_dropout(config.output_dropout)
            .with_padding(config.padding)
            .with_decoder_self_blocks(decoder_self_blocks);
        if *config != agreed {
            let reason = "the sizes in their metadata are not those of the tensors".into();
            return Err(Error::NotCellPatch { reason });
        }
        Ok(())
    }

    fn config_of_shapes(&self) -> Result<CellPatchConfig> {
        let [gene_capacity, embedding_dim] = self.shape("gene2vector.weight")?;
        let [_, n_patches, _] = self.shape_of_width("pathway_token", embedding_dim)?;
        let [mlp_dim, _] = self.shape_of_width("cross_extract_blocks_mlp.0.weight", embedding_dim)?;
        let [latent_dim, _] = self.shape_of_width("encoder_projection.weight", embedding_dim)?;
        let expression = match self.tensors.contains_key("count2vector.bias") {
            true => ExpressionEmbedding::Continuous,
            false => {
                let [n_bins, _] = self.shape_of_width("count2vector.weight", embedding_dim)?;
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

    /// The shape of a tensor whose last dimension is the model's width.
    fn shape_of_width<const D: usize>(&self, name: &str, width: usize) -> Result<[usize; D]> {
        let shape = self.shape::<D>(name)?;
        match shape.last() {
            Some(&last) if last == width => Ok(shape),
            _ => Err(Error::NotCellPatch {
                reason: format!("{name} has shape {shape:?}, which does not end in their width {width}"),
            }),
        }
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

fn bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::io("read", path, source))
}

fn without_prefix(name: String) -> String {
    name.strip_prefix(PARALLEL_PREFIX).map(str::to_string).unwrap_or(name)
}
