//! Patch features of many cells.

use std::sync::Arc;

use burn::tensor::Tensor;
use cellpatch_data::{ExpressionBatch, Loader};
use cellpatch_model::{CellPatch, GeneValues, ModelBackend};

use crate::Result;

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
    model: &CellPatch<B>,
    cells: &Arc<Loader>,
    max_cells: usize,
    device: &B::Device,
) -> Result<CellFeatures> {
    let mut features = CellFeatures { rows: Vec::new(), n_features: 0, values: Vec::new() };
    for batch in cells.expressions(0, 0) {
        let batch = batch?;
        for part in parts(&batch, max_cells.saturating_sub(features.rows.len())) {
            let (genes, values): (Vec<_>, Vec<_>) = (0..part.n_cells()).map(|cell| part.cell(cell)).unzip();
            let patches = model.patches(&GeneValues::pad(&genes, &values, device)?);
            let [n_cells, n_patches, d] = patches.dims();
            let flat: Tensor<B, 2> = patches.reshape([n_cells, n_patches * d]);
            features.n_features = n_patches * d;
            features.values.extend(flat.into_data().iter::<f32>());
            features.rows.extend_from_slice(&part.rows);
        }
        if features.rows.len() >= max_cells {
            break;
        }
    }
    Ok(features)
}

/// Small pieces of at most `most` cells, so that no long tensor is made for a picture.
fn parts(batch: &ExpressionBatch, most: usize) -> Vec<ExpressionBatch> {
    const CELLS: usize = 64;
    let cells: Vec<usize> = (0..batch.n_cells().min(most)).collect();
    cells.chunks(CELLS).map(|part| batch.select(part)).collect()
}
