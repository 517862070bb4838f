//! Weights in files, under the names and in the layouts of the authors' released PyTorch checkpoints, so that they
//! move between PyTorch and here in both directions.
//!
//! A [`Checkpoint`] is a file's tensors by released name, whatever kind of file it was. It knows the configuration
//! it belongs to, as far as names and shapes tell, and is loaded into a model with every tensor checked by name and
//! shape; [`Checkpoint::fit`] lists beforehand what would be used, what is missing and what is left over.
//! [`save_safetensors`] and [`save_pth`] write the same names back, bit for bit.
//!
//! Files are not trusted. Those of PyTorch are programs that unpickling would run: here their pickle is read as data,
//! and one that asks for a function or class that no state dict has is an [`Error::Unreadable`](crate::Error) with
//! [`Fault::ForbiddenGlobal`]. Damage of any kind is such an error too, and what a file says about itself is checked
//! before memory is taken for it.

mod checkpoint;
mod contents;
mod fault;
mod fit;
mod names;
mod parameters;
mod pickle;
mod pytorch;
mod replace;
mod safetensors;
mod tensors;
mod zip;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

pub use checkpoint::{Checkpoint, LoadReport};
pub use contents::{LeftOut, LeftOutKind};
pub use fault::{Fault, TensorFault};
pub use fit::{Fit, NamedShape, ShapeMismatch};
pub use parameters::named_tensors;

use crate::annotation::AnnotatorConfig;
use crate::backend::ModelBackend;
use crate::config::CellPatchConfig;
use crate::error::Result;
use crate::model::CellPatch;

/// How tensors are arranged in a PyTorch file; all of them open with `torch.load(path, weights_only=True)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PthLayout {
    /// The state dict alone, for `model.load_state_dict(torch.load(path))`. It has no place for metadata: read here
    /// again, it is taken for a model with the paper's heads and dropout that attends padding.
    StateDict,
    /// A dict with the state dict as `model_state_dict`, and the metadata, if any, as `metadata`.
    ModelStateDict,
    /// As [`PthLayout::ModelStateDict`], with `module.` in front of every name: the arrangement of the authors'
    /// released files, which their code expects.
    Released,
}

/// Writes the weights of a model, or of any module made of this crate's parts, as safetensors, atomically: the file is
/// written beside its place and renamed.
///
/// The same weights and metadata give the same bytes. Metadata are free text by name; start with
/// [`config_metadata`], so that the file says what model it belongs to.
///
/// # Errors
///
/// [`Error::Io`](crate::Error::Io) with the path.
pub fn save_safetensors<B: Backend, M: Module<B>>(
    model: &M,
    path: impl AsRef<Path>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    Checkpoint::of(model, metadata.clone()).write_safetensors(path)
}

/// Writes a model's weights as a PyTorch file, atomically: [`Checkpoint::of`], then [`Checkpoint::write_pth`].
///
/// # Errors
///
/// [`Error::Io`](crate::Error::Io) with the path.
pub fn save_pth<B: ModelBackend>(
    model: &CellPatch<B>,
    path: impl AsRef<Path>,
    layout: PthLayout,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    Checkpoint::of(model, metadata.clone()).write_pth(path, layout)
}

/// Loads a safetensors file into a model: [`Checkpoint::read_safetensors`], then [`Checkpoint::load_into`].
///
/// # Errors
///
/// What these two return.
pub fn load_safetensors<B: ModelBackend>(
    model: CellPatch<B>,
    path: impl AsRef<Path>,
) -> Result<(CellPatch<B>, LoadReport)> {
    Checkpoint::read_safetensors(path)?.load_into(model)
}

/// Loads a PyTorch file into a model: [`Checkpoint::read_pth`], then [`Checkpoint::load_into`].
///
/// # Errors
///
/// What these two return.
pub fn load_pth<B: ModelBackend>(
    model: CellPatch<B>,
    path: impl AsRef<Path>,
) -> Result<(CellPatch<B>, LoadReport)> {
    Checkpoint::read_pth(path)?.load_into(model)
}

/// Metadata that let [`Checkpoint::annotator_config`] find an annotating model's configuration again.
pub fn annotator_metadata(config: &AnnotatorConfig) -> BTreeMap<String, String> {
    BTreeMap::from([(ANNOTATOR_KEY.to_string(), config.to_string())])
}

/// Metadata that let [`Checkpoint::config`] find a model's configuration again.
pub fn config_metadata(config: &CellPatchConfig) -> BTreeMap<String, String> {
    BTreeMap::from([(CONFIG_KEY.to_string(), config.to_string())])
}

/// Where a safetensors file's metadata hold the model's configuration, as JSON.
pub const CONFIG_KEY: &str = "cellpatch.config";

/// Where a safetensors file's metadata hold an annotating model's configuration, as JSON.
pub const ANNOTATOR_KEY: &str = "cellpatch.annotator";

#[cfg(test)]
mod tests;
