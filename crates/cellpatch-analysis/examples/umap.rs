//! Maps cells from a plain file, to hold the maps against other programs':
//! `cargo run --release -p cellpatch-analysis --example umap -- cells.csv map.csv [seed] [n_neighbors]`
//!
//! The input has one cell a line, its features separated by commas, and no heading; or it is a `.npy` file of a
//! two-dimensional float32 array in C order. The output has one cell a line: x, y.

use std::error::Error;
use std::path::Path;

use cellpatch_analysis::{Cells, Umap, UmapOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: umap INPUT.csv|INPUT.npy OUTPUT.csv [SEED] [N_NEIGHBORS]".into());
    };
    let mut options = UmapOptions::default();
    if let Some(seed) = arguments.next() {
        options.seed = seed.parse()?;
    }
    if let Some(n_neighbors) = arguments.next() {
        options.n_neighbors = n_neighbors.parse()?;
    }
    let (values, n_cells, n_features) = read(Path::new(&input))?;
    let map = Umap::fit(Cells::new(&values, n_cells, n_features)?, &options)?;
    let lines: Vec<String> = map.coordinates().iter().map(|[x, y]| format!("{x},{y}\n")).collect();
    std::fs::write(output, lines.concat())?;
    Ok(())
}

fn read(path: &Path) -> Result<(Vec<f32>, usize, usize), Box<dyn Error>> {
    if path.extension().is_some_and(|extension| extension == "npy") {
        return npy(&std::fs::read(path)?).ok_or_else(|| "not a float32 array in C order".into());
    }
    let text = std::fs::read_to_string(path)?;
    let mut values = Vec::new();
    let mut n_cells = 0;
    for line in text.lines() {
        for field in line.split(',') {
            values.push(field.trim().parse()?);
        }
        n_cells += 1;
    }
    let n_features = values.len().checked_div(n_cells).unwrap_or(0);
    Ok((values, n_cells, n_features))
}

/// Values and shape of a version 1 `.npy` file: magic, version, length of the header, header, values.
fn npy(bytes: &[u8]) -> Option<(Vec<f32>, usize, usize)> {
    let length = u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?);
    let (header, values) = bytes.get(10..)?.split_at_checked(length.into())?;
    let header = std::str::from_utf8(header).ok()?;
    if !header.contains("'<f4'") || !header.contains("'fortran_order': False") {
        return None;
    }
    let (_, shape) = header.split_once("'shape': (")?;
    let mut shape = shape.split_once(')')?.0.split(',').map(|n| n.trim().parse().ok());
    let (n_cells, n_features) = (shape.next()??, shape.next()??);
    let (values, []) = values.as_chunks::<4>() else { return None };
    Some((values.iter().map(|value| f32::from_le_bytes(*value)).collect(), n_cells, n_features))
}
