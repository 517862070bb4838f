//! What the models are made of.

use burn::config::Config;
use cellpatch_model::CellPatchConfig;
use serde::{Deserialize, Serialize};

use crate::backend::SpatialBackend;
use crate::cellpatch_stagate::CellPatchStagate;
use crate::error::{Error, Result};
use crate::operation::Zeros;
use crate::stagate::Stagate;

/// How the decoder's matrices belong to the encoder's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tying {
    /// One parameter, whose gradients add up: the paper's method.
    Tied,
    /// Two parameters in one storage, as in the authors' PyTorch code: each takes a step of its own. Needs
    /// [`step`](crate::step), and costs two more products a step.
    Released,
}

/// Which genes of a spot the patches read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenesRead {
    /// Those it expresses, as everywhere else in CellPatch.
    NonZero,
    /// All of the slice's genes, zeros included, as in the authors' spatial code.
    All,
}

impl From<GenesRead> for Zeros {
    fn from(genes: GenesRead) -> Self {
        match genes {
            GenesRead::NonZero => Self::LeftOut,
            GenesRead::All => Self::Read,
        }
    }
}

/// Sizes and choices of a [`Stagate`] model.
#[derive(Config, Debug, PartialEq)]
pub struct StagateConfig {
    /// Features of a spot: its genes.
    pub n_features: usize,
    /// Width of the layers between features and latent.
    #[config(default = 512)]
    pub hidden_dim: usize,
    /// Width of the embedding that domains are made of.
    #[config(default = 30)]
    pub latent_dim: usize,
    /// How decoder and encoder belong together.
    #[config(default = "Tying::Tied")]
    pub tying: Tying,
    /// Share of the pruned graph's attention in cell-type-aware STAGATE; 0 is without. The paper's is 0.5. A slice without a
    /// pruned graph is taken as one whose pruning left every edge.
    #[config(default = 0.0)]
    pub pruned_share: f64,
}

impl StagateConfig {
    /// Checks that a model can be made of this configuration.
    ///
    /// # Errors
    ///
    /// [`Error::BadConfig`] with the first field that cannot be.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("n_features", self.n_features),
            ("hidden_dim", self.hidden_dim),
            ("latent_dim", self.latent_dim),
        ] {
            if value == 0 {
                let reason = "must be 1 or more".to_string();
                return Err(Error::BadConfig { field, value: value.to_string(), reason });
            }
        }
        if !(0.0..=1.0).contains(&self.pruned_share) {
            let (value, reason) = (self.pruned_share.to_string(), "must be between 0 and 1".to_string());
            return Err(Error::BadConfig { field: "pruned_share", value, reason });
        }
        Ok(())
    }

    /// Makes a model with fresh weights, drawn from the device's random stream as the authors' code draws them.
    ///
    /// The configuration is taken as valid: see [`StagateConfig::validate`].
    pub fn init<B: SpatialBackend>(&self, device: &B::Device) -> Stagate<B> {
        Stagate::new(self, device)
    }
}

/// Sizes and choices of a [`CellPatchStagate`] model.
#[derive(Config, Debug, PartialEq)]
pub struct CellPatchStagateConfig {
    /// The patches' model: a preset, or that of a checkpoint. Only its embeddings and its first block are used; padding is
    /// always masked.
    pub cell_patch: CellPatchConfig,
    /// Genes of the slice.
    pub n_genes: usize,
    /// Width of the layers between features and latent.
    #[config(default = 512)]
    pub hidden_dim: usize,
    /// Width of the embedding that domains are made of.
    #[config(default = 30)]
    pub latent_dim: usize,
    /// How decoder and encoder belong together.
    #[config(default = "Tying::Tied")]
    pub tying: Tying,
    /// Share of the pruned graph's attention; 0 is without.
    #[config(default = 0.0)]
    pub pruned_share: f64,
    /// Which genes the patches read.
    #[config(default = "GenesRead::NonZero")]
    pub genes_read: GenesRead,
}

impl CellPatchStagateConfig {
    /// Width of a spot's patches, side by side.
    pub fn patch_width(&self) -> usize {
        self.cell_patch.n_patches * self.cell_patch.embedding_dim
    }

    /// The autoencoder over patches and expression.
    pub fn autoencoder(&self) -> StagateConfig {
        StagateConfig::new(self.patch_width() + self.n_genes)
            .with_hidden_dim(self.hidden_dim)
            .with_latent_dim(self.latent_dim)
            .with_tying(self.tying)
            .with_pruned_share(self.pruned_share)
    }

    /// Checks that a model can be made of this configuration.
    ///
    /// # Errors
    ///
    /// [`Error::BadConfig`] or [`Error::Model`] with the first field that cannot be.
    pub fn validate(&self) -> Result<()> {
        self.cell_patch.validate()?;
        if self.n_genes == 0 {
            let (value, reason) = ("0".to_string(), "must be 1 or more".to_string());
            return Err(Error::BadConfig { field: "n_genes", value, reason });
        }
        self.autoencoder().validate()
    }

    /// Makes a model with fresh weights; see [`CellPatchStagate::with_pretrained`].
    ///
    /// The configuration is taken as valid: see [`CellPatchStagateConfig::validate`].
    pub fn init<B: SpatialBackend>(&self, device: &B::Device) -> CellPatchStagate<B> {
        CellPatchStagate::new(self, device)
    }
}
