//! 10x matrices as sources.

use std::path::{Path, PathBuf};

use super::{BlockReader, CellBlocks, CellFormat, CellSource, accept};
use crate::anndata::{Labels, MatrixChoice};
use crate::counts::CountBlock;
use crate::error::{Error, Result};
use crate::matrix::{CountBlocks, MatrixInfo, ValueKind};
use crate::tenx::{KeptFeatures, TenxFile, TenxFolder};
use crate::vocabulary::Gene;

/// An `.h5` file of Cell Ranger.
#[derive(Debug)]
pub(super) struct TenxFileSource {
    file: TenxFile,
    kind: ValueKind,
}

/// A Matrix Market file and its tables.
#[derive(Debug)]
pub(super) struct TenxFolderSource {
    folder: TenxFolder,
}

impl TenxFileSource {
    pub(super) fn open(file: TenxFile, choice: &MatrixChoice) -> Result<Self> {
        refuse_layer(file.path(), choice)?;
        let kind = file.value_kind()?;
        accept(file.path(), file.matrix(), &kind, choice.values)?;
        Ok(Self { file, kind })
    }
}

impl TenxFolderSource {
    pub(super) fn open(folder: TenxFolder, choice: &MatrixChoice) -> Result<Self> {
        refuse_layer(folder.path(), choice)?;
        accept(folder.path(), &folder.matrix(), folder.value_kind(), choice.values)?;
        Ok(Self { folder })
    }
}

/// 10x files have one matrix and no layers.
fn refuse_layer(path: &Path, choice: &MatrixChoice) -> Result<()> {
    match &choice.layer {
        None => Ok(()),
        Some(layer) => {
            let (path, name) = (path.to_path_buf(), layer.clone());
            Err(Error::Missing { path, what: "layer", name, available: Vec::new() })
        }
    }
}

fn no_labels(path: &Path, column: &str) -> Result<Labels> {
    let (path, name) = (path.to_path_buf(), column.to_string());
    Err(Error::Missing { path, what: "obs column", name, available: Vec::new() })
}

impl CellSource for TenxFileSource {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> CellFormat {
        CellFormat::TenxFile
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.file.path().to_path_buf()]
    }

    fn matrix(&self) -> String {
        self.file.matrix().to_string()
    }

    fn matrix_info(&self) -> Result<MatrixInfo> {
        Ok(self.file.info())
    }

    fn value_kind(&self) -> &ValueKind {
        &self.kind
    }

    fn n_cells(&self) -> usize {
        self.file.info().n_cells
    }

    fn genes(&self) -> Result<Vec<Gene>> {
        Ok(self.file.features.genes.clone())
    }

    fn cell_ids(&self) -> Result<Vec<String>> {
        self.file.barcodes()
    }

    fn obs_columns(&self) -> Vec<String> {
        Vec::new()
    }

    fn labels(&self, column: &str) -> Result<Labels> {
        no_labels(self.path(), column)
    }

    fn blocks(&self, max_bytes: usize) -> Result<CellBlocks> {
        let features = self.file.features.clone();
        Ok(Box::new(FeatureBlocks { blocks: self.file.blocks(max_bytes, &self.kind)?, features }))
    }
}

/// Blocks of those features that are genes.
struct FeatureBlocks {
    blocks: CountBlocks,
    features: KeptFeatures,
}

impl Iterator for FeatureBlocks {
    type Item = Result<CountBlock>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = self.blocks.next()?;
        Some(block.map(|mut block| {
            self.features.apply(&mut block);
            block
        }))
    }
}

impl BlockReader for FeatureBlocks {
    fn reuse(&mut self, block: CountBlock) {
        self.blocks.reuse(block);
    }
}

impl CellSource for TenxFolderSource {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn format(&self) -> CellFormat {
        CellFormat::TenxFolder
    }

    fn files(&self) -> Vec<PathBuf> {
        self.folder.files()
    }

    fn matrix(&self) -> String {
        self.folder.matrix()
    }

    fn matrix_info(&self) -> Result<MatrixInfo> {
        Ok(self.folder.info())
    }

    fn value_kind(&self) -> &ValueKind {
        self.folder.value_kind()
    }

    fn n_cells(&self) -> usize {
        self.folder.barcodes().len()
    }

    fn genes(&self) -> Result<Vec<Gene>> {
        Ok(self.folder.features().genes.clone())
    }

    fn cell_ids(&self) -> Result<Vec<String>> {
        Ok(self.folder.barcodes().to_vec())
    }

    fn obs_columns(&self) -> Vec<String> {
        Vec::new()
    }

    fn labels(&self, column: &str) -> Result<Labels> {
        no_labels(self.path(), column)
    }

    fn blocks(&self, max_bytes: usize) -> Result<CellBlocks> {
        Ok(Box::new(self.folder.cells().blocks(max_bytes, self.folder.value_kind())?))
    }
}
