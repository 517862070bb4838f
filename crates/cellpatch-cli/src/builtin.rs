//! The cells that `pretrain` runs on when it is given none, and the settings that suit them.

use cellpatch_data::dataset::find_dataset;
use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::failure::{Category, Failure};
use crate::options::PretrainOptions;
use crate::terminal::Terminal;

/// The file's name, and so the source's in the shards.
pub(crate) const FILE: &str = "synthetic.h5ad";

/// The data set they are described by.
const DATASET: &str = "synthetic";

/// A table of the manifest, as what it describes.
fn table<T: DeserializeOwned>(table: Option<toml::Table>) -> Result<T, Failure> {
    toml::Value::Table(table.unwrap_or_default())
        .try_into()
        .map_err(|error| Failure::new(Category::Usage, format!("data set {DATASET}: {error}")))
}

/// The settings of a run on the built-in cells.
pub(crate) fn options() -> Result<PretrainOptions, Failure> {
    table(find_dataset(DATASET)?.pretrain)
}

/// Writes the cells into a temporary folder, as an `.h5ad` like any other.
pub(crate) fn write_cells(terminal: &Terminal, options: &PretrainOptions) -> Result<TempDir, Failure> {
    let mut cells: SyntheticConfig = table(find_dataset(DATASET)?.synthetic_cells)?;
    if let Some(seed) = options.data.seed {
        cells.seed = seed;
    }
    let folder = tempfile::tempdir().map_err(|error| {
        Failure::new(Category::Environment, format!("could not make a temporary folder: {error}"))
            .with_help("set TMPDIR to a folder you can write to")
    })?;
    let summary = write_h5ad(&cells, folder.path().join(FILE))?;
    terminal.note(&format!(
        "made {} synthetic cells of {} types, {} genes, half of the cells with at least {} genes",
        summary.n_cells,
        summary.cells_per_type.len(),
        summary.n_genes,
        summary.median_genes_per_cell,
    ));
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_holds_valid_settings() {
        let manifest = find_dataset(DATASET).unwrap();
        table::<SyntheticConfig>(manifest.synthetic_cells).unwrap().validate().unwrap();
        options().unwrap().pretraining().unwrap();
        let keys = crate::arguments::pretrain_keys();
        for key in manifest.pretrain.unwrap().keys() {
            assert!(keys.contains(key), "{key} is not a flag");
        }
    }
}
