//! Brute force, blocked: a matrix product finds who may be near, exact distances who is.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::Metric;
use crate::cells::Cells;

/// Queries and references of one block: half a megabyte of products, which stay in a core's cache.
const QUERIES: usize = 128;
const REFERENCES: usize = 1024;

/// A cell that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Near {
    pub(super) cell: u32,
    pub(super) distance: f64,
}

/// What both sides of the search look like, once to multiply and once to measure.
pub(super) struct Search<'a> {
    queries: Side<'a>,
    references: Side<'a>,
    metric: Metric,
    /// Columns of the rows that are multiplied.
    width: usize,
    /// Bound of the error of a squared distance from the product, relative to the sum of both squared lengths.
    error: f32,
}

/// The cells of one side.
struct Side<'a> {
    cells: Cells<'a>,
    /// What each cell is multiplied by when distances are measured; 0 for a direction that there is not.
    factors: Vec<f64>,
    /// `[n_cells, width]`: centred, scaled to at most 1 and rounded. None of this changes who is near.
    rows: Vec<f32>,
    /// Squared length of each row.
    lengths: Vec<f32>,
}

impl<'a> Search<'a> {
    pub(super) fn new(queries: Cells<'a>, references: Cells<'a>, metric: Metric) -> Self {
        let factors = |cells: Cells<'_>| -> Vec<f64> {
            cells
                .iter()
                .map(|cell| if metric == Metric::Cosine { inverse_length(cell) } else { 1.0 })
                .collect()
        };
        let (query_factors, reference_factors) = (factors(queries), factors(references));
        let means = means(references, &reference_factors);
        let largest = largest_difference(queries, &query_factors, &means).max(largest_difference(
            references,
            &reference_factors,
            &means,
        ));
        let scale = if largest > 0.0 { largest.recip() } else { 1.0 };
        // A column of its own keeps cells without direction at a right angle to all others.
        let width = queries.n_features() + usize::from(metric == Metric::Cosine);
        let side = |cells: Cells<'a>, factors: Vec<f64>| {
            let rows: Vec<f32> = (0..cells.n_cells())
                .into_par_iter()
                .flat_map_iter(|cell| {
                    let factor = factors[cell];
                    let features = cells.cell(cell).iter().zip(&means);
                    let row = features.map(move |(&x, mean)| ((f64::from(x) * factor - mean) * scale) as f32);
                    let nowhere = if factor == 0.0 { scale as f32 } else { 0.0 };
                    row.chain(std::iter::repeat_n(nowhere, width - cells.n_features()))
                })
                .collect();
            let length = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() as f32;
            let lengths = match width {
                0 => vec![0.0; cells.n_cells()],
                _ => rows.par_chunks(width).map(length).collect(),
            };
            Side { cells, factors, rows, lengths }
        };
        let queries = side(queries, query_factors);
        let references = side(references, reference_factors);
        // Rounding of a sum of `width` products in any order, of the rows, and of the three terms put together, each
        // at most half of f32::EPSILON relative to the lengths; taken twice.
        let error = f32::EPSILON * (width as f32 + 16.0);
        Self { queries, references, metric, width, error }
    }

    /// The `n` nearest references of each query, `[n_queries, n]`. With `leave_out_self`, both sides are the same
    /// cells and none is its own neighbour. `n` is at most the number of references left.
    pub(super) fn nearest(&self, n: usize, leave_out_self: bool) -> Vec<Near> {
        let n_queries = self.queries.cells.n_cells();
        let blocks: Vec<Vec<Near>> = (0..n_queries.div_ceil(QUERIES))
            .into_par_iter()
            .map(|block| {
                let queries = block * QUERIES..((block + 1) * QUERIES).min(n_queries);
                let mut shortlists: Vec<_> = queries
                    .clone()
                    .map(|query| Shortlist::new(n, leave_out_self.then_some(query as u32)))
                    .collect();
                self.look_through(queries.start, &mut shortlists);
                queries.zip(shortlists).flat_map(|(query, shortlist)| self.decide(query, shortlist)).collect()
            })
            .collect();
        blocks.concat()
    }

    /// Shows every reference to the shortlists of consecutive queries.
    fn look_through(&self, first: usize, shortlists: &mut [Shortlist]) {
        let (width, n_queries) = (self.width, shortlists.len());
        let query_rows = &self.queries.rows[first * width..(first + n_queries) * width];
        let query_rows = MatRef::from_column_major_slice(query_rows, width, n_queries);
        let mut products = vec![0.0_f32; n_queries * REFERENCES];
        let n_references = self.references.cells.n_cells();
        for from in (0..n_references).step_by(REFERENCES) {
            let n = REFERENCES.min(n_references - from);
            let rows = MatRef::from_row_major_slice(
                &self.references.rows[from * width..(from + n) * width],
                n,
                width,
            );
            let products = &mut products[..n * n_queries];
            let target = MatMut::from_column_major_slice_mut(&mut *products, n, n_queries);
            matmul(target, Accum::Replace, rows, query_rows, 1.0, Par::Seq);
            let lengths = &self.references.lengths[from..from + n];
            for (at, (shortlist, products)) in shortlists.iter_mut().zip(products.chunks(n)).enumerate() {
                let query_length = self.queries.lengths[first + at];
                for (reference, (&product, &length)) in products.iter().zip(lengths).enumerate() {
                    let both = query_length + length;
                    let (about, error) = (both - 2.0 * product, both * self.error + f32::MIN_POSITIVE);
                    if about - error <= shortlist.bar {
                        shortlist.offer((from + reference) as u32, about - error, about + error);
                    }
                }
            }
        }
    }

    /// Measures the cells of a shortlist and keeps the nearest.
    fn decide(&self, query: usize, shortlist: Shortlist) -> Vec<Near> {
        let n = shortlist.n;
        let measured = |cell: u32| Near { cell, distance: self.distance(query, cell as usize) };
        let mut near: Vec<Near> = shortlist.candidates().map(measured).collect();
        near.sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance).then(a.cell.cmp(&b.cell)));
        near.truncate(n);
        near
    }

    fn distance(&self, query: usize, reference: usize) -> f64 {
        let (x_factor, y_factor) = (self.queries.factors[query], self.references.factors[reference]);
        if x_factor == 0.0 || y_factor == 0.0 {
            return if x_factor == y_factor { 0.0 } else { 1.0 };
        }
        let (x, y) = (self.queries.cells.cell(query), self.references.cells.cell(reference));
        // Eight sums side by side: the processor adds them at once, and always in the same order.
        let mut sums = [0.0_f64; 8];
        let squared = |x: f32, y: f32| (f64::from(x) * x_factor - f64::from(y) * y_factor).powi(2);
        let (x_parts, y_parts) = (x.chunks_exact(8), y.chunks_exact(8));
        let rest: f64 =
            x_parts.remainder().iter().zip(y_parts.remainder()).map(|(&x, &y)| squared(x, y)).sum();
        for (x, y) in x_parts.zip(y_parts) {
            for (sum, (&x, &y)) in sums.iter_mut().zip(x.iter().zip(y)) {
                *sum += squared(x, y);
            }
        }
        let squared = sums.iter().sum::<f64>() + rest;
        match self.metric {
            Metric::Euclidean => squared.sqrt(),
            Metric::Cosine => squared / 2.0,
        }
    }
}

/// The references that may be among the nearest, as far as was looked.
struct Shortlist {
    n: usize,
    itself: Option<u32>,
    /// The `n` smallest upper bounds of a distance, ascending.
    upper: Vec<f32>,
    /// Who lies surely beyond this is not among the nearest: the last of `upper` once there are `n`.
    bar: f32,
    /// References with the lower bound of their distance.
    lower: Vec<(u32, f32)>,
}

impl Shortlist {
    fn new(n: usize, itself: Option<u32>) -> Self {
        Self { n, itself, upper: Vec::with_capacity(n + 1), bar: f32::INFINITY, lower: Vec::new() }
    }

    fn offer(&mut self, cell: u32, lower: f32, upper: f32) {
        if self.itself == Some(cell) {
            return;
        }
        self.lower.push((cell, lower));
        let at = self.upper.partition_point(|bound| *bound <= upper);
        if at < self.n {
            self.upper.insert(at, upper);
            self.upper.truncate(self.n);
        }
        if let Some(&bar) = self.upper.get(self.n - 1) {
            self.bar = bar;
        }
    }

    fn candidates(&self) -> impl Iterator<Item = u32> {
        self.lower.iter().filter(|(_, lower)| *lower <= self.bar).map(|(cell, _)| *cell)
    }
}

fn inverse_length(cell: &[f32]) -> f64 {
    let length = cell.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 { length.recip() } else { 0.0 }
}

fn means(cells: Cells<'_>, factors: &[f64]) -> Vec<f64> {
    let mut means = vec![0.0; cells.n_features()];
    for (cell, factor) in cells.iter().zip(factors) {
        for (mean, &x) in means.iter_mut().zip(cell) {
            *mean += f64::from(x) * factor / cells.n_cells() as f64;
        }
    }
    means
}

fn largest_difference(cells: Cells<'_>, factors: &[f64], means: &[f64]) -> f64 {
    let of_cell = |(cell, factor): (&[f32], &f64)| {
        let differences = cell.iter().zip(means).map(|(&x, mean)| (f64::from(x) * factor - mean).abs());
        differences.fold(0.0, f64::max)
    };
    cells.iter().zip(factors).map(of_cell).fold(0.0, f64::max)
}
