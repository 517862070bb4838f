//! `manifest.json`: what a shard set holds and how to tell that it is whole.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{MANIFEST_FILE, ShardPart, SharedCells};
use crate::error::{Error, Result};

/// The version this crate writes, and the newest it reads. Sets of version 1 lack `source_row`, which only merging needs,
/// and the fields of the manifest that have defaults.
const FORMAT_VERSION: u32 = 2;
const FORMAT: &str = "cellpatch-shards";
/// Most cells a row group may have. It bounds what a manifest of some size can claim, and so what is reserved for it.
pub(super) const MAX_ROW_GROUP_CELLS: usize = 1 << 16;

/// What a shard set holds. The order of `files` is the order of global rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `cellpatch-shards`.
    pub format: String,
    /// Version of the layout.
    pub version: u32,
    /// SHA-256, in hex, of what decides the contents: the inputs' names and sizes, the vocabulary and the options, but for
    /// sampling. Parts of one set have the same.
    #[serde(default)]
    pub job: String,
    /// Where this is not a whole set but a part of one: which.
    #[serde(default)]
    pub part: Option<PartEntry>,
    /// Seed of the permutation and of the sample under `max_cells`.
    pub seed: u64,
    /// Type and scale of the `counts` column.
    pub values: StoredValues,
    /// Cells in all files.
    pub n_cells: u64,
    /// Most cells a row group has.
    pub row_group_cells: u32,
    /// Genes in the vocabulary, without padding.
    pub n_genes: u32,
    /// Rows the vocabulary may grow to, padding included.
    pub capacity: u32,
    /// SHA-256 of the vocabulary's tokens and names, in hex.
    pub vocabulary_hash: String,
    /// Quality control and sampling over all sources.
    pub quality: QualityCounts,
    /// Columns of `obs` that every cell carries.
    pub obs_columns: Vec<String>,
    /// Where the cells came from; a cell's `source` is a `name` of these.
    pub sources: Vec<SourceEntry>,
    /// Files with cells.
    pub files: Vec<CellFile>,
    /// `vocabulary.parquet` and `sources.parquet`.
    pub side_files: Vec<SideFile>,
    /// Pairs of sources that seem to have cells in common, those with most first.
    #[serde(default)]
    pub shared_cells: Vec<SharedCells>,
}

/// Which part of a set a shard set is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// Which part of how many.
    pub part: ShardPart,
    /// For each of this part's sources, its position among those of the whole set.
    pub sources: Vec<u32>,
    /// How many sources the whole set has.
    pub n_sources: u32,
}

/// Type and scale of the `counts` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredValues {
    /// Raw counts as `List<UInt16>`.
    CountsU16,
    /// Raw counts as `List<Float32>`: some are fractions or exceed 65,535.
    CountsF32,
    /// Values that were normalised and logged before they came here, as `List<Float32>`: used as they are.
    Log1pF32,
}

/// What quality control and sampling left over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QualityCounts {
    /// Fewest genes a cell may have.
    pub min_genes: usize,
    /// Fewest cells a gene must be seen in, source by source.
    pub min_cells: usize,
    /// Cells in all sources.
    pub n_cells_read: u64,
    /// Cells with enough genes.
    pub n_cells_kept: u64,
    /// The most cells that were asked for, of which a random sample was taken.
    pub max_cells: Option<u64>,
    /// The column by whose labels the sample was divided.
    #[serde(default)]
    pub stratify: Option<String>,
    /// Cells left out because their file's `is_primary_data` is false for them.
    #[serde(default)]
    pub n_cells_secondary: u64,
}

/// One input file and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceEntry {
    /// Unique name of the source: the file's stem, with a number where two stems are equal.
    pub name: String,
    /// The file's name, without its folder.
    pub file: String,
    /// The file's size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Where in the file the values were: `X`, `raw/X`, `layers/...`.
    pub matrix: String,
    /// Cells in the file.
    pub n_cells: u64,
    /// Cells left out because the file's `is_primary_data` is false for them: another data set has them too.
    #[serde(default)]
    pub n_cells_secondary: u64,
    /// Cells that passed quality control.
    pub n_cells_kept: u64,
    /// Counts other than 0 of these cells.
    #[serde(default)]
    pub n_values: u64,
    /// Of the cells that passed, those in this shard set: fewer under `max_cells`.
    pub n_cells_written: u64,
    /// Cells left out because none of their genes is both kept and in the vocabulary.
    pub n_cells_without_genes: u64,
    /// Genes in the file.
    pub n_genes: u64,
    /// Genes seen in enough cells.
    pub n_genes_kept: u64,
    /// Of the kept genes, those matched by Ensembl id.
    pub n_matched_by_id: u64,
    /// Of the kept genes, those matched by symbol.
    pub n_matched_by_symbol: u64,
    /// Of the kept genes, those that got a new token.
    pub n_new: u64,
    /// Of the kept genes, those that share their token with an earlier one; their counts are summed.
    pub n_duplicates: u64,
    /// Of the kept genes, those left out because the vocabulary may not grow.
    pub n_dropped: u64,
    /// Names of the dropped genes with the largest total counts, at most ten.
    pub largest_misses: Vec<String>,
}

/// One Parquet file of cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellFile {
    /// File name inside the folder.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
    /// SHA-256 in hex of what follows the last row group: where the columns are and how to read them.
    pub footer_sha256: String,
    /// Row groups, in the order they have in the file.
    pub row_groups: Vec<RowGroupEntry>,
}

/// One row group of a file of cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowGroupEntry {
    /// Cells.
    pub n_cells: u32,
    /// Where its bytes start in the file.
    pub start: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// SHA-256 of them in hex: checked before they are decoded, so that damaged cells never reach a model.
    pub sha256: String,
}

/// One other file of the set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideFile {
    /// File name inside the folder.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

impl CellFile {
    /// Cells in the file.
    pub fn n_cells(&self) -> u64 {
        self.row_groups.iter().map(|group| u64::from(group.n_cells)).sum()
    }

    /// Where the last row group ends.
    pub(super) fn footer_start(&self) -> u64 {
        self.row_groups.last().map_or(0, |group| group.start.saturating_add(group.bytes))
    }
}

impl Manifest {
    /// The format name and version that this crate writes.
    pub(crate) fn current_format() -> (String, u32) {
        (FORMAT.to_owned(), FORMAT_VERSION)
    }

    /// Reads and checks the manifest of a folder.
    ///
    /// # Errors
    /// [`Error::NotAShardSet`] if there is none, or it contradicts itself or is of a newer version.
    pub fn read(folder: &Path) -> Result<Self> {
        let incomplete = |reason: String| Error::NotAShardSet { path: folder.to_path_buf(), reason };
        if !folder.exists() {
            return Err(Error::NotFound { path: folder.to_path_buf() });
        }
        let path = folder.join(MANIFEST_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(incomplete(format!("it has no {MANIFEST_FILE}")));
            }
            Err(source) => return Err(Error::io("read", &path, source)),
        };
        Self::parse(&text, folder)
    }

    /// Checks the text of a manifest; `folder` is for errors.
    pub(super) fn parse(text: &[u8], folder: &Path) -> Result<Self> {
        let incomplete = |reason: String| Error::NotAShardSet { path: folder.to_path_buf(), reason };
        let broken =
            |source: serde_json::Error| incomplete(format!("{MANIFEST_FILE} does not parse: {source}"));
        let version: VersionOnly = serde_json::from_slice(text).map_err(broken)?;
        if version.format != FORMAT || version.version == 0 || version.version > FORMAT_VERSION {
            return Err(incomplete(format!(
                "{MANIFEST_FILE} is {} version {}; this program reads {FORMAT} up to version {FORMAT_VERSION}",
                version.format, version.version
            )));
        }
        let manifest: Self = serde_json::from_slice(text).map_err(broken)?;
        manifest.check().map_err(incomplete)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        let mut n_cells = 0u64;
        if self.row_group_cells as usize > MAX_ROW_GROUP_CELLS {
            return Err(format!("row groups of {} cells are too large", self.row_group_cells));
        }
        for file in &self.files {
            if !is_plain_name(&file.name) {
                return Err(format!("{:?} is not a file name", file.name));
            }
            let mut end = 0u64;
            for group in &file.row_groups {
                let group_end = group.start.checked_add(group.bytes).filter(|&end| end <= file.bytes);
                match group_end {
                    Some(group_end)
                        if (1..=self.row_group_cells).contains(&group.n_cells) && group.start >= end =>
                    {
                        end = group_end;
                    }
                    _ => {
                        return Err(format!(
                            "{} has a row group without cells, with too many or out of place",
                            file.name
                        ));
                    }
                }
                n_cells += u64::from(group.n_cells);
            }
        }
        if let Some(file) = self.side_files.iter().find(|file| !is_plain_name(&file.name)) {
            return Err(format!("{:?} is not a file name", file.name));
        }
        let sums = self.files.iter().map(|file| (&file.name, &file.sha256));
        let sums = sums.chain(self.side_files.iter().map(|file| (&file.name, &file.sha256)));
        if let Some((name, sum)) = sums.into_iter().find(|(_, sum)| !is_checksum(sum)) {
            return Err(format!("the sha256 of {name} is {sum:?}, not 64 hex digits"));
        }
        if n_cells != self.n_cells {
            return Err(format!("its files hold {n_cells} cells, not {}", self.n_cells));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct VersionOnly {
    format: String,
    version: u32,
}

/// Files of servers are kept under their checksums: one must not lead out of their folder either.
fn is_checksum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A manifest may come from anywhere: it must not lead out of its folder.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', ':', '\0'])
}
