//! Either model behind one name.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ParamId};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use cellpatch_model::Checkpoint;
use cellpatch_model::weights::save_safetensors;

use super::batches::{SliceBatch, SliceBatches};
use super::config::SpatialModelConfig;
use crate::backend::SpatialBackend;
use crate::cellpatch_stagate::CellPatchStagate;
use crate::error::{Error, Result};
use crate::stagate::Stagate;
use crate::step::SharedStorage;

/// A STAGATE or CellPatch+STAGATE model.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one model at a time")]
pub enum SpatialModel<B: Backend> {
    /// STAGATE.
    Stagate(Stagate<B>),
    /// CellPatch+STAGATE.
    CellPatchStagate(CellPatchStagate<B>),
}

impl SpatialModelConfig {
    /// Makes a model with fresh weights, drawn from the device's random stream.
    ///
    /// The configuration is taken as valid: see [`SpatialModelConfig::validate`].
    pub fn init<B: SpatialBackend>(&self, device: &B::Device) -> SpatialModel<B> {
        match self {
            Self::Stagate(config) => SpatialModel::Stagate(config.init(device)),
            Self::CellPatchStagate(config) => SpatialModel::CellPatchStagate(config.init(device)),
        }
    }
}

impl<B: SpatialBackend> SpatialModel<B> {
    /// The same with embeddings and first block of a pretrained CellPatch. STAGATE has no place for them and stays as it is.
    ///
    /// # Errors
    ///
    /// As [`CellPatchStagate::with_pretrained`].
    pub fn with_pretrained(self, checkpoint: &Checkpoint) -> Result<Self> {
        Ok(match self {
            Self::Stagate(_) => self,
            Self::CellPatchStagate(model) => Self::CellPatchStagate(model.with_pretrained(checkpoint)?.0),
        })
    }

    /// The same, with CellPatch's embeddings and first block as they are from now on.
    pub fn freeze_patches(self) -> Self {
        match self {
            Self::Stagate(_) => self,
            Self::CellPatchStagate(model) => Self::CellPatchStagate(model.freeze_patches()),
        }
    }

    /// Mean squared error of the reconstruction of the spots that count: `[1]`.
    ///
    /// # Errors
    ///
    /// [`Error::NoPatchGenes`] for CellPatch+STAGATE without.
    pub fn loss(&self, batch: &SliceBatch, device: &B::Device) -> Result<Tensor<B, 1>> {
        Ok(match self {
            Self::Stagate(model) => model.loss(&batch.stagate_input(device)),
            Self::CellPatchStagate(model) => {
                model.loss(&batch.cellpatch_input(device).ok_or(Error::NoPatchGenes)?)
            }
        })
    }

    /// The embedding that domains are made of.
    ///
    /// - output: [spots, latent_dim]
    ///
    /// # Errors
    ///
    /// As [`SpatialModel::loss`].
    pub fn latent(&self, batch: &SliceBatch, device: &B::Device) -> Result<Tensor<B, 2>> {
        Ok(match self {
            Self::Stagate(model) => model.latent(&batch.stagate_input(device)),
            Self::CellPatchStagate(model) => {
                model.latent(&batch.cellpatch_input(device).ok_or(Error::NoPatchGenes)?)
            }
        })
    }

    /// Expression as the model reconstructs it from spots and their neighbours.
    ///
    /// - output: [spots, genes]
    ///
    /// # Errors
    ///
    /// As [`SpatialModel::loss`].
    pub fn reconstruction(&self, batch: &SliceBatch, device: &B::Device) -> Result<Tensor<B, 2>> {
        Ok(match self {
            Self::Stagate(model) => model.forward(&batch.stagate_input(device)).reconstruction,
            Self::CellPatchStagate(model) => {
                model.forward(&batch.cellpatch_input(device).ok_or(Error::NoPatchGenes)?).reconstruction
            }
        })
    }

    /// Embeddings of all spots of a slice, in its order: [spots, latent_dim], row-major.
    ///
    /// # Errors
    ///
    /// As [`SpatialModel::loss`].
    pub fn embed(&self, batches: &SliceBatches, device: &B::Device) -> Result<Vec<f32>> {
        in_order(batches, |batch| self.latent(batch, device))
    }

    /// Reconstructed expression of all spots of a slice, in its order: [spots, genes], row-major.
    ///
    /// # Errors
    ///
    /// As [`SpatialModel::loss`].
    pub fn denoise(&self, batches: &SliceBatches, device: &B::Device) -> Result<Vec<f32>> {
        in_order(batches, |batch| self.reconstruction(batch, device))
    }

    /// Writes the weights under their released names.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the file cannot be written.
    pub fn save(&self, path: &Path, metadata: &BTreeMap<String, String>) -> Result<()> {
        match self {
            Self::Stagate(model) => save_safetensors(model, path, metadata)?,
            Self::CellPatchStagate(model) => save_safetensors(model, path, metadata)?,
        }
        Ok(())
    }

    /// The same with weights that [`SpatialModel::save`] wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if a tensor is missing or of another shape.
    pub fn with_weights(self, checkpoint: &Checkpoint) -> Result<Self> {
        Ok(match self {
            Self::Stagate(model) => Self::Stagate(checkpoint.load_into(model)?.0),
            Self::CellPatchStagate(model) => Self::CellPatchStagate(checkpoint.load_into(model)?.0),
        })
    }
}

/// Rows that a computation gives for batches, put in the order of the slice.
fn in_order<B: Backend>(
    batches: &SliceBatches,
    compute: impl Fn(&SliceBatch) -> Result<Tensor<B, 2>>,
) -> Result<Vec<f32>> {
    let mut ordered = Vec::new();
    for batch in batches.with_spots(0, 0) {
        let (batch, spots) = batch?;
        let rows = compute(&batch)?;
        let [_, width] = rows.dims();
        ordered.resize(cellpatch_train::BatchSource::n_cells(batches) * width, 0.0);
        let rows: Vec<f32> = rows.into_data().iter::<f32>().collect();
        for (&spot, row) in spots.iter().zip(rows.chunks_exact(width.max(1))) {
            ordered[spot as usize * width..][..width].copy_from_slice(row);
        }
    }
    Ok(ordered)
}

impl<B: SpatialBackend> SharedStorage for SpatialModel<B> {
    fn decoder_parameters(&self) -> Vec<ParamId> {
        match self {
            Self::Stagate(model) => model.decoder_parameters(),
            Self::CellPatchStagate(model) => model.decoder_parameters(),
        }
    }

    fn with_decoder_of_encoder(self) -> Self {
        match self {
            Self::Stagate(model) => Self::Stagate(SharedStorage::with_decoder_of_encoder(model)),
            Self::CellPatchStagate(model) => Self::CellPatchStagate(model.with_decoder_of_encoder()),
        }
    }

    fn with_encoder_of_decoder(self) -> Self {
        match self {
            Self::Stagate(model) => Self::Stagate(SharedStorage::with_encoder_of_decoder(model)),
            Self::CellPatchStagate(model) => Self::CellPatchStagate(model.with_encoder_of_decoder()),
        }
    }
}
