//! AnnData files (`.h5ad`): matrices in row blocks, gene names, cell annotations.

mod annotator;
mod choice;
mod column;
mod frame;
mod genes;
mod labels;
mod location;
mod new_values;
mod obs_matrix;

use std::path::Path;
use std::sync::Arc;

pub use annotator::{AnnotationSummary, H5adAnnotator, MatrixSlot};
pub use choice::{ChosenMatrix, MatrixChoice};
pub use column::{Column, ColumnValues};
pub use labels::{Labels, MissingNames};
pub use location::MatrixLocation;
pub use new_values::{NewValues, UnsValue};
pub use obs_matrix::ObsMatrix;

use crate::error::{Error, Result};
use crate::h5::{self, Container, ObjectKind};
use crate::matrix::{self, CountBlocks, Matrix, MatrixInfo, ValueKind};
use crate::source::CellNames;
use crate::vocabulary::Gene;
use frame::Frame;

/// An open `.h5ad` file of any AnnData from 0.5 on.
///
/// Opening reads names and shapes only; matrices are read block by block and never held whole.
#[derive(Clone)]
pub struct AnnDataFile {
    container: Arc<dyn Container>,
    obs: Arc<Frame>,
}

impl std::fmt::Debug for AnnDataFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AnnDataFile").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl AnnDataFile {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotHdf5`], [`Error::Hdf5`] for a damaged file, and [`Error::Missing`] if it has no
    /// `obs`, as any AnnData file has.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_container(h5::open(path)?)
    }

    /// Reads the names of a file that is open.
    pub(crate) fn from_container(container: Arc<dyn Container>) -> Result<Self> {
        let obs = Frame::open(container.as_ref(), "obs")?;
        Ok(Self { container, obs: Arc::new(obs) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.container.path()
    }

    /// How many cells the file has.
    pub fn n_cells(&self) -> usize {
        self.obs.n_rows()
    }

    /// Every expression matrix of the file: `X`, `raw/X`, then the layers by name.
    pub fn matrices(&self) -> Vec<MatrixLocation> {
        let layers = match self.container.kind("layers") {
            Ok(Some(ObjectKind::Group)) => self.container.members("layers").unwrap_or_default(),
            _ => Vec::new(),
        };
        let mut layers: Vec<_> = layers.into_iter().map(MatrixLocation::Layer).collect();
        layers.sort();
        [MatrixLocation::X, MatrixLocation::RawX]
            .into_iter()
            .chain(layers)
            // A damaged one is there too: opening it says what is wrong.
            .filter(|location| !matches!(location::find(self.container.as_ref(), location), Ok(None)))
            .collect()
    }

    /// Shape, storage and type of one matrix.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is none; [`Error::Invalid`] if its parts contradict each other.
    pub fn matrix_info(&self, location: &MatrixLocation) -> Result<MatrixInfo> {
        Ok(self.matrix(location)?.info())
    }

    /// The matrix to read and what its values are: the named layer, else `raw/X` if it holds counts, else `X`.
    ///
    /// With [`ValuePolicy::Normalized`](crate::ValuePolicy::Normalized) and no layer named, counts are still preferred (they can be normalised exactly);
    /// without any, log1p values of `X`, else of `raw/X`, are taken.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no such layer or no matrix; [`Error::NotCounts`] with what was found instead if the
    /// values do not fit the policy.
    pub fn choose_matrix(&self, choice: &MatrixChoice) -> Result<ChosenMatrix> {
        choice::choose(self, choice)
    }

    /// What the values of a matrix look like, judged by a sample spread over it.
    ///
    /// # Errors
    /// If the matrix is missing or damaged.
    pub fn value_kind(&self, location: &MatrixLocation) -> Result<ValueKind> {
        matrix::detect(self.matrix(location)?)
    }

    /// The genes of a matrix, one per column: Ensembl id, symbol, or both.
    ///
    /// # Errors
    /// If `var` (for `raw/X`: `raw/var`) is missing, damaged, or not as long as the matrix is wide.
    pub fn genes(&self, location: &MatrixLocation) -> Result<Vec<Gene>> {
        let frame =
            Frame::open(self.container.as_ref(), &location::var_name(self.container.as_ref(), location)?)?;
        let n_genes = self.matrix(location)?.info().n_genes;
        let genes = genes::genes(self.container.as_ref(), &frame)?;
        if genes.len() != n_genes {
            return Err(Error::Invalid {
                path: self.path().to_path_buf(),
                dataset: frame.name().to_string(),
                reason: format!("it names {} genes, {location} has {n_genes} columns", genes.len()),
            });
        }
        Ok(genes)
    }

    /// The cells' names, from the index of `obs`.
    ///
    /// # Errors
    /// If the index is damaged.
    pub fn cell_ids(&self) -> Result<Vec<String>> {
        self.obs.index(self.container.as_ref())
    }

    /// The cells' names one after the other, texts read a few thousand at a time.
    pub(crate) fn cell_names(&self) -> Result<CellNames> {
        self.obs.index_names(self.container.as_ref())
    }

    /// Names of the columns of `obs`, in the file's order.
    pub fn obs_columns(&self) -> Vec<String> {
        self.obs.columns().to_vec()
    }

    /// One column of `obs`, one value per cell.
    ///
    /// # Errors
    /// [`Error::Missing`] naming the columns there are; [`Error::Invalid`] for codes outside their categories.
    pub fn obs_column(&self, name: &str) -> Result<Column> {
        self.obs.column(self.container.as_ref(), name)
    }

    /// Names of the matrices of `obsm`, in the file's order.
    pub fn obsm_names(&self) -> Vec<String> {
        match self.container.kind("obsm") {
            Ok(Some(ObjectKind::Group)) => self.container.members("obsm").unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// One matrix of `obsm`, one row per cell; a data frame there is taken as its columns.
    ///
    /// # Errors
    /// [`Error::Missing`] naming the matrices there are; [`Error::Invalid`] for one that is not two-dimensional, holds no
    /// numbers, or has not a row for each cell.
    pub fn obsm(&self, name: &str) -> Result<ObsMatrix> {
        obs_matrix::read(self.container.as_ref(), name, &self.obsm_names(), self.n_cells())
    }

    /// The cells of a matrix in blocks of consecutive rows.
    ///
    /// - `max_block_bytes`: how large the columns and values of one block may grow; a block has at least one cell.
    ///
    /// Every value is checked to be finite. Use [`Self::chosen_blocks`] to have values also checked to be what they were
    /// taken for.
    ///
    /// # Errors
    /// If the matrix is missing or its parts contradict each other; damage further on comes as an item of the iterator.
    pub fn blocks(&self, location: &MatrixLocation, max_block_bytes: usize) -> Result<CountBlocks> {
        CountBlocks::new(self.matrix(location)?, max_block_bytes, None)
    }

    /// Like [`Self::blocks`], with every value checked against the kind the matrix was chosen for: counts are whole and
    /// not negative, normalised values are not negative.
    ///
    /// # Errors
    /// As [`Self::blocks`]; an item of the iterator is [`Error::BadValue`] for a negative, NaN or infinite value, and
    /// [`Error::NotCounts`] for a fraction among counts.
    pub fn chosen_blocks(&self, chosen: &ChosenMatrix, max_block_bytes: usize) -> Result<CountBlocks> {
        CountBlocks::new(self.matrix(&chosen.location)?, max_block_bytes, Some(chosen.kind.clone()))
    }

    /// Opens a matrix and checks it against `obs`.
    fn matrix(&self, location: &MatrixLocation) -> Result<Matrix> {
        let matrix = location::open(self.container.as_ref(), location, &self.matrices_for_help(location))?;
        let n_rows = matrix.info().n_cells;
        if n_rows != self.n_cells() {
            return Err(Error::Invalid {
                path: self.path().to_path_buf(),
                dataset: location.to_string(),
                reason: format!("it has {n_rows} rows, obs has {} cells", self.n_cells()),
            });
        }
        Ok(matrix)
    }

    /// What to offer when `location` is missing: other layers for a layer, every matrix otherwise.
    fn matrices_for_help(&self, location: &MatrixLocation) -> Vec<String> {
        self.matrices()
            .into_iter()
            .filter_map(|found| match (location, found) {
                (MatrixLocation::Layer(_), MatrixLocation::Layer(name)) => Some(name),
                (MatrixLocation::Layer(_), _) => None,
                (_, found) => Some(found.to_string()),
            })
            .collect()
    }
}
