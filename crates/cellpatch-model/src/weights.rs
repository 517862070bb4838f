//! Weights in files, under the names and in the layouts of the authors' released PyTorch checkpoints, so that they
//! move between PyTorch and here in both directions.
//!
//! A [`Checkpoint`] is a file's tensors by released name, whatever kind of file it was. It knows the configuration
//! it belongs to, as far as names and shapes tell, and is loaded into a model with every tensor checked by name and
//! shape. [`save_safetensors`] writes the same names back.

mod checkpoint;
mod names;
mod parameters;
mod pickle;
mod pytorch;
mod safetensors;
mod zip;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::backend::Backend;

pub use checkpoint::{Checkpoint, LoadReport};
pub use parameters::named_tensors;

use crate::backend::ModelBackend;
use crate::config::CellPatchConfig;
use crate::error::Result;
use crate::model::CellPatch;

/// Writes the weights of a model, or of any module made of this crate's parts, as safetensors, atomically: the file is written beside its place and renamed.
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
    safetensors::write(path.as_ref(), &named_tensors(model), metadata)
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

/// Metadata that let [`Checkpoint::config`] find a model's configuration again.
pub fn config_metadata(config: &CellPatchConfig) -> BTreeMap<String, String> {
    BTreeMap::from([(CONFIG_KEY.to_string(), config.to_string())])
}

/// Where a safetensors file's metadata hold the model's configuration, as JSON.
pub const CONFIG_KEY: &str = "cellpatch.config";

#[cfg(test)]
mod tests;
