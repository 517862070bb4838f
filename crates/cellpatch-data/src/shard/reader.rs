//! Opening a shard set and reading its files.

use std::{
    collections::HashMap,
    fs::File,
    io::{Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::UInt32Type,
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder},
    },
    basic::Type as PhysicalType,
    file::serialized_reader::SerializedPageReader,
};

use super::{
    SOURCES_FILE, VOCABULARY_FILE, column,
    decode::list,
    file_source::{DescribedFile, FetchAhead, FileSource},
    folder::{hash, hash_file},
    manifest::{CellFile, Manifest, SideFile},
};
use crate::{
    GeneVocabulary,
    error::{Error, Result},
    record_batches::{guarded, open_parquet, record_batches},
};

/// An opened shard set: its manifest, and where every row group is. Cells are read on demand.
#[derive(Debug)]
pub struct ShardSet {
    /// The folder, or its address on a server.
    path: PathBuf,
    /// Where the files come from if they are not in the folder.
    source: Option<Arc<dyn FileSource>>,
    manifest: Manifest,
    row_groups: Vec<RowGroup>,
    measured: Vec<Vec<u32>>,
    /// Positions of the manifest's sources, by their names.
    sources: HashMap<String, u32>,
    footers: Vec<OnceLock<ArrowReaderMetadata>>,
    /// Files and their row groups whose bytes have been compared with the manifest since the set was opened.
    checked: Vec<Vec<AtomicBool>>,
}

/// One row group and the global rows it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowGroup {
    pub(crate) file: usize,
    pub(crate) index: usize,
    pub(crate) first_row: u64,
    pub(crate) n_cells: u32,
}

impl RowGroup {
    pub(crate) fn rows(&self) -> std::ops::Range<u64> {
        self.first_row..self.first_row + u64::from(self.n_cells)
    }
}

impl ShardSet {
    /// Opens a shard set: reads its manifest and checks that every file is there with the right size.
    ///
    /// # Errors
    /// [`Error::NotAShardSet`] if something is missing, cut short or of a newer version. Contents are checked by
    /// [`ShardSet::verify`], and as far as they are read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let manifest = Manifest::read(&path)?;
        Self::of(path, manifest)
    }

    /// Opens a shard set on a server: `s3://bucket/path`, `gs://bucket/path`, `az://container/path`, `https://host/path` or
    /// `http://host/path`; a `file://` address is a folder of this machine.
    ///
    /// Its files are brought into a folder of this machine as they are read, a loader's before they are needed, and stay there
    /// as long as there is room. Every file is compared with its checksum before it is read. Credentials come from the
    /// environment, under the names that the stores' own tools use (`AWS_ACCESS_KEY_ID` and so on).
    ///
    /// # Errors
    /// [`Error::Transfer`] for whatever the network does; otherwise as [`ShardSet::open`].
    #[cfg(feature = "remote")]
    pub fn open_url(url: &str, cache: crate::CacheOptions) -> Result<Self> {
        if let Some(path) = crate::remote::local_path(url)? {
            return Self::open(path);
        }
        Self::open_remote(crate::remote::RemoteFiles::open(url, cache)?)
    }

    #[cfg(feature = "remote")]
    pub(crate) fn open_remote(files: crate::remote::RemoteFiles) -> Result<Self> {
        let path = PathBuf::from(files.url());
        let Some(text) = files.read_small(super::MANIFEST_FILE)? else {
            let reason = format!("it has no {}", super::MANIFEST_FILE);
            return Err(Error::NotAShardSet { path, reason });
        };
        let manifest = Manifest::parse(&text, &path)?;
        Self::with(path, manifest, Some(Arc::new(files)))
    }

    /// The set that `manifest` describes, its files in the folder `path`.
    pub(super) fn of(path: PathBuf, manifest: Manifest) -> Result<Self> {
        for file in described(&manifest) {
            let incomplete = |reason| Error::NotAShardSet { path: path.clone(), reason };
            match std::fs::metadata(path.join(&file.name)) {
                Ok(metadata) if metadata.len() == file.bytes => {}
                Ok(metadata) => {
                    let reason = format!("{} has {} bytes, not {}", file.name, metadata.len(), file.bytes);
                    return Err(incomplete(reason));
                }
                Err(_) => return Err(incomplete(format!("{} is missing", file.name))),
            }
        }
        // Small, and read at once: no reason to read them on trust.
        for file in &manifest.side_files {
            check_hash(path.join(&file.name), &file.sha256)?;
        }
        Self::with(path, manifest, None)
    }

    fn with(path: PathBuf, manifest: Manifest, source: Option<Arc<dyn FileSource>>) -> Result<Self> {
        let (_open, sources_file) = open_side_file(&path, source.as_deref(), &manifest, SOURCES_FILE)?;
        let measured = read_measured_genes(&sources_file, &manifest)?;
        let mut first_row = 0;
        let mut row_groups = Vec::new();
        for (file, entry) in manifest.files.iter().enumerate() {
            for (index, group) in entry.row_groups.iter().enumerate() {
                row_groups.push(RowGroup { file, index, first_row, n_cells: group.n_cells });
                first_row += u64::from(group.n_cells);
            }
        }
        let footers = manifest.files.iter().map(|_| OnceLock::new()).collect();
        let checked =
            manifest.files.iter().map(|file| file.row_groups.iter().map(|_| false.into()).collect());
        let sources = manifest.sources.iter().map(|source| source.name.clone()).zip(0..).collect();
        Ok(Self {
            checked: checked.collect(),
            path,
            source,
            manifest,
            row_groups,
            measured,
            sources,
            footers,
        })
    }

    /// The folder, or its address on a server.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the set holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads the gene of every token.
    ///
    /// # Errors
    /// [`Error::Parquet`] if the file is damaged, [`Error::NotAShardSet`] if it is not the vocabulary the cells were
    /// written with.
    pub fn vocabulary(&self) -> Result<GeneVocabulary> {
        let (_open, path) =
            open_side_file(&self.path, self.source.as_deref(), &self.manifest, VOCABULARY_FILE)?;
        let vocabulary = GeneVocabulary::read_parquet(&path)?;
        if vocabulary.hash() != self.manifest.vocabulary_hash {
            let reason = format!("{VOCABULARY_FILE} is not the vocabulary of the manifest");
            return Err(Error::NotAShardSet { path: self.path.clone(), reason });
        }
        Ok(vocabulary)
    }

    /// How many cells all files hold together.
    pub fn n_cells(&self) -> usize {
        self.manifest.n_cells as usize
    }

    /// Tokens that a source measured, ascending; `source` counts the manifest's sources from 0.
    ///
    /// A gene is measured when the source's own quality control kept it and the vocabulary has it.
    pub fn measured_genes(&self, source: usize) -> &[u32] {
        self.measured.get(source).map_or(&[], Vec::as_slice)
    }

    /// Reads every file and compares checksums with the manifest; the files of a server are all brought here.
    ///
    /// # Errors
    /// [`Error::ChecksumMismatch`] for the first file that differs, [`Error::Transfer`] for one of a server.
    pub fn verify(&self) -> Result<()> {
        for file in described(&self.manifest) {
            match &self.source {
                Some(source) => drop(source.open(&file)?),
                None => check_hash(self.path.join(&file.name), &file.sha256)?,
            }
        }
        Ok(())
    }

    /// The position of a source among those of the manifest.
    pub(super) fn source_index(&self, name: &str) -> Option<u32> {
        self.sources.get(name).copied()
    }

    /// All row groups in order of their global rows.
    pub(crate) fn row_groups(&self) -> &[RowGroup] {
        &self.row_groups
    }

    /// What errors call a file.
    pub(crate) fn file_path(&self, file: usize) -> PathBuf {
        self.path.join(&self.manifest.files[file].name)
    }

    /// Begins to bring the files that will be read, where they are on a server.
    ///
    /// - `turns`: for each turn, the files it reads
    pub(crate) fn fetch_ahead(
        &self,
        turns: impl Iterator<Item = (usize, Vec<usize>)>,
    ) -> Result<Option<FetchAhead>> {
        let Some(source) = &self.source else { return Ok(None) };
        let files = turns.flat_map(|(turn, files)| files.into_iter().map(move |file| (turn, file)));
        let files = files.map(|(turn, file)| (turn, described_cells(&self.manifest, file))).collect();
        FetchAhead::start(Arc::clone(source), files).map(Some)
    }

    /// Record batches of some columns of one file.
    ///
    /// Of what is read, only the footer is compared with its checksum.
    pub(crate) fn read_columns(
        &self,
        file: usize,
        columns: &[&str],
        batch_size: usize,
    ) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
        let path = self.file_path(file);
        let builder = self.builder(file, self.open_file(file)?, columns)?;
        record_batches(builder.with_batch_size(batch_size), path)
    }

    /// Opens the file of a row group, whose bytes are compared with their checksum the first time.
    pub(crate) fn open_row_group(&self, group: RowGroup) -> Result<OpenRowGroup<'_>> {
        let path = self.file_path(group.file);
        let file = self.open_file(group.file)?;
        // What the footer says is needed to tell a damaged footer from damaged cells.
        let footer = self.footer(group.file, &file)?;
        let checked = &self.checked[group.file][group.index];
        if self.source.is_none() && !checked.load(Ordering::Relaxed) {
            let entry = &self.manifest.files[group.file].row_groups[group.index];
            check_range(&file, &path, entry.start, entry.bytes, &entry.sha256)?;
            checked.store(true, Ordering::Relaxed);
        }
        Ok(OpenRowGroup { set: self, group, path, file: Arc::new(file), footer })
    }

    /// Opens a file of cells, wherever it is. That of a server has the right checksum and stays as long as it is open.
    fn open_file(&self, file: usize) -> Result<File> {
        match &self.source {
            Some(source) => Ok(source.open(&described_cells(&self.manifest, file))?.0),
            None => {
                let path = self.file_path(file);
                File::open(&path).map_err(|source| Error::io("read", &path, source))
            }
        }
    }

    fn builder(
        &self,
        file: usize,
        opened: File,
        columns: &[&str],
    ) -> Result<ParquetRecordBatchReaderBuilder<File>> {
        let footer = self.footer(file, &opened)?;
        let mask = ProjectionMask::columns(footer.parquet_schema(), columns.iter().copied());
        Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(opened, footer).with_projection(mask))
    }

    /// The footer of a file, read once.
    fn footer(&self, file: usize, opened: &File) -> Result<ArrowReaderMetadata> {
        if let Some(footer) = self.footers[file].get() {
            return Ok(footer.clone());
        }
        let footer = self.read_footer(file, opened, &self.file_path(file))?;
        Ok(self.footers[file].get_or_init(|| footer).clone())
    }

    fn read_footer(&self, file: usize, opened: &File, path: &Path) -> Result<ArrowReaderMetadata> {
        let entry = &self.manifest.files[file];
        let start = entry.footer_start();
        check_range(opened, path, start, entry.bytes - start, &entry.footer_sha256)?;
        let footer = guarded(path, || ArrowReaderMetadata::load(opened, Default::default()))?;
        let n_cells = footer.metadata().row_groups().iter().map(|group| group.num_rows());
        if !n_cells.eq(entry.row_groups.iter().map(|group| i64::from(group.n_cells))) {
            return Err(bad_file(path, "its row groups are not those of the manifest"));
        }
        Ok(footer)
    }
}

/// A row group about to be read.
pub(crate) struct OpenRowGroup<'a> {
    set: &'a ShardSet,
    group: RowGroup,
    /// What errors call the file.
    pub(crate) path: PathBuf,
    file: Arc<File>,
    footer: ArrowReaderMetadata,
}

impl OpenRowGroup<'_> {
    /// Record batches of some columns.
    pub(crate) fn batches(
        &self,
        columns: &[&str],
        batch_size: usize,
    ) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
        let file = self.file.try_clone().map_err(|source| Error::io("read", &self.path, source))?;
        let builder = self.set.builder(self.group.file, file, columns)?;
        let builder = builder.with_row_groups(vec![self.group.index]).with_batch_size(batch_size);
        record_batches(builder, self.path.clone())
    }

    /// How many genes all its cells have together, as the file says.
    pub(crate) fn n_genes(&self) -> usize {
        let genes = self.footer.metadata().row_group(self.group.index).columns().first();
        genes.and_then(|genes| usize::try_from(genes.num_values()).ok()).unwrap_or(0)
    }

    /// The pages of a column of lists, `None` where they hold lists of anything but 32-bit numbers, or
    /// gaps.
    pub(crate) fn list_pages(&self, name: &str) -> Result<Option<SerializedPageReader<File>>> {
        let columns = self.footer.metadata().row_group(self.group.index).columns();
        let column = columns.iter().find(|column| {
            let description = column.column_descr();
            column.column_path().parts().first().is_some_and(|root| root == name)
                && (description.max_rep_level(), description.max_def_level()) == (1, 1)
                && description.physical_type() == PhysicalType::INT32
        });
        let pages = |column| {
            let file = Arc::clone(&self.file);
            guarded(&self.path, || SerializedPageReader::new(file, column, self.group.n_cells as usize, None))
        };
        column.map(pages).transpose()
    }
}

/// All files of a set as its manifest describes them.
fn described(manifest: &Manifest) -> impl Iterator<Item = DescribedFile> {
    let cells = (0..manifest.files.len()).map(|file| described_cells(manifest, file));
    cells.chain(manifest.side_files.iter().map(described_side_file))
}

fn described_cells(manifest: &Manifest, file: usize) -> DescribedFile {
    let CellFile { name, bytes, sha256, .. } = &manifest.files[file];
    DescribedFile { name: name.clone(), bytes: *bytes, sha256: sha256.clone() }
}

fn described_side_file(SideFile { name, bytes, sha256 }: &SideFile) -> DescribedFile {
    DescribedFile { name: name.clone(), bytes: *bytes, sha256: sha256.clone() }
}

/// Where a side file is; that of a server is there as long as the handle is.
fn open_side_file(
    folder: &Path,
    source: Option<&dyn FileSource>,
    manifest: &Manifest,
    name: &str,
) -> Result<(Option<File>, PathBuf)> {
    let Some(source) = source else { return Ok((None, folder.join(name))) };
    let file = manifest.side_files.iter().find(|file| file.name == name).ok_or_else(|| {
        Error::NotAShardSet { path: folder.to_path_buf(), reason: format!("its manifest has no {name}") }
    })?;
    let (open, path) = source.open(&described_side_file(file))?;
    Ok((Some(open), path))
}

fn check_hash(path: PathBuf, expected: &str) -> Result<()> {
    let (_, found) = hash_file(&path)?;
    if found == expected {
        return Ok(());
    }
    Err(Error::ChecksumMismatch { path, expected: expected.to_owned(), found })
}

fn check_range(mut opened: &File, path: &Path, start: u64, bytes: u64, expected: &str) -> Result<()> {
    let range = opened.seek(SeekFrom::Start(start)).and_then(|_| hash(&mut opened, bytes));
    let (_, found) = range.map_err(|source| Error::io("read", path, source))?;
    if found == expected {
        return Ok(());
    }
    Err(Error::ChecksumMismatch { path: path.to_path_buf(), expected: expected.to_owned(), found })
}

pub(crate) fn bad_file(path: &Path, reason: impl Into<String>) -> Error {
    Error::Parquet { path: path.to_path_buf(), reason: reason.into() }
}

pub(crate) fn named<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, String> {
    batch.column_by_name(name).ok_or_else(|| format!("it has no column {name}"))
}

/// The tokens each source measured, in the manifest's order of sources.
fn read_measured_genes(path: &Path, manifest: &Manifest) -> Result<Vec<Vec<u32>>> {
    let mut measured = Vec::with_capacity(manifest.sources.len());
    for batch in record_batches(open_parquet(path)?, path.to_path_buf())? {
        let batch = batch?;
        let lists = named(&batch, column::GENES)
            .and_then(list::<UInt32Type>)
            .map_err(|reason| bad_file(path, reason))?;
        for tokens in lists.0.windows(2).map(|range| &lists.1[range[0] as usize..range[1] as usize]) {
            if !tokens.is_sorted_by(|a, b| a < b)
                || tokens.last().is_some_and(|&last| last > manifest.n_genes)
            {
                return Err(bad_file(path, "gene tokens are not ascending or not in the vocabulary"));
            }
            measured.push(tokens.to_vec());
        }
    }
    if measured.len() != manifest.sources.len() {
        return Err(bad_file(path, "it does not have one row for each source of the manifest"));
    }
    Ok(measured)
}
