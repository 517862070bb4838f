//! What an input is, without choosing anything.

use std::collections::BTreeMap;
use std::path::Path;

use super::CellFormat;
use super::format::{self, Opened};
use crate::anndata::{AnnDataFile, MatrixLocation};
use crate::error::Result;
use crate::matrix::{MatrixInfo, ValueKind};
use crate::tenx::{KeptFeatures, TenxFile, TenxFolder};

/// One matrix of an input.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixDescription {
    /// What it is called in its file.
    pub name: String,
    /// Its shape, storage and type.
    pub info: MatrixInfo,
    /// What its values look like, judged by a sample.
    pub values: ValueKind,
}

/// What an input is.
#[derive(Debug, Clone, PartialEq)]
pub struct CellDescription {
    /// What kind of file.
    pub format: CellFormat,
    /// How many cells.
    pub n_cells: usize,
    /// Its matrices; one in 10x files.
    pub matrices: Vec<MatrixDescription>,
    /// Names of the annotations of cells.
    pub obs_columns: Vec<String>,
    /// Genomes a 10x file names.
    pub genomes: Vec<String>,
    /// Features of a 10x file that are no genes and are not read, counted by type.
    pub left_out: BTreeMap<String, usize>,
}

/// Describes any input [`open_cells`](super::open_cells) opens, whatever its values are.
///
/// - `genome`: which to describe of a 10x file with several.
///
/// # Errors
/// As [`open_cells`](super::open_cells), but for values, which may be of any kind.
pub fn describe_cells(path: &Path, genome: Option<&str>) -> Result<CellDescription> {
    match format::open(path)? {
        Opened::AnnData(container) => anndata(&AnnDataFile::from_container(container)?),
        Opened::Tenx(container) => {
            let file = TenxFile::open(container, genome)?;
            let matrix = MatrixDescription {
                name: file.matrix().to_string(),
                info: file.info(),
                values: file.value_kind()?,
            };
            Ok(tenx(CellFormat::TenxFile, matrix, &file.features))
        }
        Opened::Market => {
            let folder = TenxFolder::open(path, genome)?;
            let matrix = MatrixDescription {
                name: folder.matrix(),
                info: folder.info(),
                values: folder.value_kind().clone(),
            };
            Ok(tenx(CellFormat::TenxFolder, matrix, folder.features()))
        }
    }
}

fn anndata(file: &AnnDataFile) -> Result<CellDescription> {
    let describe = |location: MatrixLocation| {
        Ok(MatrixDescription {
            name: location.to_string(),
            info: file.matrix_info(&location)?,
            values: file.value_kind(&location)?,
        })
    };
    Ok(CellDescription {
        format: CellFormat::AnnData,
        n_cells: file.n_cells(),
        matrices: file.matrices().into_iter().map(describe).collect::<Result<_>>()?,
        obs_columns: file.obs_columns(),
        genomes: Vec::new(),
        left_out: BTreeMap::new(),
    })
}

fn tenx(format: CellFormat, matrix: MatrixDescription, features: &KeptFeatures) -> CellDescription {
    CellDescription {
        format,
        n_cells: matrix.info.n_cells,
        matrices: vec![matrix],
        obs_columns: Vec::new(),
        genomes: features.genomes.clone(),
        left_out: features.left_out.clone(),
    }
}
