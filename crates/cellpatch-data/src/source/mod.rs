//! Inputs: everything cells can be read from, behind one trait.

mod anndata;
mod describe;
mod format;
mod tenx;

use std::path::{Path, PathBuf};

pub use describe::{CellDescription, MatrixDescription, describe_cells};
pub use format::{CellFormat, cell_inputs};

use crate::anndata::{AnnDataFile, Labels, MatrixChoice};
use crate::counts::CountBlock;
use crate::error::{Error, Result};
use crate::matrix::{MatrixInfo, ValueKind, ValuePolicy};
use crate::tenx::{TenxFile, TenxFolder};
use crate::vocabulary::{Gene, GeneVocabulary, MousePolicy, Species, humanize, orthologs};
use format::Opened;

/// Names of cells, in their order; ends after the first error.
pub type CellNames = Box<dyn Iterator<Item = Result<String>> + Send>;

/// Blocks of consecutive cells; ends after the first error.
pub type CellBlocks = Box<dyn BlockReader>;

/// What reads blocks of cells.
pub trait BlockReader: Iterator<Item = Result<CountBlock>> + Send {
    /// Takes back a block that is done with, so that a later one need not ask for its memory again.
    fn reuse(&mut self, _block: CountBlock) {}
}

/// A matrix of cells with the names of its genes and cells, in whatever file it is. It can be read more than once.
pub trait CellSource: Send {
    /// The file or folder as it was given.
    fn path(&self) -> &Path;
    /// What kind of input it is.
    fn format(&self) -> CellFormat;
    /// The files it consists of; the one with the values first.
    fn files(&self) -> Vec<PathBuf>;
    /// What the matrix is called in its file: `X`, `layers/counts`, `matrix`, `matrix.mtx.gz`.
    fn matrix(&self) -> String;
    /// Shape, storage and type of the matrix; genes are those that are read.
    ///
    /// # Errors
    /// If its parts contradict each other.
    fn matrix_info(&self) -> Result<MatrixInfo>;
    /// What the values are, judged by a sample: [`ValueKind::Counts`] or [`ValueKind::Log1p`].
    fn value_kind(&self) -> &ValueKind;
    /// How many cells there are.
    fn n_cells(&self) -> usize;
    /// The genes of the matrix's columns.
    ///
    /// # Errors
    /// If their names are missing or damaged.
    fn genes(&self) -> Result<Vec<Gene>>;
    /// The cells' names.
    ///
    /// # Errors
    /// If they are missing or damaged.
    fn cell_ids(&self) -> Result<Vec<String>>;
    /// The cells' names one after the other, where possible without holding them all.
    ///
    /// # Errors
    /// As [`CellSource::cell_ids`]; damage further on comes as an item of the iterator.
    fn cell_names(&self) -> Result<CellNames> {
        Ok(Box::new(self.cell_ids()?.into_iter().map(Ok)))
    }
    /// Names of the annotations cells have; none in 10x files.
    fn obs_columns(&self) -> Vec<String>;
    /// One annotation, one value per cell.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no such column.
    fn labels(&self, column: &str) -> Result<Labels>;
    /// All cells in order, in blocks of about `max_bytes`, each value checked to be what the matrix was taken for.
    ///
    /// # Errors
    /// If the file is damaged; damage further on comes as an item of the iterator.
    fn blocks(&self, max_bytes: usize) -> Result<CellBlocks>;

    /// Whether values are logarithms of normalised counts instead of counts.
    fn is_log1p(&self) -> bool {
        matches!(self.value_kind(), ValueKind::Log1p { .. })
    }
}

/// Opens whatever holds cells: an `.h5ad`, a 10x `.h5` of Cell Ranger 2 or later, a folder with `matrix.mtx[.gz]`, its
/// features or genes and its barcodes, or such a `.mtx[.gz]` itself.
///
/// - `choice`: the layer (of an `.h5ad`), the genome (of 10x files with several), and which values will do.
///
/// Names and shapes are read, and a sample of the values; cells come by [`CellSource::blocks`].
///
/// # Errors
/// [`Error::NotFound`]; [`Error::UnknownInput`] and [`Error::NotHdf5`] for something else; [`Error::SeveralGenomes`];
/// [`Error::Missing`] for a layer, genome or table that is not there; [`Error::NotCounts`] if the values do not fit the
/// choice; [`Error::Invalid`] and [`Error::Hdf5`] for damage.
pub fn open_cells(path: &Path, choice: &MatrixChoice) -> Result<Box<dyn CellSource>> {
    match format::open(path)? {
        Opened::AnnData(container) => {
            let file = AnnDataFile::from_container(container)?;
            Ok(Box::new(anndata::AnnDataSource::open(file, choice)?))
        }
        Opened::Tenx(container) => {
            let file = TenxFile::open(container, choice.genome.as_deref())?;
            Ok(Box::new(tenx::TenxFileSource::open(file, choice)?))
        }
        Opened::Market => {
            let folder = TenxFolder::open(path, choice.genome.as_deref())?;
            Ok(Box::new(tenx::TenxFolderSource::open(folder, choice)?))
        }
    }
}

/// The genes of a source by names of a vocabulary's species: those of a mouse under human names if that was asked for.
///
/// # Errors
/// [`Error::OtherSpecies`] if the vocabulary is of another.
pub(crate) fn genes_under(
    source: &dyn CellSource,
    vocabulary: Option<&GeneVocabulary>,
    mouse: MousePolicy,
) -> Result<Vec<Gene>> {
    let genes = source.genes()?;
    let expected = vocabulary.and_then(GeneVocabulary::species);
    let (Some(found), Some(expected)) = (Species::of(&genes), expected) else { return Ok(genes) };
    if found.may_be(&expected) {
        return Ok(genes);
    }
    let is_mouse = matches!(found, Species::Mouse | Species::Rodent) && expected == Species::Human;
    match mouse {
        MousePolicy::Uppercase if is_mouse => return Ok(humanize(&genes)),
        MousePolicy::Orthologs if is_mouse => return Ok(orthologs(&genes)),
        _ => {}
    }
    Err(Error::OtherSpecies { path: source.path().to_path_buf(), found, expected })
}

/// What some genes are called in the file, where [`genes_under`] may have given them other names.
///
/// - `genes`: those of [`genes_under`]
/// - `columns`: which of them
pub(crate) fn names_in_file(
    source: &dyn CellSource,
    genes: &[Gene],
    mouse: MousePolicy,
    columns: &[usize],
) -> Result<Vec<String>> {
    let own = if mouse == MousePolicy::Refuse { None } else { Some(source.genes()?) };
    let genes = own.as_deref().unwrap_or(genes);
    Ok(columns.iter().map(|&column| genes[column].name().to_owned()).collect())
}

/// Refuses values the policy does not allow.
fn accept(path: &Path, matrix: &str, kind: &ValueKind, policy: ValuePolicy) -> Result<()> {
    match (kind, policy) {
        (ValueKind::Counts, _) | (ValueKind::Log1p { .. }, ValuePolicy::Normalized) => Ok(()),
        _ => {
            let found = format!("{matrix} looks like {kind}");
            Err(Error::NotCounts { path: path.to_path_buf(), dataset: matrix.to_string(), found })
        }
    }
}
