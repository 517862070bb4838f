//! Light columns of a shard set, all rows at once: everything but genes and counts.

use std::collections::BTreeMap;

use arrow::{
    array::{Array, AsArray},
    datatypes::{Float64Type, Int32Type, UInt32Type},
};

use super::{
    column,
    decode::source_indices,
    reader::{ShardSet, bad_file, named},
};
use crate::{
    Labels,
    error::{Error, Result},
};

/// Cells a record batch of light columns has.
const BATCH_CELLS: usize = 65_536;

/// Per-cell numbers of a whole shard set, indexed by global row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowTable {
    /// Genes with counts, of those in the vocabulary.
    pub n_genes: Vec<u32>,
    /// Counts over all genes that quality control kept, in the vocabulary or not.
    pub total_counts: Vec<f64>,
    /// Index of the cell's source among the manifest's sources.
    pub sources: Vec<u32>,
}

impl ShardSet {
    /// Reads the light columns of all cells: 16 bytes a cell, without touching genes and counts.
    ///
    /// # Errors
    /// [`Error::Parquet`] if a file is damaged.
    pub fn rows(&self) -> Result<RowTable> {
        let mut table = RowTable::default();
        let columns = [column::N_GENES, column::TOTAL_COUNTS, column::SOURCE];
        for file in 0..self.manifest().files.len() {
            let path = self.file_path(file);
            for batch in self.read_columns(file, &columns, BATCH_CELLS)? {
                let batch = batch?;
                let mut append = || -> Result<(), String> {
                    let n_genes = named(&batch, column::N_GENES)?;
                    let n_genes = n_genes.as_primitive_opt::<UInt32Type>().ok_or("n_genes is not UInt32")?;
                    let totals = named(&batch, column::TOTAL_COUNTS)?;
                    let totals =
                        totals.as_primitive_opt::<Float64Type>().ok_or("total_counts are not Float64")?;
                    table.n_genes.extend_from_slice(n_genes.values());
                    table.total_counts.extend_from_slice(totals.values());
                    table.sources.extend(source_indices(self, named(&batch, column::SOURCE)?)?);
                    Ok(())
                };
                append().map_err(|reason| bad_file(&path, reason))?;
            }
        }
        if table.n_genes.len() != self.n_cells() {
            let reason = format!("its files hold {} cells, not {}", table.n_genes.len(), self.n_cells());
            return Err(Error::NotAShardSet { path: self.path().to_path_buf(), reason });
        }
        Ok(table)
    }

    /// Names of all cells, by global row; unique only within their source.
    ///
    /// # Errors
    /// [`Error::Parquet`] if a file is damaged.
    pub fn cell_ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::with_capacity(self.n_cells());
        for file in 0..self.manifest().files.len() {
            let path = self.file_path(file);
            for batch in self.read_columns(file, &[column::CELL_ID], BATCH_CELLS)? {
                let batch = batch?;
                let names = named(&batch, column::CELL_ID).map_err(|reason| bad_file(&path, reason))?;
                let names =
                    names.as_string_opt::<i32>().ok_or_else(|| bad_file(&path, "cell_id is not text"))?;
                ids.extend(names.iter().map(|name| name.unwrap_or_default().to_owned()));
            }
        }
        Ok(ids)
    }

    /// One `obs` column, or `source`, of all cells: categories in alphabetical order and a code for each global row,
    /// `None` where the cell has no label.
    ///
    /// # Errors
    /// [`Error::Missing`] if the shard set has no such column, [`Error::Parquet`] if a file is damaged.
    pub fn labels(&self, name: &str) -> Result<Labels> {
        let obs_columns = &self.manifest().obs_columns;
        if name != column::SOURCE && !obs_columns.iter().any(|column| column == name) {
            return Err(Error::Missing {
                path: self.path().to_path_buf(),
                what: "label column",
                name: name.to_owned(),
                available: obs_columns.iter().cloned().chain([column::SOURCE.to_owned()]).collect(),
            });
        }
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        let mut codes: Vec<Option<u32>> = Vec::with_capacity(self.n_cells());
        for file in 0..self.manifest().files.len() {
            let path = self.file_path(file);
            for batch in self.read_columns(file, &[name], BATCH_CELLS)? {
                let batch = batch?;
                append_codes(&batch, name, &mut seen, &mut codes)
                    .map_err(|reason| bad_file(&path, reason))?;
            }
        }
        let mut rank = vec![0u32; seen.len()];
        seen.values().zip(0..).for_each(|(&code, position)| rank[code as usize] = position);
        codes.iter_mut().flatten().for_each(|code| *code = rank[*code as usize]);
        Ok(Labels { categories: seen.into_keys().collect(), codes })
    }
}

/// Appends codes in order of first appearance; dictionaries differ from row group to row group.
fn append_codes(
    batch: &arrow::array::RecordBatch,
    name: &str,
    seen: &mut BTreeMap<String, u32>,
    codes: &mut Vec<Option<u32>>,
) -> Result<(), String> {
    let labels = named(batch, name)?;
    let labels =
        labels.as_dictionary_opt::<Int32Type>().ok_or_else(|| format!("{name} is not a dictionary"))?;
    let texts = labels
        .values()
        .as_string_opt::<i32>()
        .ok_or_else(|| format!("{name} is not a dictionary of text"))?;
    // A dictionary may list texts that no cell of the batch uses: only those that are used become categories.
    let mut code_of_key: Vec<Option<u32>> = vec![None; texts.len()];
    for key in labels.keys() {
        let Some(key) = key.map(|key| key as usize) else {
            codes.push(None);
            continue;
        };
        if texts.is_null(key) {
            codes.push(None);
            continue;
        }
        let code = match code_of_key[key] {
            Some(code) => code,
            None => {
                let next = seen.len() as u32;
                *seen.entry(texts.value(key).to_owned()).or_insert(next)
            }
        };
        code_of_key[key] = Some(code);
        codes.push(Some(code));
    }
    Ok(())
}
