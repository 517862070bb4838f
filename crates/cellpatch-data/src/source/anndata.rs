//! One matrix of an AnnData file as a source.

use std::path::{Path, PathBuf};

use super::{CellBlocks, CellFormat, CellNames, CellSource};
use crate::anndata::{AnnDataFile, ChosenMatrix, Labels, MatrixChoice};
use crate::error::{Error, Result};
use crate::matrix::{MatrixInfo, ValueKind};
use crate::vocabulary::Gene;

#[derive(Debug)]
pub(super) struct AnnDataSource {
    file: AnnDataFile,
    chosen: ChosenMatrix,
}

impl AnnDataSource {
    pub(super) fn open(file: AnnDataFile, choice: &MatrixChoice) -> Result<Self> {
        let chosen = file.choose_matrix(choice)?;
        if !matches!(chosen.kind, ValueKind::Counts | ValueKind::Log1p { .. }) {
            let dataset = chosen.location.to_string();
            let (path, found) = (file.path().to_path_buf(), chosen.kind.to_string());
            return Err(Error::NotCounts { path, dataset, found });
        }
        Ok(Self { file, chosen })
    }
}

impl CellSource for AnnDataSource {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> CellFormat {
        CellFormat::AnnData
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.file.path().to_path_buf()]
    }

    fn matrix(&self) -> String {
        self.chosen.location.to_string()
    }

    fn matrix_info(&self) -> Result<MatrixInfo> {
        self.file.matrix_info(&self.chosen.location)
    }

    fn value_kind(&self) -> &ValueKind {
        &self.chosen.kind
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

    fn cell_names(&self) -> Result<CellNames> {
        self.file.cell_names()
    }

    fn obs_columns(&self) -> Vec<String> {
        self.file.obs_columns()
    }

    fn labels(&self, column: &str) -> Result<Labels> {
        Ok(self.file.obs_column(column)?.labels())
    }

    fn blocks(&self, max_bytes: usize) -> Result<CellBlocks> {
        Ok(Box::new(self.file.chosen_blocks(&self.chosen, max_bytes)?))
    }
}
