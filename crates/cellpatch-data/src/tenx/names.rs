//! The tables beside a Matrix Market file: genes or features, and barcodes.

use std::io::Read;
use std::path::Path;

use super::features::Feature;
use crate::error::{Error, Result};
use crate::market::unpacked;

/// Largest table that is read, unpacked: names of a hundred million cells would not fit in memory anyway.
const MAX_BYTES: u64 = 1 << 31;

/// `genes.tsv` (id, name) or `features.tsv` (id, name, type, ...).
pub(super) fn features(path: &Path) -> Result<Vec<Feature>> {
    let text = read(path)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let features = lines.map(|line| {
        let mut fields = line.split('\t').map(|field| field.trim().trim_matches('"').to_string());
        let mut next = || fields.next().unwrap_or_default();
        Feature { id: next(), name: next(), kind: next(), genome: String::new() }
    });
    Ok(features.collect())
}

/// `barcodes.tsv`: the first field of every line.
pub(super) fn barcodes(path: &Path) -> Result<Vec<String>> {
    let text = read(path)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    Ok(lines
        .map(|line| line.split('\t').next().unwrap_or_default().trim().trim_matches('"').to_string())
        .collect())
}

fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    unpacked(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|source| Error::Io {
        action: "unpack",
        path: path.to_path_buf(),
        source,
    })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::BadLine {
            path: path.to_path_buf(),
            line: 0,
            reason: format!("the table is larger than {MAX_BYTES} bytes"),
        });
    }
    // A mark some Windows programs put at the beginning is no part of the first name.
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_start_matches('\u{feff}').to_string())
}
