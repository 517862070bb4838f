//! Matrices of 10x Genomics: `.h5` files, and folders of a Matrix Market file with its genes and barcodes.

mod features;
mod folder;
mod hdf5;
mod names;

pub(crate) use features::KeptFeatures;
pub(crate) use folder::{TenxFolder, holds_matrix};
pub(crate) use hdf5::{TenxFile, groups};
