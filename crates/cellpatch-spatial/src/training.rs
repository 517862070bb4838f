//! Training through the machinery of `cellpatch-train`: the same loop, run directory, checkpoints and exact resume as a
//! pretraining.
//!
//! There is no validation: all spots are there to be explained, so a training takes its epochs and the last weights are the
//! model. A slice that fits is one batch, whose input is made once.

mod batches;
mod config;
mod model;
mod run;
mod trainer;

pub use batches::{PatchGenes, SliceBatch, SliceBatches, SliceData};
pub use config::{SpatialModelConfig, SpatialTrainingConfig};
pub use model::SpatialModel;
pub use run::{SpatialCard, SpatialOutcome, train};
pub use trainer::SpatialTrainer;
