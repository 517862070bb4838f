//! What a spatial training is asked to do.

use serde::{Deserialize, Serialize};

use crate::config::{CellPatchStagateConfig, StagateConfig};
use crate::error::{Error, Result};

/// Which model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpatialModelConfig {
    /// STAGATE.
    Stagate(StagateConfig),
    /// CellPatch+STAGATE.
    CellPatchStagate(CellPatchStagateConfig),
}

impl SpatialModelConfig {
    /// Checks that a model can be made.
    ///
    /// # Errors
    ///
    /// As [`StagateConfig::validate`] and [`CellPatchStagateConfig::validate`].
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Stagate(config) => config.validate(),
            Self::CellPatchStagate(config) => config.validate(),
        }
    }

    /// Genes of the slice.
    pub fn n_genes(&self) -> usize {
        match self {
            Self::Stagate(config) => config.n_features,
            Self::CellPatchStagate(config) => config.n_genes,
        }
    }

    /// Numbers of a spot's embedding.
    pub fn latent_dim(&self) -> usize {
        match self {
            Self::Stagate(config) => config.latent_dim,
            Self::CellPatchStagate(config) => config.latent_dim,
        }
    }
}

/// Everything that decides what a spatial training computes; two trainings with equal configurations on equal data give
/// equal weights on the CPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpatialTrainingConfig {
    /// The model.
    pub model: SpatialModelConfig,
    /// Passes over the spots; a pass is one step where the slice is one batch.
    pub epochs: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Coupled L2, added to the gradient as PyTorch's `Adam(weight_decay)` does.
    pub weight_decay: f32,
    /// Largest allowed norm over all gradients together.
    pub clip_norm: Option<f32>,
    /// Whether CellPatch's embeddings and first block stay as they are.
    pub freeze_patches: bool,
    /// Most spots of a slice that is one batch. Larger ones are cut into [`Tiles`](crate::Tiles).
    pub whole_slice_spots: usize,
    /// Spots of a tile.
    pub spots_per_tile: usize,
    /// Tiles of a batch.
    pub tiles_per_batch: usize,
    /// Decides initial weights, dropout and the order of tiles.
    pub seed: u64,
}

impl SpatialTrainingConfig {
    /// The settings each method is published with: STAGATE's Adam at 1e-3 and clipping at 5, CellPatch+STAGATE's Adam at
    /// 1e-4 and clipping at 0.1; both with L2 1e-4, 1,000 epochs.
    pub fn new(model: SpatialModelConfig) -> Self {
        let (learning_rate, clip_norm) = match model {
            SpatialModelConfig::Stagate(_) => (1e-3, 5.0),
            SpatialModelConfig::CellPatchStagate(_) => (1e-4, 0.1),
        };
        Self {
            model,
            epochs: 1_000,
            learning_rate,
            weight_decay: 1e-4,
            clip_norm: Some(clip_norm),
            freeze_patches: false,
            whole_slice_spots: 20_000,
            spots_per_tile: 512,
            tiles_per_batch: 8,
            seed: 42,
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    ///
    /// [`Error::BadConfig`] names the first that makes no sense.
    pub fn validate(&self) -> Result<()> {
        self.model.validate()?;
        let bad = |field, value: String, reason: &str| {
            Err(Error::BadConfig { field, value, reason: reason.to_string() })
        };
        for (field, value) in [
            ("epochs", self.epochs),
            ("whole-slice-spots", self.whole_slice_spots),
            ("spots-per-tile", self.spots_per_tile),
            ("tiles-per-batch", self.tiles_per_batch),
        ] {
            if value == 0 {
                return bad(field, "0".to_string(), "must be 1 or more");
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return bad("learning-rate", self.learning_rate.to_string(), "must be above 0");
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return bad("weight-decay", self.weight_decay.to_string(), "must not be negative");
        }
        if let Some(norm) = self.clip_norm
            && !(norm > 0.0 && norm.is_finite())
        {
            return bad("clip-norm", norm.to_string(), "must be above 0; leave it out for no clipping");
        }
        Ok(())
    }
}
