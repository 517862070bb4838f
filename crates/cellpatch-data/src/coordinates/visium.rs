//! The `spatial` folder that 10x Genomics' Space Ranger writes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Coordinates;
use crate::error::{Error, Result};
use crate::source::CellSource;

/// Names of the table of positions, the first that is there: Space Ranger 2 and later with a header, before without.
const TABLES: [&str; 2] = ["tissue_positions.csv", "tissue_positions_list.csv"];
const SCALE_FACTORS: &str = "scalefactors_json.json";
/// Columns of the table: barcode, in_tissue, array_row, array_col, pxl_row_in_fullres, pxl_col_in_fullres.
const N_COLUMNS: usize = 6;

/// The matrix of an output folder of Space Ranger, with spots under tissue rather than all, as file rather than folder; none
/// for a folder that is no such output.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read.
pub fn visium_matrix(folder: &Path) -> Result<Option<PathBuf>> {
    if !folder.is_dir() || table(&folder.join("spatial")).is_none() {
        return Ok(None);
    }
    let read = |error| Error::io("read", folder, error);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        entries.push(entry.map_err(read)?.path());
    }
    entries.sort();
    let ends = |suffix: &str| {
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().ends_with(suffix);
        entries.iter().find(|path| name(path)).cloned()
    };
    Ok([
        "filtered_feature_bc_matrix.h5",
        "filtered_feature_bc_matrix",
        "raw_feature_bc_matrix.h5",
        "raw_feature_bc_matrix",
    ]
    .into_iter()
    .find_map(ends))
}

/// The `spatial` folder that lies beside a matrix, or in the folder that is the matrix.
pub(super) fn folder_beside(matrix: &Path) -> Option<PathBuf> {
    let parents = [Some(matrix).filter(|path| path.is_dir()), matrix.parent()];
    parents.into_iter().flatten().map(|folder| folder.join("spatial")).find(|folder| table(folder).is_some())
}

fn table(folder: &Path) -> Option<PathBuf> {
    TABLES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Reads the places of a source's cells by their barcodes.
pub(super) fn read(folder: &Path, source: &dyn CellSource) -> Result<Coordinates> {
    let inside = folder.join("spatial");
    let (folder, path) = [folder, inside.as_path()]
        .into_iter()
        .find_map(|folder| Some((folder, table(folder)?)))
        .ok_or_else(|| Error::Missing {
            path: folder.to_path_buf(),
            what: "table of positions",
            name: TABLES[0].into(),
            available: Vec::new(),
        })?;
    let by_barcode = positions(&path)?;
    let cells = source.cell_ids()?;
    let mut found = Vec::with_capacity(cells.len());
    let mut without: Option<&String> = None;
    let mut n_without = 0;
    for cell in &cells {
        match by_barcode.get(cell.as_str()) {
            Some(position) => found.push(*position),
            None => {
                n_without += 1;
                without.get_or_insert(cell);
            }
        }
    }
    if let Some(cell) = without {
        let reason =
            format!("it says nothing of {n_without} of the {} cells, {cell:?} for example", cells.len());
        return Err(Error::Invalid { path, dataset: "the table of positions".into(), reason });
    }
    let origin = path.display().to_string();
    Ok(Coordinates { positions: found, z: None, origin, spot_diameter: spot_diameter(folder)? })
}

/// Column and row of each barcode in pixels of the full-resolution image: x and y.
fn positions(path: &Path) -> Result<HashMap<String, [f64; 2]>> {
    let text = fs::read_to_string(path).map_err(|error| Error::io("read", path, error))?;
    let mut found = HashMap::new();
    for (line, text) in text.lines().enumerate() {
        let bad = |reason: String| Error::BadLine { path: path.to_path_buf(), line: line as u64 + 1, reason };
        let fields: Vec<&str> = text.split(',').map(|field| field.trim().trim_matches('"')).collect();
        if fields.first() == Some(&"barcode") && line == 0 || text.trim().is_empty() {
            continue;
        }
        if fields.len() != N_COLUMNS {
            return Err(bad(format!("it has {} fields, expected {N_COLUMNS}", fields.len())));
        }
        let pixel = |index: usize| {
            fields[index]
                .parse::<f64>()
                .map_err(|_| bad(format!("field {} is {:?}, not a number", index + 1, fields[index])))
        };
        let position = [pixel(5)?, pixel(4)?];
        if found.insert(fields[0].to_owned(), position).is_some() {
            return Err(bad(format!("barcode {:?} comes a second time", fields[0])));
        }
    }
    Ok(found)
}

/// What the scale factors say of the size of a spot; none where there are none.
fn spot_diameter(folder: &Path) -> Result<Option<f64>> {
    let path = folder.join(SCALE_FACTORS);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| Error::Invalid {
        path: path.clone(),
        dataset: "the scale factors".into(),
        reason: error.to_string(),
    })?;
    Ok(value["spot_diameter_fullres"].as_f64())
}
