//! Cells that several sources have in common, as their barcodes tell.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use arrow::{array::AsArray, datatypes::Float64Type};
use serde::{Deserialize, Serialize};

use super::{
    column,
    decode::source_indices,
    reader::{ShardSet, bad_file, named},
};
use crate::error::Result;

/// Cells read at a time.
const BATCH_CELLS: usize = 65_536;
/// Letters a barcode of any droplet protocol has at least.
const MIN_BARCODE: usize = 12;
/// Characters another name has at least to say which cell it is.
const MIN_NAME: usize = 8;
/// A name that more cells than this have is no name.
const MAX_NAMESAKES: usize = 64;
/// Totals of the same cell in two files differ by at most this share, where quality control dropped other genes.
const TOTAL_TOLERANCE: f64 = 0.01;
/// Shares of the smaller source's cells from which a pair is worth telling. Barcodes are drawn from lists of a few hundred
/// thousand, so two sources of thousands of cells have some in common by chance; hardly with the same total.
const MIN_ALIKE: f64 = 0.01;
const MIN_BARCODES: f64 = 0.05;

/// Two sources that seem to have cells in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedCells {
    /// Name of the earlier source.
    pub first: String,
    /// Name of the later source.
    pub second: String,
    /// Pairs of cells with the same barcode, whatever stands around it.
    pub n_barcodes: u64,
    /// Of those, pairs whose total counts are the same within 1 %: the same cell, it seems.
    pub n_alike: u64,
}

/// What is kept of a cell.
#[derive(Debug, Clone, Copy)]
struct Namesake {
    name: u64,
    source: u32,
    total: f32,
}

impl ShardSet {
    /// Pairs of sources with cells in common, those with most first: files that are copies, or parts, of each other.
    ///
    /// Cells are compared by the barcode in their name (`AAACCTGAGAAACCAT` of `s1_AAACCTGAGAAACCAT-1-0`), or by a long name
    /// without numbers at its end. A pair is told from 1 % of the smaller source's cells alike, or 5 % of its barcodes shared.
    ///
    /// - `max_memory`: bytes to use, about; with less, names are read more often
    ///
    /// # Errors
    /// [`Error::Parquet`](crate::Error::Parquet) if a file is damaged.
    pub fn shared_cells(&self, max_memory: usize) -> Result<Vec<SharedCells>> {
        let sources = &self.manifest().sources;
        if sources.len() < 2 {
            return Ok(Vec::new());
        }
        let n_passes = (self.n_cells() * size_of::<Namesake>()).div_ceil(max_memory.max(1)).max(1) as u64;
        let mut pairs: BTreeMap<(u32, u32), (u64, u64)> = BTreeMap::new();
        for pass in 0..n_passes {
            let mut cells = self.namesakes(|name| name % n_passes == pass)?;
            cells.sort_unstable_by_key(|cell| (cell.name, cell.source));
            let groups = cells.chunk_by(|a, b| a.name == b.name);
            for group in groups.filter(|group| (2..=MAX_NAMESAKES).contains(&group.len())) {
                for (at, first) in group.iter().enumerate() {
                    for second in group[at + 1..].iter().filter(|second| second.source != first.source) {
                        let (n_barcodes, n_alike) = pairs.entry((first.source, second.source)).or_default();
                        *n_barcodes += 1;
                        *n_alike += u64::from(alike(first.total, second.total));
                    }
                }
            }
        }
        let n_cells = |source: u32| sources[source as usize].n_cells_written as f64;
        let worth_telling = |&(&(first, second), &(n_barcodes, n_alike)): &(&(u32, u32), &(u64, u64))| {
            let smaller = n_cells(first).min(n_cells(second)).max(1.0);
            n_alike as f64 >= MIN_ALIKE * smaller && n_alike > 0
                || n_barcodes as f64 >= MIN_BARCODES * smaller
        };
        let name = |source: u32| sources[source as usize].name.clone();
        let told = pairs.iter().filter(worth_telling);
        let mut shared: Vec<SharedCells> = told
            .map(|(&(first, second), &(n_barcodes, n_alike))| SharedCells {
                first: name(first),
                second: name(second),
                n_barcodes,
                n_alike,
            })
            .collect();
        shared.sort_by_key(|pair| std::cmp::Reverse((pair.n_alike, pair.n_barcodes)));
        Ok(shared)
    }

    /// All cells with a name that says which they are, and that is `wanted`.
    fn namesakes(&self, wanted: impl Fn(u64) -> bool) -> Result<Vec<Namesake>> {
        let mut found = Vec::new();
        let columns = [column::CELL_ID, column::SOURCE, column::TOTAL_COUNTS];
        for file in 0..self.manifest().files.len() {
            let path = self.file_path(file);
            for batch in self.read_columns(file, &columns, BATCH_CELLS)? {
                let batch = batch?;
                let mut append = || -> Result<(), String> {
                    let names = named(&batch, column::CELL_ID)?;
                    let names = names.as_string_opt::<i32>().ok_or("cell_id is not text")?;
                    let totals = named(&batch, column::TOTAL_COUNTS)?;
                    let totals =
                        totals.as_primitive_opt::<Float64Type>().ok_or("total_counts are not Float64")?;
                    let sources = source_indices(self, named(&batch, column::SOURCE)?)?;
                    for ((name, &total), source) in names.iter().zip(totals.values()).zip(sources) {
                        let hash = name.and_then(core_of).map(hash);
                        if let Some(name) = hash.filter(|&name| wanted(name)) {
                            found.push(Namesake { name, source, total: total as f32 });
                        }
                    }
                    Ok(())
                };
                append().map_err(|reason| bad_file(&path, reason))?;
            }
        }
        Ok(found)
    }
}

/// What of a cell's name stays the same when files are joined: the barcode, or the name without numbers appended to it.
fn core_of(name: &str) -> Option<&str> {
    let is_base = |letter: char| matches!(letter, 'A' | 'C' | 'G' | 'T');
    let barcode = name.split(|letter| !is_base(letter)).max_by_key(|run| run.len())?;
    if barcode.len() >= MIN_BARCODE {
        return Some(barcode);
    }
    let mut core = name;
    while let Some((start, number)) = core.rsplit_once('-') {
        if number.is_empty() || !number.bytes().all(|letter| letter.is_ascii_digit()) {
            break;
        }
        core = start;
    }
    // Numbers alone are rows, which every file has.
    let says_which = core.len() >= MIN_NAME && core.bytes().any(|letter| letter.is_ascii_alphabetic());
    says_which.then_some(core)
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn alike(a: f32, b: f32) -> bool {
    let (a, b) = (f64::from(a), f64::from(b));
    (a - b).abs() <= TOTAL_TOLERANCE * a.abs().max(b.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_of_a_name_is_what_joining_files_leaves() {
        for name in
            ["AAACCTGAGAAACCAT", "AAACCTGAGAAACCAT-1", "AAACCTGAGAAACCAT-1-0", "GSM12_AAACCTGAGAAACCAT.3"]
        {
            assert_eq!(core_of(name), Some("AAACCTGAGAAACCAT"), "{name}");
        }
        assert_eq!(core_of("donor3_well_B07-1-2"), Some("donor3_well_B07"));
        for name in ["", "17", "c1", "1234567890", "ACGT-1", "0-0-0"] {
            assert_eq!(core_of(name), None, "{name}");
        }
    }
}
