//! Where the cells of a shard set come from.

use std::path::Path;

use crate::{
    AnnDataFile, ChosenMatrix, CountBlock, Gene, Labels, MatrixChoice, ValueKind,
    error::{Error, Result},
};

/// Blocks of consecutive cells.
pub(super) type Blocks = Box<dyn Iterator<Item = Result<CountBlock>>>;

/// A file of cells that can be read more than once.
pub(super) trait CellSource {
    /// What the matrix is called in the file.
    fn matrix(&self) -> String;
    /// Whether its values are logarithms of normalised counts instead of counts.
    fn is_log1p(&self) -> bool;
    fn n_cells(&self) -> usize;
    /// The genes of the matrix's columns.
    fn genes(&self) -> Result<Vec<Gene>>;
    fn cell_ids(&self) -> Result<Vec<String>>;
    fn obs_columns(&self) -> Vec<String>;
    fn labels(&self, column: &str) -> Result<Labels>;
    /// All cells in order, in blocks of about `max_bytes`, each value checked to be what the matrix claims.
    fn blocks(&self, max_bytes: usize) -> Result<Blocks>;
}

/// One matrix of an AnnData file.
#[derive(Debug)]
struct AnnDataSource {
    file: AnnDataFile,
    chosen: ChosenMatrix,
}

/// Opens an input file.
pub(super) fn open(path: &Path, choice: &MatrixChoice) -> Result<Box<dyn CellSource>> {
    let file = AnnDataFile::open(path)?;
    let chosen = file.choose_matrix(choice)?;
    if !matches!(chosen.kind, ValueKind::Counts | ValueKind::Log1p { .. }) {
        let dataset = chosen.location.to_string();
        return Err(Error::NotCounts { path: path.to_path_buf(), dataset, found: chosen.kind.to_string() });
    }
    Ok(Box::new(AnnDataSource { file, chosen }))
}

impl CellSource for AnnDataSource {
    fn matrix(&self) -> String {
        self.chosen.location.to_string()
    }

    fn is_log1p(&self) -> bool {
        matches!(self.chosen.kind, ValueKind::Log1p { .. })
    }

    fn n_cells(&self) -> usize {
        self.file.n_cells()
    }

    fn genes(&self) -> Result<Vec<Gene>> {
        self.file.genes(&self.chosen.location)
    }

    fn cell_ids(&self) -> Result<Vec<String>> {
        self.file.cell_ids()
    }

    fn obs_columns(&self) -> Vec<String> {
        self.file.obs_columns()
    }

    fn labels(&self, column: &str) -> Result<Labels> {
        Ok(self.file.obs_column(column)?.labels())
    }

    fn blocks(&self, max_bytes: usize) -> Result<Blocks> {
        Ok(Box::new(self.file.chosen_blocks(&self.chosen, max_bytes)?))
    }
}
