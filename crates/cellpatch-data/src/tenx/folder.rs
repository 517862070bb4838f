//! A Matrix Market file with the tables beside it that name its genes and cells.

use std::path::{Path, PathBuf};

use super::features::KeptFeatures;
use super::names;
use crate::error::{Error, Result};
use crate::market::{MarketCells, MarketFile, Orientation};
use crate::matrix::{MatrixInfo, MatrixStorage, ValueKind};

const PACKED: &str = ".gz";
const MATRIX: &str = ".mtx";
const FEATURES: [&str; 4] = ["features.tsv", "features.tsv.gz", "genes.tsv", "genes.tsv.gz"];
const BARCODES: [&str; 2] = ["barcodes.tsv", "barcodes.tsv.gz"];

/// The three files of a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    matrix: PathBuf,
    features: PathBuf,
    barcodes: PathBuf,
}

/// An open matrix folder of Cell Ranger, STARsolo, alevin-fry or GEO, or a single Matrix Market file with its tables.
#[derive(Debug, Clone)]
pub(crate) struct TenxFolder {
    path: PathBuf,
    parts: Parts,
    barcodes: Vec<String>,
    cells: MarketCells,
    kind: ValueKind,
}

/// Whether a folder has a Matrix Market file directly in it.
pub(crate) fn holds_matrix(folder: &Path) -> Result<bool> {
    Ok(!matrices(folder)?.is_empty())
}

impl TenxFolder {
    /// Opens a folder or a Matrix Market file, and looks at its first values.
    ///
    /// # Errors
    /// [`Error::UnknownInput`] if there is no such file, or more than one; [`Error::Missing`] for a table that is not there;
    /// [`Error::SeveralGenomes`]; [`Error::Invalid`] if the tables do not fit the matrix; [`Error::BadLine`].
    pub(crate) fn open(path: &Path, genome: Option<&str>) -> Result<Self> {
        let (matrix, genome) = find_matrix(path, genome)?;
        let parts = Parts::beside(matrix)?;
        let features = names::features(&parts.features)?;
        let barcodes = names::barcodes(&parts.barcodes)?;
        let file = MarketFile::open(&parts.matrix)?;
        let orientation = orientation(&file, features.len(), barcodes.len())?;
        let features = KeptFeatures::select(path, &features, genome)?;
        let cells = MarketCells::new(file, orientation, features);
        let kind = cells.detect()?;
        Ok(Self { path: path.to_path_buf(), parts, barcodes, cells, kind })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The matrix, the features, the barcodes.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        vec![self.parts.matrix.clone(), self.parts.features.clone(), self.parts.barcodes.clone()]
    }

    /// What messages call the matrix.
    pub(crate) fn matrix(&self) -> String {
        self.parts.matrix.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(crate) fn info(&self) -> MatrixInfo {
        let file = self.cells.file();
        MatrixInfo {
            n_cells: self.barcodes.len(),
            n_genes: self.features().genes.len(),
            storage: MatrixStorage::Coordinate,
            dtype: file.field().to_string(),
            n_stored: usize::try_from(file.n_entries()).unwrap_or(usize::MAX),
        }
    }

    pub(crate) fn value_kind(&self) -> &ValueKind {
        &self.kind
    }

    pub(crate) fn features(&self) -> &KeptFeatures {
        self.cells.features()
    }

    pub(crate) fn barcodes(&self) -> &[String] {
        &self.barcodes
    }

    pub(crate) fn cells(&self) -> &MarketCells {
        &self.cells
    }
}

/// Which dimension the cells are, judged by the tables; 10x writes genes x cells.
fn orientation(file: &MarketFile, n_features: usize, n_barcodes: usize) -> Result<Orientation> {
    let shape = (file.n_rows(), file.n_columns());
    if shape == (n_features, n_barcodes) {
        return Ok(Orientation::GenesByCells);
    }
    if shape == (n_barcodes, n_features) {
        return Ok(Orientation::CellsByGenes);
    }
    Err(Error::Invalid {
        path: file.path().to_path_buf(),
        dataset: "the size line".into(),
        reason: format!(
            "it says {} x {}, the tables beside it name {n_features} features and {n_barcodes} barcodes",
            shape.0, shape.1
        ),
    })
}

/// The Matrix Market file behind a path, and the genome still to be chosen among its features.
fn find_matrix<'g>(path: &Path, genome: Option<&'g str>) -> Result<(PathBuf, Option<&'g str>)> {
    if !path.is_dir() {
        return Ok((path.to_path_buf(), genome));
    }
    let unknown = |found: String| Error::UnknownInput { path: path.to_path_buf(), found };
    match matrices(path)?.as_slice() {
        [only] => return Ok((only.clone(), genome)),
        [] => {}
        several => {
            let found = format!("{} Matrix Market files", several.len());
            return Err(unknown(format!("{found}: {}", names_of(several).join(", "))));
        }
    }
    // Cell Ranger 2 makes a folder for every genome.
    let mut folders = Vec::new();
    for folder in entries(path)? {
        if folder.is_dir() && holds_matrix(&folder)? {
            folders.push(folder);
        }
    }
    let name = |folder: &PathBuf| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let chosen = match (folders.as_slice(), genome) {
        ([], _) => return Err(unknown("neither a Matrix Market file nor folders with one".into())),
        ([only], None) => only,
        (several, None) => {
            let genomes = several.iter().map(name).collect();
            return Err(Error::SeveralGenomes { path: path.to_path_buf(), genomes });
        }
        (several, Some(genome)) => match several.iter().find(|folder| name(folder) == genome) {
            Some(folder) => folder,
            None => {
                let (path, name_asked) = (path.to_path_buf(), genome.to_string());
                let available = several.iter().map(name).collect();
                return Err(Error::Missing { path, what: "genome", name: name_asked, available });
            }
        },
    };
    let (matrix, _) = find_matrix(chosen, None)?;
    Ok((matrix, None))
}

impl Parts {
    /// The tables beside a Matrix Market file: `features.tsv` beside `matrix.mtx`, `GSM1_features.tsv.gz` beside
    /// `GSM1_matrix.mtx.gz`.
    fn beside(matrix: PathBuf) -> Result<Self> {
        let folder = matrix.parent().unwrap_or(Path::new("")).to_path_buf();
        let name = matrix.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = name.strip_suffix(PACKED).unwrap_or(&name);
        let stem = stem.strip_suffix(MATRIX).unwrap_or(stem);
        let prefix = stem.strip_suffix("matrix").unwrap_or(stem);
        let prefixes = [
            prefix.to_string(),
            format!("{prefix}_"),
            format!("{prefix}."),
            format!("{prefix}-"),
            String::new(),
        ];
        let find = |what: &'static str, names: &[&str]| {
            for prefix in &prefixes {
                let candidates = names.iter().map(|name| folder.join(format!("{prefix}{name}")));
                if let Some(found) = candidates.into_iter().find(|candidate| candidate.is_file()) {
                    return Ok(found);
                }
            }
            Err(Error::Missing {
                path: folder.clone(),
                what,
                name: format!("{prefix}{}", names.first().copied().unwrap_or_default()),
                available: entries(&folder).map(|found| names_of(&found)).unwrap_or_default(),
            })
        };
        let features = find("table of genes", &FEATURES)?;
        let barcodes = find("table of cells", &BARCODES)?;
        Ok(Self { matrix, features, barcodes })
    }
}

/// The Matrix Market files of a folder; of one that is there packed and unpacked, the unpacked.
fn matrices(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_matrix = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_suffix(PACKED).unwrap_or(&name).ends_with(MATRIX) && path.is_file()
    };
    let mut found: Vec<PathBuf> = entries(folder)?.into_iter().filter(is_matrix).collect();
    let all = found.clone();
    found.retain(|path| !all.iter().any(|plain| plain.with_added_extension("gz") == *path));
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = |error| Error::io("read", folder, error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        found.push(entry.map_err(read)?.path());
    }
    found.sort();
    Ok(found)
}

fn names_of(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect()
}
