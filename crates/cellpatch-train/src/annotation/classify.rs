//! Logits of many cells.

use cellpatch_data::{ExpressionBatch, Loader};
use cellpatch_model::{Annotator, ModelBackend};

use crate::Result;
use crate::features::{in_groups, padded};

/// What a model makes of cells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CellLogits {
    /// Rows of the cells.
    pub rows: Vec<u64>,
    /// [cells, classes], row-major.
    pub values: Vec<f32>,
}

/// Cells computed at a time.
const CELLS: usize = 256;

impl CellLogits {
    /// The logits of every cell of a loader, in its order.
    ///
    /// # Errors
    /// Those of the loader and the model's input checks.
    pub fn of_loader<B: ModelBackend>(
        model: &Annotator<B>,
        cells: &Loader,
        device: &B::Device,
    ) -> Result<Self> {
        let mut logits = Self::default();
        for batch in cells.expressions(0, 0) {
            let batch = batch?;
            logits.rows.extend_from_slice(&batch.rows);
            logits.values.extend(classify(model, &batch, device)?);
        }
        Ok(logits)
    }

    /// The class with the largest logit of each cell; of equal ones the first.
    pub fn classes(&self) -> Vec<usize> {
        let n_classes = self.values.len() / self.rows.len().max(1);
        let largest = |cell: &[f32]| {
            (0..cell.len()).fold(0, |best, class| if cell[class] > cell[best] { class } else { best })
        };
        self.values.chunks_exact(n_classes.max(1)).map(largest).collect()
    }
}

/// The logits of some cells, in their order: [cells, classes], row-major.
///
/// Cells are computed in groups of similar length, and each as if it were alone.
///
/// # Errors
/// Those of the model's input checks.
pub fn classify<B: ModelBackend>(
    model: &Annotator<B>,
    cells: &ExpressionBatch,
    device: &B::Device,
) -> Result<Vec<f32>> {
    in_groups(cells, CELLS, |group| {
        let logits = model.forward(&padded(group, device)?);
        Ok(logits.into_data().iter::<f32>().collect())
    })
}
