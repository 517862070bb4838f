//! What a model is made of: sizes, the expression embedding, the treatment of padding, and the presets.

use std::fmt;
use std::str::FromStr;

use burn::config::Config;
use serde::{Deserialize, Serialize};

use crate::backend::ModelBackend;
use crate::error::{Error, Result};
use crate::lengths::GeneLengths;
use crate::model::CellPatch;

/// How an expression value becomes a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpressionEmbedding {
    /// `Linear(1, d)` on the log1p-normalised value: what the released weights use.
    Continuous,
    /// `Embedding(max_value + 1, d)` of `round(min(value, max_value))`, halves to even: what the paper's
    /// methods section says.
    Binned {
        /// The highest bin; the paper's is 5.
        max_value: usize,
    },
}

/// What attention does with the empty slots of cells shorter than the longest of their batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Nothing attends them: a cell's output does not depend on the cells it is batched with.
    Masked,
    /// They are attended like a gene (token 0 with value 0), as the released code does: outputs depend on the
    /// batch.
    Attended,
}

impl Padding {
    /// The lengths attention must respect, if padding is not attended.
    pub fn masked(self, lengths: &GeneLengths) -> Option<&GeneLengths> {
        (self == Self::Masked).then_some(lengths)
    }
}

/// Sizes and choices of a [`CellPatch`] model.
///
/// The defaults are the paper's (Zhu, Yuan, Yang et al., bioRxiv 2024), with the continuous expression embedding
/// that the authors' released weights were trained with.
#[derive(Config, Debug, PartialEq)]
pub struct CellPatchConfig {
    /// Rows of the gene embedding table, the padding token's row 0 included.
    #[config(default = 70_000)]
    pub gene_capacity: usize,
    /// Width `d` of gene, patch and hidden vectors.
    #[config(default = 32)]
    pub embedding_dim: usize,
    /// Learned patch tokens a cell is read into.
    #[config(default = 64)]
    pub n_patches: usize,
    /// Attention heads; they share `embedding_dim` evenly.
    #[config(default = 2)]
    pub n_heads: usize,
    /// Hidden width of the blocks' MLPs.
    #[config(default = 64)]
    pub mlp_dim: usize,
    /// Self-attention blocks over the patches after the cross-attention block.
    #[config(default = 2)]
    pub encoder_self_blocks: usize,
    /// Width of the latent bottleneck between encoder and decoder.
    #[config(default = 10)]
    pub latent_dim: usize,
    /// Self-attention blocks over the target genes after the decoder's cross-attention block.
    #[config(default = 1)]
    pub decoder_self_blocks: usize,
    /// Probability with which an attention weight is dropped in training.
    #[config(default = 0.1)]
    pub attention_dropout: f64,
    /// Probability with which an element of the decoder's last hidden vectors is dropped in training.
    #[config(default = 0.1)]
    pub output_dropout: f64,
    /// How expression values are embedded.
    #[config(default = "ExpressionEmbedding::Continuous")]
    pub expression: ExpressionEmbedding,
    /// What happens to padding.
    #[config(default = "Padding::Masked")]
    pub padding: Padding,
}

impl Default for CellPatchConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl CellPatchConfig {
    /// Checks that a model can be made of this configuration.
    ///
    /// # Errors
    ///
    /// [`Error::BadConfig`] with the first field that cannot be.
    pub fn validate(&self) -> Result<()> {
        let at_least = |field, value: usize, least: usize| {
            if value >= least {
                return Ok(());
            }
            Err(Error::BadConfig {
                field,
                value: value.to_string(),
                reason: format!("must be {least} or more"),
            })
        };
        let probability = |field, value: f64| {
            if (0.0..1.0).contains(&value) {
                return Ok(());
            }
            Err(Error::BadConfig {
                field,
                value: value.to_string(),
                reason: "must be 0 or more and below 1".into(),
            })
        };
        at_least("gene_capacity", self.gene_capacity, 2)?;
        at_least("embedding_dim", self.embedding_dim, 1)?;
        at_least("n_patches", self.n_patches, 1)?;
        at_least("n_heads", self.n_heads, 1)?;
        at_least("mlp_dim", self.mlp_dim, 1)?;
        at_least("latent_dim", self.latent_dim, 1)?;
        if let ExpressionEmbedding::Binned { max_value } = self.expression {
            at_least("expression.binned.max_value", max_value, 1)?;
        }
        if !self.embedding_dim.is_multiple_of(self.n_heads) {
            return Err(Error::BadConfig {
                field: "n_heads",
                value: self.n_heads.to_string(),
                reason: format!("must divide embedding_dim, which is {}", self.embedding_dim),
            });
        }
        probability("attention_dropout", self.attention_dropout)?;
        probability("output_dropout", self.output_dropout)
    }

    /// Makes a model with fresh weights, drawn from the device's random stream (`B::seed`) in a fixed order:
    /// Xavier-uniform linear weights and packed attention projections, zero attention biases, PyTorch's default
    /// for the other biases, and standard normal patch tokens and embeddings.
    ///
    /// The configuration is taken as valid: see [`CellPatchConfig::validate`].
    pub fn init<B: ModelBackend>(&self, device: &B::Device) -> CellPatch<B> {
        CellPatch::new(self, device)
    }
}

/// A named configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// The paper's sizes, continuous expression, padding masked: what to train with.
    Paper,
    /// The architecture of the authors' released checkpoints, padding attended as their code does.
    Released,
    /// A small model with the same parts, for tests and first steps.
    Tiny,
}

impl Preset {
    /// Every preset, in the order shown to users.
    pub const ALL: [Self; 3] = [Self::Paper, Self::Released, Self::Tiny];

    /// The preset's configuration.
    pub fn config(self) -> CellPatchConfig {
        match self {
            Self::Paper => CellPatchConfig::new(),
            Self::Released => CellPatchConfig::new().with_padding(Padding::Attended),
            Self::Tiny => CellPatchConfig::new().with_gene_capacity(512).with_n_patches(8),
        }
    }

    /// The name users give.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Released => "released",
            Self::Tiny => "tiny",
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|preset| preset.name() == name)
            .ok_or_else(|| Error::UnknownPreset { name: name.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid_and_found_by_its_name() {
        for preset in Preset::ALL {
            preset.config().validate().unwrap();
            assert_eq!(preset.to_string().parse::<Preset>().unwrap(), preset);
        }
        assert!("papr".parse::<Preset>().is_err());
    }

    #[test]
    fn what_no_model_can_have_is_refused() {
        let good = Preset::Tiny.config();
        let bad = [
            good.clone().with_n_heads(3),
            good.clone().with_n_heads(0),
            good.clone().with_gene_capacity(1),
            good.clone().with_attention_dropout(1.0),
            good.clone().with_output_dropout(f64::NAN),
            good.clone().with_expression(ExpressionEmbedding::Binned { max_value: 0 }),
        ];
        for config in bad {
            assert!(matches!(config.validate(), Err(Error::BadConfig { .. })), "{config:?}");
        }
    }
}
