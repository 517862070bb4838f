//! Spatial transcriptomics: neighbour graphs, STAGATE and CellPatch+STAGATE, on Burn.

pub mod backend;
mod cellpatch_stagate;
mod config;
pub mod error;
mod expression;
pub mod graph;
mod input;
mod layer;
pub mod operation;
pub mod plain;
mod stagate;
mod step;

pub use backend::SpatialBackend;
pub use cellpatch_stagate::{CellPatchInput, CellPatchStagate};
pub use config::{CellPatchStagateConfig, GenesRead, StagateConfig, Tying};
pub use error::{Error, Result};
pub use expression::Expression;
pub use input::SpatialInput;
pub use stagate::{Stagate, StagateOutput};
pub use step::{SharedStorage, step};
