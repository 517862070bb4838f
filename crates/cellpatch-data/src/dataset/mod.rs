//! Public data sets: what is known of them, and how they get here.
//!
//! A [`DatasetManifest`] says what a data set is and where its files are; those of [`catalogue()`] are part of the program, and a
//! user's own is a TOML file of the same form. With the feature `remote`, [`fetch()`] brings the files: it goes on where an
//! interrupted download stopped, compares checksums, and remembers what came where a manifest states none.
//! [`CellxgeneQuery`] asks the CELLxGENE Discover server for its data sets.

mod catalogue;
#[cfg(feature = "remote")]
mod cellxgene;
#[cfg(feature = "remote")]
mod download;
#[cfg(feature = "remote")]
mod fetch;
mod manifest;
#[cfg(feature = "remote")]
mod record;
#[cfg(feature = "remote")]
#[cfg(test)]
mod tests;

pub use catalogue::{catalogue, find_dataset};
#[cfg(feature = "remote")]
pub use cellxgene::{Asset, CELLXGENE_API, CellxgeneDataset, CellxgeneQuery, Term};
#[cfg(feature = "remote")]
pub use fetch::{FetchOptions, FetchProgress, FetchState, FetchedFile, fetch};
pub use manifest::{DatasetFile, DatasetManifest, Unpack};
