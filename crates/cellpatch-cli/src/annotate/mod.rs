//! `cellpatch annotate`: cell types.

mod options;
mod predict;
mod report;
mod scores;
mod split;
mod train;

pub(crate) use options::{PredictOptions, ReadOptions, TrainOptions, usage};
pub(crate) use predict::run as predict;
pub(crate) use train::run as train;
