//! What an encoder says about many cells.

use std::sync::Arc;

use burn::tensor::Tensor;
use cellpatch_data::{ExpressionBatch, Loader};
use cellpatch_model::{Encoder, GeneValues, ModelBackend};
use serde::{Deserialize, Serialize};

use crate::Result;

/// Cells computed at a time, so that no long tensor is made.
const CELLS: usize = 64;

/// Which numbers of a cell are its embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellEmbedding {
    /// All patches, one after the other: n_patches x d numbers. What downstream tasks are trained on (paper, Methods).
    Patches,
    /// The mean of the patches: d numbers.
    Mean,
    /// The latent bottleneck of all patches, one after the other: n_patches x latent_dim numbers.
    #[default]
    Latent,
}

impl CellEmbedding {
    /// Numbers of a cell, for a model of these sizes.
    pub fn width(self, config: &cellpatch_model::CellPatchConfig) -> usize {
        match self {
            Self::Patches => config.n_patches * config.embedding_dim,
            Self::Mean => config.embedding_dim,
            Self::Latent => config.n_patches * config.latent_dim,
        }
    }

    /// - patches: [cells, n_patches, d]
    /// - output: [cells, width]
    fn of<B: ModelBackend>(self, encoder: &Encoder<B>, patches: Tensor<B, 3>) -> Tensor<B, 2> {
        match self {
            Self::Patches => patches.flatten(1, 2),
            Self::Mean => patches.mean_dim(1).squeeze_dim(1),
            Self::Latent => encoder.latent(patches).flatten(1, 2),
        }
    }
}

/// The embeddings of some cells, in their order: [cells, width], row-major.
///
/// Cells are computed in groups of similar length, and each as if it were alone.
///
/// # Errors
/// Those of the model's input checks.
pub fn embed<B: ModelBackend>(
    encoder: &Encoder<B>,
    cells: &ExpressionBatch,
    embedding: CellEmbedding,
    device: &B::Device,
) -> Result<Vec<f32>> {
    in_groups(cells, CELLS, |group| {
        let found = embedding.of(encoder, encoder.patches(&padded(group, device)?));
        Ok(found.into_data().iter::<f32>().collect())
    })
}

/// Computes groups of cells of similar length and puts what comes out, equally many numbers a cell, in the cells' order.
pub(crate) fn in_groups(
    cells: &ExpressionBatch,
    size: usize,
    mut compute: impl FnMut(&ExpressionBatch) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let n_cells = cells.n_cells();
    let mut order: Vec<usize> = (0..n_cells).collect();
    order.sort_by_key(|&cell| cells.offsets[cell + 1] - cells.offsets[cell]);
    let mut ordered = Vec::new();
    for group in order.chunks(size) {
        let found = compute(&cells.select(group))?;
        let width = found.len() / group.len();
        ordered.resize(n_cells * width, 0.0);
        for (&cell, found) in group.iter().zip(found.chunks_exact(width.max(1))) {
            ordered[cell * width..(cell + 1) * width].copy_from_slice(found);
        }
    }
    Ok(ordered)
}

/// Cells padded for a model.
pub(crate) fn padded<B: ModelBackend>(cells: &ExpressionBatch, device: &B::Device) -> Result<GeneValues<B>> {
    let (genes, values): (Vec<_>, Vec<_>) = (0..cells.n_cells()).map(|cell| cells.cell(cell)).unzip();
    Ok(GeneValues::pad(&genes, &values, device)?)
}

/// What the model says about a set of cells.
#[derive(Debug, Clone, PartialEq)]
pub struct CellFeatures {
    /// Global rows of the shard set, one a cell.
    pub rows: Vec<u64>,
    /// Features a cell has.
    pub n_features: usize,
    /// `[cells, n_features]`, row-major.
    pub values: Vec<f32>,
}

/// Patch features of up to `max_cells` of a loader's cells, flattened: `[cells, n_patches x d]`.
///
/// - `cells`: the loader; its cells are read unmasked, in row order.
///
/// # Errors
/// Those of the loader and the model's input checks.
pub fn patch_features<B: ModelBackend>(
    encoder: &Encoder<B>,
    cells: &Arc<Loader>,
    max_cells: usize,
    device: &B::Device,
) -> Result<CellFeatures> {
    let mut features = CellFeatures { rows: Vec::new(), n_features: 0, values: Vec::new() };
    for batch in cells.expressions(0, 0) {
        let batch = batch?;
        let wanted: Vec<usize> = (0..batch.n_cells().min(max_cells - features.rows.len())).collect();
        let batch = batch.select(&wanted);
        features.values.extend(embed(encoder, &batch, CellEmbedding::Patches, device)?);
        features.rows.extend_from_slice(&batch.rows);
        if features.rows.len() >= max_cells {
            break;
        }
    }
    features.n_features = features.values.len() / features.rows.len().max(1);
    Ok(features)
}
