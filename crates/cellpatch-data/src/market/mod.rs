//! Matrix Market files: text, one entry a line, read as a stream.
//!
//! A file sorted by cell, as Cell Ranger writes it, is read in one go; one in another order is regrouped through a
//! temporary file. Which it is, a first pass over the whole file tells, as well as how many entries each cell has.

mod cells;
mod header;
mod reader;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

pub(crate) use cells::{MarketCells, Orientation};
pub(crate) use header::MarketFile;

use crate::error::{Error, Result};

/// Bytes read from the disk at a time.
const BUFFER_BYTES: usize = 1 << 17;

/// A file's bytes, unpacked if it is gzip-compressed, whatever its name.
pub(crate) fn unpacked(path: &Path) -> Result<Box<dyn Read + Send>> {
    let read = |error| Error::io("read", path, error);
    let file = File::open(path).map_err(read)?;
    if file.metadata().map_err(read)?.is_dir() {
        return Err(read(std::io::ErrorKind::IsADirectory.into()));
    }
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    let is_packed = reader.fill_buf().map_err(read)?.starts_with(&[0x1f, 0x8b]);
    Ok(if is_packed { Box::new(flate2::bufread::MultiGzDecoder::new(reader)) } else { Box::new(reader) })
}
