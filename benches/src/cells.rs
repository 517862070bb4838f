//! The shapes that are measured: how many genes and targets each cell has.

use std::fs;
use std::path::Path;

use cellpatch_data::MaskedBatch;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};

use crate::Result;

/// Genes in and targets out of one cell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CellSize {
    pub(crate) n_genes: usize,
    pub(crate) n_targets: usize,
}

/// Cells of one size.
pub(crate) fn equal(n: usize, n_genes: usize, n_targets: usize) -> Vec<CellSize> {
    vec![CellSize { n_genes, n_targets }; n]
}

/// Cells as experiments have them: non-zero genes log-normal around a median of 1,500, masked as in pretraining.
pub(crate) fn ragged(n: usize) -> Vec<CellSize> {
    non_zero_genes(n, 1500.0, 0.55, 5000)
        .map(|genes| {
            let masked = genes * 3 / 10;
            CellSize { n_genes: (genes - masked).min(3000), n_targets: (masked + masked / 2).min(1000) }
        })
        .collect()
}

/// Unmasked cells of the size that annotation sets of blood have: a median of 525 non-zero genes.
pub(crate) fn annotated(n: usize) -> Vec<CellSize> {
    non_zero_genes(n, 525.0, 0.4, 2000).map(|n_genes| CellSize { n_genes, n_targets: 1 }).collect()
}

fn non_zero_genes(n: usize, median: f64, sigma: f64, most: usize) -> impl Iterator<Item = usize> {
    let sizes = LogNormal::new(median.ln(), sigma).into_iter();
    let mut random = StdRng::seed_from_u64(1);
    sizes.flat_map(move |sizes| {
        (0..n).map(|_| (sizes.sample(&mut random) as usize).clamp(200, most)).collect::<Vec<_>>()
    })
}

/// Writes a line "genes targets" for each cell.
pub(crate) fn write(cells: &[CellSize], path: &Path) -> Result<()> {
    let lines: String = cells.iter().map(|cell| format!("{} {}\n", cell.n_genes, cell.n_targets)).collect();
    Ok(fs::write(path, lines)?)
}

pub(crate) fn read(path: &Path) -> Result<Vec<CellSize>> {
    let text = fs::read_to_string(path)?;
    text.lines()
        .map(|line| {
            let (genes, targets) = line.split_once(' ').ok_or("a line without two numbers")?;
            Ok(CellSize { n_genes: genes.parse()?, n_targets: targets.parse()? })
        })
        .collect()
}

/// Batches of random genes and values, cells in the order they come.
pub(crate) fn batches(cells: &[CellSize], size: usize) -> Vec<MaskedBatch> {
    const N_GENES: u32 = 60_664;
    let mut random = StdRng::seed_from_u64(2);
    let mut batch = |cells: &[CellSize]| {
        let mut batch = MaskedBatch { input_offsets: vec![0], target_offsets: vec![0], ..Default::default() };
        for (row, cell) in cells.iter().enumerate() {
            batch.rows.push(row as u64);
            for _ in 0..cell.n_genes {
                batch.input_genes.push(random.random_range(1..=N_GENES));
                batch.input_values.push(random.random_range(0.3..6.0));
            }
            for target in 0..cell.n_targets {
                batch.target_genes.push(random.random_range(1..=N_GENES));
                let expressed = target < cell.n_targets * 2 / 3;
                batch.target_values.push(if expressed { random.random_range(0.3..6.0) } else { 0.0 });
            }
            batch.input_offsets.push(batch.input_genes.len());
            batch.target_offsets.push(batch.target_genes.len());
        }
        batch
    };
    cells.chunks(size).map(&mut batch).collect()
}
