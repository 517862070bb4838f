//! Finetuning a pretrained encoder, or training one from scratch, to name cell types.

mod average;
mod baselines;
mod cells;
mod classify;
mod config;
mod data;
mod finetune;
mod markers;
mod objective;

pub use baselines::{BaselinePrediction, baselines};
pub use cells::{LabelledBatch, LabelledCells};
pub use classify::{CellLogits, classify};
pub use config::{AnnotationConfig, ClassWeights};
pub use data::AnnotationData;
pub use finetune::{AnnotationCard, AnnotationOutcome, ConfidenceCard, annotate};
pub use objective::AnnotationTrainer;
