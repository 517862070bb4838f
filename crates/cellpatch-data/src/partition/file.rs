//! Partitions in files: a table of cells and parts, or a list of cells for each part.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use super::{Part, Partition, cannot};
use crate::error::{Error, Result};
use crate::table::{TableFormat, fields, write_row};
use crate::unfinished_file::{Existing, UnfinishedFile};

/// A partition read from files, and how well they fit the cells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionMatch {
    /// The partition.
    pub partition: Partition,
    /// Cells that are in a file.
    pub n_matched: usize,
    /// Cells that are in no file, and so in no part.
    pub n_unlisted: usize,
    /// Names in a file that no cell has.
    pub n_unknown: usize,
}

impl Partition {
    /// Writes a table of `cell_id` and `part`, tab-separated, or comma-separated if the name ends in `.csv`.
    ///
    /// Cells that are for nothing are left out: reading the file gives the same partition.
    ///
    /// # Errors
    /// [`Error::WrongLength`] if there is not one name per cell; [`Error::FileExists`]; [`Error::Io`].
    pub fn save(&self, path: &Path, existing: Existing, cell_ids: &[String]) -> Result<()> {
        let (found, expected) = (cell_ids.len(), self.parts().len());
        if found != expected {
            return Err(Error::WrongLength {
                what: "the list of cells".into(),
                of: "names",
                found,
                expected,
            });
        }
        let delimiter = if matches!(TableFormat::of(path), Ok(TableFormat::Csv)) { ',' } else { '\t' };
        let file = UnfinishedFile::create(path, existing)?;
        let mut writer = BufWriter::new(file.handle()?);
        let mut text = String::new();
        write_row(&mut text, delimiter, ["cell_id", "part"].into_iter());
        for (cell_id, part) in cell_ids.iter().zip(self.parts()) {
            if let Some(part) = part {
                write_row(&mut text, delimiter, [cell_id.as_str(), part.name()].into_iter());
            }
            writer.write_all(text.as_bytes()).map_err(|source| Error::io("write", path, source))?;
            text.clear();
        }
        writer.write_all(text.as_bytes()).map_err(|source| Error::io("write", path, source))?;
        writer.flush().map_err(|source| Error::io("write", path, source))?;
        drop(writer);
        file.commit()
    }

    /// Reads a table whose lines name a cell and a part, separated by a tab or a comma; further fields are ignored.
    ///
    /// - `cell_ids`: the cells, in the order of the partition
    ///
    /// A first line whose second field names no part is taken for a header.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`]; [`Error::Invalid`] with the line, for one that is not a cell and a part, or
    /// that puts a cell in a second part; [`Error::CannotPartition`] if none of the names is a cell's, or a listed name is
    /// that of two cells.
    pub fn from_table(path: &Path, cell_ids: &[String]) -> Result<PartitionMatch> {
        let mut listing = Listing::new(cell_ids);
        for_each_line(path, |number, line| {
            let delimiter = if line.contains('\t') { '\t' } else { ',' };
            let row = fields(line, delimiter).filter(|row| row.len() >= 2);
            let row = row.ok_or_else(|| bad_line(path, number, "expected a cell and a part".into()))?;
            match Part::from_name(&row[1]) {
                Some(part) => listing.add(path, number, &row[0], part),
                None if number == 1 => Ok(()),
                None => {
                    let reason = format!("{:?} is no part: expected train, validation or test", row[1]);
                    Err(bad_line(path, number, reason))
                }
            }
        })?;
        listing.finish(path)
    }

    /// Reads files with one cell a line, one file for each part.
    ///
    /// # Errors
    /// As [`Self::from_table`].
    pub fn from_lists(lists: &[(Part, &Path)], cell_ids: &[String]) -> Result<PartitionMatch> {
        let mut listing = Listing::new(cell_ids);
        for &(part, path) in lists {
            for_each_line(path, |number, line| listing.add(path, number, line, part))?;
        }
        listing.finish(lists.first().map_or(Path::new(""), |&(_, path)| path))
    }
}

/// Calls `line` with every line that is not empty, without its end and spaces around it, counted from 1.
fn for_each_line(path: &Path, mut line: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let file = File::open(path).map_err(|source| Error::io("read", path, source))?;
    for (number, text) in (1..).zip(BufReader::new(file).lines()) {
        let text = text.map_err(|source| Error::io("read", path, source))?;
        // Spreadsheets begin UTF-8 with a byte order mark.
        let text = text.trim_start_matches('\u{feff}').trim_end_matches(['\r', ' ']);
        if !text.trim().is_empty() {
            line(number, text)?;
        }
    }
    Ok(())
}

fn bad_line(path: &Path, number: usize, reason: String) -> Error {
    Error::Invalid { path: path.to_path_buf(), dataset: format!("line {number}"), reason }
}

/// Cells by name, and the parts found for them.
struct Listing<'a> {
    /// Row of each name; `None` if two cells have it.
    rows: HashMap<&'a str, Option<usize>>,
    parts: Vec<Option<Part>>,
    n_unknown: usize,
}

impl<'a> Listing<'a> {
    fn new(cell_ids: &'a [String]) -> Self {
        let mut rows = HashMap::with_capacity(cell_ids.len());
        for (row, cell_id) in cell_ids.iter().enumerate() {
            rows.entry(cell_id.as_str()).and_modify(|row| *row = None).or_insert(Some(row));
        }
        Self { rows, parts: vec![None; cell_ids.len()], n_unknown: 0 }
    }

    fn add(&mut self, path: &Path, number: usize, cell_id: &str, part: Part) -> Result<()> {
        match self.rows.get(cell_id) {
            None => self.n_unknown += 1,
            Some(None) => return Err(cannot(format!("more than one cell is called {cell_id:?}"))),
            Some(&Some(row)) => match self.parts[row] {
                Some(other) if other != part => {
                    let reason =
                        format!("{cell_id:?} is for {} already, and here for {}", other.name(), part.name());
                    return Err(bad_line(path, number, reason));
                }
                _ => self.parts[row] = Some(part),
            },
        }
        Ok(())
    }

    fn finish(self, path: &Path) -> Result<PartitionMatch> {
        let n_matched = self.parts.iter().flatten().count();
        if n_matched == 0 {
            return Err(cannot(format!("{} names none of the cells", path.display())));
        }
        let n_unlisted = self.parts.len() - n_matched;
        let partition = Partition { parts: self.parts };
        Ok(PartitionMatch { partition, n_matched, n_unlisted, n_unknown: self.n_unknown })
    }
}
