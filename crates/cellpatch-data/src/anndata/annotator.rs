//! A copy of an `.h5ad` with more columns and matrices.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::AnnDataFile;
use super::frame::Frame;
use super::new_values::{NewValues, UnsValue, encoding};
use crate::error::{Error, Result};
use crate::h5::edit::{Editor, NewType, Reserved};
use crate::unfinished_file::{Existing, UnfinishedFile};

/// Values of a matrix converted to bytes at a time.
const PIECE: usize = 1 << 16;

/// Adds columns of `obs`, matrices of `obsm` and `varm` and entries of `uns` to a copy of an `.h5ad`.
///
/// Everything else in the copy is what it was, byte for byte: `X`, layers, graphs, their chunks and filters. The copy is
/// a sibling that takes the output's name in [`finish`](Self::finish); dropped before that, it is removed. Memory is that
/// of the columns given, and does not grow with the file.
///
/// ```
/// # use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
/// use cellpatch_data::{AnnDataFile, Existing, H5adAnnotator, NewValues};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let (input, output) = (folder.path().join("cells.h5ad"), folder.path().join("annotated.h5ad"));
/// # write_h5ad(&SyntheticConfig { n_cells: 50, n_genes: 600, ..Default::default() }, &input)?;
/// let mut annotator = H5adAnnotator::create(&input, &output, Existing::Keep)?;
/// let embedding = annotator.obsm("X_cellpatch", 2)?;
/// for cell in 0..annotator.n_cells() {
///     annotator.write_rows(embedding, cell, &[cell as f32, 1.0])?;
/// }
/// let confidence = NewValues::Float32(vec![0.5; annotator.n_cells()]);
/// annotator.obs_column("confidence", confidence)?;
/// annotator.finish()?;
/// assert!(AnnDataFile::open(&output)?.obs_columns().contains(&"confidence".to_string()));
/// # Ok(())
/// # }
/// ```
pub struct H5adAnnotator {
    n_cells: usize,
    file: AnnDataFile,
    editor: Editor,
    output: UnfinishedFile,
    /// Columns of `obs`, once one of them was written.
    columns: Option<Vec<String>>,
    matrices: Vec<NewMatrix>,
    summary: AnnotationSummary,
}

impl std::fmt::Debug for H5adAnnotator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("H5adAnnotator").field("summary", &self.summary).finish_non_exhaustive()
    }
}

/// What an [`H5adAnnotator`] wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnnotationSummary {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub file_bytes: u64,
    /// Members that were not there before, such as `obs/cell_type_predicted`.
    pub added: Vec<String>,
    /// Members that were there before.
    pub replaced: Vec<String>,
}

/// A matrix whose rows are still to be written; see [`H5adAnnotator::obsm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixSlot(usize);

struct NewMatrix {
    name: String,
    width: usize,
    values: Reserved,
    /// Which rows were written.
    written: Vec<bool>,
}

impl H5adAnnotator {
    /// Copies `input`, to become `output`.
    ///
    /// # Errors
    /// As [`AnnDataFile::open`]; [`Error::FileExists`] if there is a file `output` and it may not be replaced;
    /// [`Error::BadOption`] if `output` is `input`; [`Error::CannotAdd`] if nothing can be added to a file of this kind;
    /// [`Error::Io`] if the copy cannot be written.
    pub fn create(input: &Path, output: &Path, existing: Existing) -> Result<Self> {
        if same_file(input, output) {
            let reason = "it is the input file; ask for the input to be changed in place if that is meant";
            let value = output.display().to_string();
            return Err(Error::BadOption { option: "output", value, reason: reason.into() });
        }
        Self::copy(input, UnfinishedFile::create(output, existing)?, None)
    }

    /// Copies `input`, to take its place. A symbolic link stays one: the file it leads to is replaced.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_in_place(input: &Path) -> Result<Self> {
        let input = fs::canonicalize(input).map_err(|source| Error::io("read", input, source))?;
        let permissions =
            fs::metadata(&input).map_err(|source| Error::io("read", &input, source))?.permissions();
        Self::copy(&input, UnfinishedFile::create(&input, Existing::Replace)?, Some(permissions))
    }

    fn copy(input: &Path, output: UnfinishedFile, permissions: Option<fs::Permissions>) -> Result<Self> {
        let file = AnnDataFile::open(input)?;
        let editor = Editor::open(input, output.handle()?, output.target())?;
        let mut copy = output.handle()?;
        let mut original = File::open(input).map_err(|source| Error::io("read", input, source))?;
        std::io::copy(&mut original, &mut copy)
            .map_err(|source| Error::io("write", output.target(), source))?;
        if let Some(permissions) = permissions {
            copy.set_permissions(permissions)
                .map_err(|source| Error::io("set permissions of", output.target(), source))?;
        }
        let summary =
            AnnotationSummary { path: output.target().to_path_buf(), ..AnnotationSummary::default() };
        let n_cells = file.n_cells();
        Ok(Self { n_cells, file, editor, output, columns: None, matrices: Vec::new(), summary })
    }

    /// How many cells the file has.
    pub fn n_cells(&self) -> usize {
        self.n_cells
    }

    /// The file that is annotated, for reading.
    pub fn input(&self) -> &AnnDataFile {
        &self.file
    }

    /// Adds a column to `obs`, or replaces the one of this name, which keeps its place among the columns.
    ///
    /// - `values`: one per cell
    ///
    /// # Errors
    /// [`Error::WrongLength`]; [`Error::BadOption`] for a name that no column can have, a category that occurs twice or a
    /// code without a category; [`Error::CannotAdd`] if `obs` is a table of AnnData before 0.7, or has too many columns.
    pub fn obs_column(&mut self, name: &str, values: impl Into<NewValues>) -> Result<()> {
        let values = values.into();
        check_name("obs column", name)?;
        if name == self.file.obs.index_name() || name == "__categories" {
            let reason = "the file uses this name for something else".into();
            return Err(Error::BadOption { option: "obs column", value: name.to_string(), reason });
        }
        check_length(&format!("obs column {name:?}"), "values", values.len(), self.n_cells)?;
        self.editor.open_group("obs", &[])?;
        let column = values.write(name, &mut self.editor)?;
        self.note("obs", name);
        self.editor.put("obs", name, column);
        let columns = self.columns.get_or_insert_with(|| self.file.obs.columns().to_vec());
        if !columns.iter().any(|column| column == name) {
            columns.push(name.to_string());
        }
        Ok(())
    }

    /// Makes room in `obsm` for a float32 matrix of shape [cells, `width`], in place of one of the same name.
    ///
    /// Its rows come by [`write_rows`](Self::write_rows), in any order, also in turn with those of other matrices.
    ///
    /// # Errors
    /// [`Error::BadOption`] for a name that no member can have or that was added already, or a width of 0; [`Error::CannotAdd`] if `obsm` is a table
    /// of AnnData before 0.7.
    pub fn obsm(&mut self, name: &str, width: usize) -> Result<MatrixSlot> {
        self.matrix("obsm", name, self.n_cells, width)
    }

    /// Makes room in `varm` for a float32 matrix of shape [genes, `width`]; see [`Self::obsm`].
    ///
    /// # Errors
    /// As [`Self::obsm`]; and if `var` cannot be read.
    pub fn varm(&mut self, name: &str, width: usize) -> Result<MatrixSlot> {
        let n_genes = Frame::open(self.file.container.as_ref(), "var")?.n_rows();
        self.matrix("varm", name, n_genes, width)
    }

    fn matrix(&mut self, group: &str, name: &str, n_rows: usize, width: usize) -> Result<MatrixSlot> {
        check_name("matrix", name)?;
        let full_name = format!("{group}/{name}");
        let refuse = |reason: &str| Error::BadOption {
            option: "matrix",
            value: name.to_string(),
            reason: reason.into(),
        };
        if width == 0 {
            return Err(refuse("it must have at least one column"));
        }
        if self.matrices.iter().any(|matrix| matrix.name == full_name) {
            return Err(refuse("it was added already"));
        }
        let dictionary = encoding(&mut self.editor, "dict", "0.1.0")?;
        self.editor.open_group(group, &dictionary)?;
        let array = encoding(&mut self.editor, "array", "0.2.0")?;
        let shape = [n_rows as u64, width as u64];
        let values = self.editor.reserve_array(NewType::Float32, &shape, &array)?;
        self.note(group, name);
        self.editor.put(group, name, values.address);
        self.matrices.push(NewMatrix { name: full_name, width, values, written: vec![false; n_rows] });
        Ok(MatrixSlot(self.matrices.len() - 1))
    }

    /// Writes consecutive rows of a matrix.
    ///
    /// - `values`: whole rows from `first_row` on, row by row
    ///
    /// # Errors
    /// [`Error::WrongLength`] if these are not whole rows, or reach past the last one; [`Error::Io`].
    pub fn write_rows(&mut self, matrix: MatrixSlot, first_row: usize, values: &[f32]) -> Result<()> {
        let Some(NewMatrix { name, width, values: place, written }) = self.matrices.get_mut(matrix.0) else {
            let reason = "it belongs to another file".into();
            return Err(Error::BadOption { option: "matrix", value: format!("{matrix:?}"), reason });
        };
        let n_rows = values.len() / *width;
        check_length(name, "values", values.len(), n_rows * *width)?;
        let end = first_row.saturating_add(n_rows);
        let n_all = written.len();
        let rows =
            written.get_mut(first_row..end).ok_or_else(|| wrong_length(name.as_str(), "rows", end, n_all))?;
        rows.fill(true);
        let mut offset = (first_row * *width * size_of::<f32>()) as u64;
        for piece in values.chunks(PIECE) {
            let bytes: Vec<u8> = piece.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.editor.write_values(*place, offset, &bytes)?;
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    /// Puts a dictionary under `name` in `uns`, in place of what had this name: settings, model, versions.
    ///
    /// # Errors
    /// [`Error::BadOption`] for a name that no member can have; [`Error::CannotAdd`] if `uns` is not a group.
    pub fn uns(&mut self, name: &str, entries: &[(&str, UnsValue)]) -> Result<()> {
        check_name("uns entry", name)?;
        let dictionary = encoding(&mut self.editor, "dict", "0.1.0")?;
        self.editor.open_group("uns", &dictionary)?;
        let mut members = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            check_name("uns entry", key)?;
            members.push((*key, value.write(&mut self.editor)?));
        }
        let attributes = encoding(&mut self.editor, "dict", "0.1.0")?;
        let group = self.editor.write_group(&members, &attributes)?;
        self.note("uns", name);
        self.editor.put("uns", name, group);
        Ok(())
    }

    /// Completes the copy and gives it its name.
    ///
    /// # Errors
    /// [`Error::WrongLength`] if rows of a matrix were not written; [`Error::Io`]; [`Error::FileExists`] if a file of the
    /// output's name has appeared meanwhile and may not be replaced.
    pub fn finish(mut self) -> Result<AnnotationSummary> {
        for matrix in &self.matrices {
            let n_written = matrix.written.iter().filter(|&&written| written).count();
            check_length(&matrix.name, "rows", n_written, matrix.written.len())?;
        }
        if let Some(columns) = &self.columns {
            let order = self.editor.texts_attribute("column-order", columns)?;
            self.editor.set_attribute("obs", &order)?;
        }
        let Self { file, editor, output, mut summary, .. } = self;
        editor.commit()?;
        drop(file);
        output.commit()?;
        summary.file_bytes =
            fs::metadata(&summary.path).map_err(|source| Error::io("read", &summary.path, source))?.len();
        Ok(summary)
    }

    /// Remembers a member for the summary, before it is put in its group.
    fn note(&mut self, group: &str, name: &str) {
        let list = if self.editor.has_member(group, name) {
            &mut self.summary.replaced
        } else {
            &mut self.summary.added
        };
        let member = format!("{group}/{name}");
        if !list.contains(&member) {
            list.push(member);
        }
    }
}

fn check_name(option: &'static str, name: &str) -> Result<()> {
    let reason = match name {
        "" => "it needs a name",
        "." | ".." => "HDF5 keeps this name for itself",
        _ if name.contains('/') => "names cannot hold a slash",
        _ if name.contains('\0') => "names cannot hold a zero byte",
        _ if name.len() > 1 << 15 => "the name is too long",
        _ => return Ok(()),
    };
    Err(Error::BadOption { option, value: format!("{name:?}"), reason: reason.into() })
}

fn check_length(what: &str, of: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(wrong_length(what, of, found, expected)) }
}

fn wrong_length(what: &str, of: &'static str, found: usize, expected: usize) -> Error {
    Error::WrongLength { what: what.to_string(), of, found, expected }
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}
