//! What the model must compute at least, whatever computes it.

use std::ops::{Add, Mul};

use crate::cells::CellSize;

const D: f64 = 32.0;
const MLP: f64 = 64.0;
const N_PATCHES: f64 = 64.0;
const N_HEADS: f64 = 2.0;
const LATENT: f64 = 10.0;
const CAPACITY: f64 = 70_000.0;

/// Work, by what limits it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arithmetic {
    /// Floating-point operations of matrix products, a multiply-add as two.
    pub(crate) operations: f64,
    pub(crate) exponentials: f64,
    /// Bytes that must come from or go to memory.
    pub(crate) bytes: f64,
}

impl Add for Arithmetic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            operations: self.operations + other.operations,
            exponentials: self.exponentials + other.exponentials,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl Mul<f64> for Arithmetic {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self {
            operations: self.operations * factor,
            exponentials: self.exponentials * factor,
            bytes: self.bytes * factor,
        }
    }
}

impl Arithmetic {
    /// Forward and backward of pretraining over cells, and Adam over all of the gene table at each step. The backward pass of a product is two
    /// products; scores and their exponentials are computed again.
    pub(crate) fn of_steps(cells: &[CellSize], n_steps: usize) -> Self {
        let forward = cells.iter().map(forward).fold(Self::default(), Self::add);
        let again = cells.iter().map(scores).fold(Self::default(), Self::add);
        // Weight, gradient and two moments are read; weight and moments are written.
        let adam = Self { bytes: 7.0 * 4.0 * CAPACITY * D, ..Self::default() };
        forward * 3.0 + again + adam * n_steps as f64
    }
}

fn attention(queries: f64, keys: f64) -> Arithmetic {
    Arithmetic {
        operations: 4.0 * queries * keys * D,
        exponentials: N_HEADS * queries * keys,
        ..Arithmetic::default()
    }
}

/// Projections of queries and output, and the MLP.
fn rows(n: f64) -> Arithmetic {
    Arithmetic { operations: n * (4.0 * D * D + 4.0 * D * MLP), ..Arithmetic::default() }
}

/// Keys and values.
fn memory(n: f64) -> Arithmetic {
    Arithmetic { operations: n * 4.0 * D * D, ..Arithmetic::default() }
}

fn forward(cell: &CellSize) -> Arithmetic {
    let (genes, targets) = (cell.n_genes as f64, cell.n_targets as f64);
    let encoder = attention(N_PATCHES, genes)
        + rows(N_PATCHES)
        + (attention(N_PATCHES, N_PATCHES) + rows(N_PATCHES) + memory(N_PATCHES)) * 2.0;
    let between = Arithmetic { operations: 4.0 * N_PATCHES * D * LATENT, ..Arithmetic::default() };
    let decoder = attention(targets, N_PATCHES)
        + rows(targets)
        + memory(N_PATCHES)
        + attention(targets, targets)
        + rows(targets)
        + memory(targets);
    // A row of keys and values for each gene read, a row of the table for each target, token and value.
    let bytes = genes * (2.0 * 4.0 * D + 8.0) + targets * (4.0 * D + 8.0);
    encoder + between + decoder + Arithmetic { bytes, ..Arithmetic::default() }
}

/// What the backward pass computes again: scores and their exponentials.
fn scores(cell: &CellSize) -> Arithmetic {
    let (genes, targets) = (cell.n_genes as f64, cell.n_targets as f64);
    let all = attention(N_PATCHES, genes)
        + attention(N_PATCHES, N_PATCHES) * 2.0
        + attention(targets, N_PATCHES)
        + attention(targets, targets);
    Arithmetic {
        operations: all.operations / 2.0,
        // Tripled with the forward pass, and taken twice in all.
        exponentials: -all.exponentials,
        bytes: 0.0,
    }
}
