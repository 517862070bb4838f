//! The crate's one error type.

use std::path::{Path, PathBuf};

use crate::transfer_failure::TransferFailure;
use crate::vocabulary::Species;

/// What went wrong while reading, checking or writing single-cell data.
///
/// `Display` says what happened and where (file, dataset, row); [`Error::help`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be opened, read, written or renamed.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was being done: "read", "create", "rename", ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The path does not exist.
    #[error("no such file or folder: {}", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// The file is not HDF5 at all.
    #[error("{} is not an HDF5 file{}", path.display(), looks_like.map(|what| format!(": it looks like {what}")).unwrap_or_default())]
    NotHdf5 {
        /// The file.
        path: PathBuf,
        /// What its first bytes look like instead, where they are known.
        looks_like: Option<&'static str>,
    },
    /// The path is nothing cells can be read from.
    #[error("{} is no input this program knows: it has {found}", path.display())]
    UnknownInput {
        /// The file or folder.
        path: PathBuf,
        /// What is in it.
        found: String,
    },
    /// A 10x input has cells of several genomes, and none was chosen.
    #[error("{} has several genomes: {}", path.display(), genomes.join(", "))]
    SeveralGenomes {
        /// The file or folder.
        path: PathBuf,
        /// What there is to choose from.
        genomes: Vec<String>,
    },
    /// A line of a text file is not what its format wants.
    #[error("line {line} of {}: {reason}", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1; 0 for the file as a whole.
        line: u64,
        /// The broken rule, with the numbers that break it.
        reason: String,
    },
    /// The HDF5 file is damaged, cut short or uses something the reader does not know.
    #[error("could not read {dataset} of {}: {reason}", path.display())]
    Hdf5 {
        /// The file.
        path: PathBuf,
        /// The HDF5 object's full name.
        dataset: String,
        /// Why.
        reason: String,
    },
    /// An HDF5 file could not be written, for another reason than the operating system's.
    #[error("could not write {}: {reason}", path.display())]
    Hdf5Write {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// A member cannot be added to an HDF5 file without rewriting the rest of it.
    #[error("cannot add {member} to {}: {reason}", path.display())]
    CannotAdd {
        /// The file.
        path: PathBuf,
        /// The group or member.
        member: String,
        /// What about the file is in the way.
        reason: String,
    },
    /// Results do not fit the cells they are for.
    #[error("{what} has {found} {of}, expected {expected}")]
    WrongLength {
        /// The column, matrix or table.
        what: String,
        /// "values", "rows", "cells", ...
        of: &'static str,
        /// How many there are.
        found: usize,
        /// How many there must be.
        expected: usize,
    },
    /// A file of the name to write already exists.
    #[error("{} already exists", path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
    },
    /// A group, dataset, layer or column that was asked for is not in the file.
    #[error("{} has no {what} {name:?}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// "layer", "obs column", "dataset", ...
        what: &'static str,
        /// The name asked for.
        name: String,
        /// What there is instead.
        available: Vec<String>,
    },
    /// The file breaks a rule of its own format: CSR offsets, indices, codes, shapes.
    #[error("{dataset} of {} is invalid: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The dataset, column or member.
        dataset: String,
        /// The broken rule, with the numbers that break it.
        reason: String,
    },
    /// The values are not what was asked for.
    #[error("{dataset} of {} does not hold raw counts: {found}", path.display())]
    NotCounts {
        /// The file.
        path: PathBuf,
        /// The matrix.
        dataset: String,
        /// What the values look like.
        found: String,
    },
    /// A value that no count or expression can be.
    #[error("{dataset} of {} holds {value} at cell {row}, gene column {column}", path.display())]
    BadValue {
        /// The file.
        path: PathBuf,
        /// The matrix.
        dataset: String,
        /// The value: NaN, infinite or negative.
        value: f64,
        /// Row, counted from 0.
        row: usize,
        /// Column, counted from 0.
        column: usize,
    },
    /// Nothing says where the spots of a slice lie.
    #[error("{} does not say where its cells lie: it has neither {}", path.display(), looked_for.join(" nor "))]
    NoCoordinates {
        /// The file or folder.
        path: PathBuf,
        /// Where was looked.
        looked_for: Vec<String>,
        /// What there is instead.
        available: Vec<String>,
    },
    /// A spot has no place.
    #[error("{dataset} of {} places cell {row} ({cell}) at ({x}, {y}){}", path.display(), if *n_bad > 1 { format!(", and {} more like it", n_bad - 1) } else { String::new() })]
    BadCoordinate {
        /// The file.
        path: PathBuf,
        /// The matrix, columns or table.
        dataset: String,
        /// Row, counted from 0.
        row: usize,
        /// Its name.
        cell: String,
        /// First coordinate.
        x: f64,
        /// Second.
        y: f64,
        /// Cells whose coordinates are NaN or infinite.
        n_bad: usize,
    },
    /// Nothing is left to work on.
    #[error("{} has no cells{}", path.display(), if *filtered { " left after quality control" } else { "" })]
    NoCells {
        /// The file or folder.
        path: PathBuf,
        /// Whether there were cells before quality control.
        filtered: bool,
    },
    /// A curve of variance against mean needs genes that vary.
    #[error("only {n_varying} genes of {} vary between the {n_cells} cells, expected at least {needed}", path.display())]
    FewVariableGenes {
        /// The file.
        path: PathBuf,
        /// Cells that were looked at.
        n_cells: usize,
        /// Genes whose counts are not all the same.
        n_varying: usize,
        /// How many must be.
        needed: usize,
    },
    /// Too few of the file's genes are in the vocabulary.
    #[error("only {matched} of {n_genes} genes of {} are in the vocabulary", path.display())]
    FewGenesMatched {
        /// The file.
        path: PathBuf,
        /// How many matched.
        matched: usize,
        /// How many genes the file has.
        n_genes: usize,
        /// Some of the names that did not match.
        examples: Vec<String>,
    },
    /// The file's genes are of another species than the vocabulary's.
    #[error("the genes of {} look like those of {found}, the vocabulary's like {expected}", path.display())]
    OtherSpecies {
        /// The file.
        path: PathBuf,
        /// What its genes look like.
        found: Species,
        /// What the vocabulary's look like.
        expected: Species,
    },
    /// The vocabulary is full.
    #[error("{new} new genes of {} do not fit: {used} of {capacity} vocabulary rows are taken", path.display())]
    VocabularyFull {
        /// The file that brought the genes.
        path: PathBuf,
        /// How many new genes it has.
        new: usize,
        /// Rows in use.
        used: usize,
        /// Rows there are.
        capacity: usize,
    },
    /// A folder is not a shard set, or not a whole one.
    #[error("{} is not a complete shard set: {reason}", path.display())]
    NotAShardSet {
        /// The folder.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// A shard set is not one of the parts to merge.
    #[error("{} cannot be merged: {reason}", path.display())]
    NotAPart {
        /// The folder.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Parts of a set are missing.
    #[error("of the {count} parts that {} is one of, {} missing: {}", path.display(), if missing.len() == 1 { "one is" } else { "some are" }, some(missing))]
    MissingParts {
        /// A part that is there.
        path: PathBuf,
        /// Which are not.
        missing: Vec<u32>,
        /// How many there must be.
        count: u32,
    },
    /// Parquet could not be read or written.
    #[error("Parquet file {}: {reason}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// A file of a shard set is not the one the manifest describes.
    #[error("{} has changed: its SHA-256 is {found}, not {expected}", path.display())]
    ChecksumMismatch {
        /// The file.
        path: PathBuf,
        /// The manifest's checksum.
        expected: String,
        /// The file's checksum.
        found: String,
    },
    /// A folder to write to already holds something.
    #[error("{} is not empty: it has {found}", path.display())]
    FolderNotEmpty {
        /// The folder.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// Another process is writing to the folder.
    #[error("another process is writing to {}", path.display())]
    FolderBusy {
        /// The folder.
        path: PathBuf,
    },
    /// Cells cannot be divided as asked.
    #[error("cannot split the cells of {}: {reason}", path.display())]
    CannotSplit {
        /// The shard set.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Labelled cells cannot be divided as asked.
    #[error("cannot divide the cells: {reason}")]
    CannotPartition {
        /// Why.
        reason: String,
    },
    /// The threads that load cells ended before the epoch did.
    #[error("loading cells of {} stopped unexpectedly", path.display())]
    LoaderStopped {
        /// The shard set.
        path: PathBuf,
    },
    /// A file is not a manifest of a data set.
    #[error("{} is no data set manifest: {reason}", path.display())]
    BadManifest {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No data set has that name.
    #[error("no data set is called {name:?}")]
    UnknownDataset {
        /// The name asked for.
        name: String,
        /// Those there are.
        available: Vec<String>,
    },
    /// A data set has no files to fetch.
    #[error("data set {name} has no files: its cells are made, not downloaded")]
    NothingToFetch {
        /// Its name.
        name: String,
    },
    /// A file that was fetched is no longer what it was.
    #[error("{} has changed since it was fetched: its SHA-256 is {found}, not {expected}", path.display())]
    FetchedFileChanged {
        /// The file.
        path: PathBuf,
        /// Checksum when it was fetched, or the manifest's.
        expected: String,
        /// Checksum now.
        found: String,
    },
    /// Something could not be had from a server.
    #[error("could not get {url}: {failure}")]
    Transfer {
        /// What was asked for.
        url: String,
        /// What went wrong.
        failure: TransferFailure,
    },
    /// An option has a value that makes no sense.
    #[error("{option} is {value}: {reason}")]
    BadOption {
        /// The option's name as the user knows it.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        reason: String,
    },
}

/// The first numbers of a list.
fn some(numbers: &[u32]) -> String {
    let shown: Vec<String> = numbers.iter().take(12).map(u32::to_string).collect();
    shown.join(", ") + if numbers.len() > shown.len() { ", ..." } else { "" }
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is, and so which exit code a program should end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCategory {
    /// The request makes no sense.
    Usage,
    /// The input is bad.
    Input,
    /// The machine cannot: disk, permissions, memory, devices.
    Environment,
}

impl Error {
    /// An I/O error with the path it happened to.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        if source.kind() == std::io::ErrorKind::NotFound && action == "read" {
            return Self::NotFound { path };
        }
        Self::Io { action, path, source }
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        let list =
            |names: &[String]| names.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(", ");
        Some(match self {
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull => "free some disk space or choose another folder".into(),
                std::io::ErrorKind::PermissionDenied => "choose a folder you can write to".into(),
                _ => return None,
            },
            Self::NotFound { .. } => "check the path; relative paths start at the current folder".into(),
            Self::NotHdf5 { .. } => "give a .h5ad file as AnnData writes it, a 10x .h5 file or a 10x matrix folder, or download the file again".into(),
            Self::UnknownInput { .. } => "give an .h5ad file, a 10x .h5 file, or a folder with matrix.mtx, features.tsv or genes.tsv, and barcodes.tsv (each may end in .gz); where a folder has several, name one".into(),
            Self::SeveralGenomes { genomes, .. } => format!("choose one with --genome, for example --genome {}", genomes.first().map_or("GRCh38", String::as_str)),
            Self::BadLine { .. } => "the file was cut or edited: download it or write it again".into(),
            Self::Hdf5 { .. } => "download or copy the file again; if it opens in Python, write it again with adata.write_h5ad(path, compression=\"gzip\")".into(),
            Self::CannotAdd { .. } => "write the results to a table instead (.parquet or .csv), or write the file again with a current AnnData: anndata.read_h5ad(path).write_h5ad(path)".into(),
            Self::FileExists { .. } => "choose another name, or allow the file to be replaced".into(),
            Self::Missing { what, available, .. } if available.is_empty() => format!("the file has no {what} at all"),
            Self::Missing { available, .. } => format!("there is: {}", list(available)),
            Self::Invalid { .. } => "the file was damaged or written wrongly: write it again from its source".into(),
            Self::NotCounts { .. } => "name the layer with raw counts (--layer NAME), or pass --values normalized to use log1p-normalised values as they are".into(),
            Self::BadValue { .. } => "counts must be finite and not negative: look for scaled or corrected values, and name the layer with raw counts (--layer NAME)".into(),
            Self::NoCoordinates { available, .. } if available.is_empty() => "name the folder with tissue_positions.csv by --coordinates FOLDER".into(),
            Self::NoCoordinates { available, .. } => format!("name a matrix of obsm, two columns of obs or a Visium spatial folder by --coordinates, such as --coordinates x,y; there is: {}", list(available)),
            Self::BadCoordinate { .. } => "leave cells without a place out of the file: adata[~np.isnan(adata.obsm[\"spatial\"]).any(axis=1)]".into(),
            Self::NoCells { filtered: true, .. } => "lower --min-genes or --min-cells; cells that is_primary_data calls copies are kept by --keep-secondary".into(),
            Self::NoCells { .. } => "check that the file is the one you meant".into(),
            Self::FewVariableGenes { .. } => "check that the file is the one you meant, or use all genes".into(),
            Self::FewGenesMatched { examples, .. } => format!("are these human genes? unmatched, for example: {}; check var names, or lower --min-match", list(examples)),
            Self::OtherSpecies { .. } => "have mouse genes replaced by their human orthologs (--mouse-genes orthologs); map genes of other species to orthologs first (Ensembl BioMart has them)".into(),
            Self::VocabularyFull { .. } => "raise --gene-capacity, or give a vocabulary and leave out other genes (--known-genes-only)".into(),
            Self::NotAShardSet { .. } => "run `shard` again: an interrupted run leaves no manifest".into(),
            Self::NotAPart { .. } => "merge what the same `shard` command made with --part 1/N to N/N".into(),
            Self::MissingParts { missing, count, .. } => format!("run `shard` with --part {}/{count}, or name its folder too", missing.first().copied().unwrap_or(1)),
            Self::Parquet { .. } => "run `shard` again".into(),
            Self::ChecksumMismatch { .. } => "copy the shard set again, or run `shard` again".into(),
            Self::FolderNotEmpty { found, .. } if found == "manifest.json" => "it may hold a finished shard set: use it as it is, or choose another folder".into(),
            Self::FolderNotEmpty { .. } => "choose a new or an empty folder".into(),
            Self::FolderBusy { .. } => "wait for it, or choose another folder".into(),
            Self::CannotSplit { .. } => "choose another fraction or column, or split at random".into(),
            Self::CannotPartition { .. } => "choose other fractions, another column or another file".into(),
            Self::BadManifest { .. } => "docs/formats.md says what a manifest may hold".into(),
            Self::UnknownDataset { available, .. } => format!("there is: {}; or give the path of a manifest", list(available)),
            Self::NothingToFetch { .. } => "run `pretrain` without --data to use them".into(),
            Self::FetchedFileChanged { path, .. } => format!("to have it again as it was, remove {} and fetch it again", path.display()),
            Self::Transfer { failure, .. } => return failure.help(),
            Self::LoaderStopped { .. } => "this is a bug in this program: please report it".into(),
            Self::BadOption { .. } | Self::Hdf5Write { .. } | Self::WrongLength { .. } => return None,
        })
    }

    /// Whose fault it is.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::Io { .. }
            | Self::Hdf5Write { .. }
            | Self::FolderBusy { .. }
            | Self::LoaderStopped { .. } => ErrorCategory::Environment,
            Self::Transfer { failure, .. } => failure.category(),
            Self::BadOption { .. }
            | Self::FolderNotEmpty { .. }
            | Self::FileExists { .. }
            | Self::WrongLength { .. }
            | Self::UnknownDataset { .. }
            | Self::NothingToFetch { .. }
            | Self::CannotPartition { .. }
            | Self::CannotSplit { .. } => ErrorCategory::Usage,
            _ => ErrorCategory::Input,
        }
    }
}
