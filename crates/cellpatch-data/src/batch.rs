//! Ragged batches of cells: genes and values of one cell after the other, with offsets, as in CSR.
//!
//! Cells differ in length by a factor of ten, so a batch stays ragged until the last moment. Training cuts it into
//! micro-batches of similar length under a memory budget ([`MaskedBatch::micro_batches`]) and pads only those.

/// Cells with all their genes, for features and inference.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExpressionBatch {
    /// Global rows of the shard set, one a cell.
    pub rows: Vec<u64>,
    /// `n_cells + 1` offsets into `genes` and `values`; the first is 0.
    pub offsets: Vec<usize>,
    /// Gene tokens, ascending within a cell.
    pub genes: Vec<u32>,
    /// Expression, log1p of counts scaled to 10,000 a cell.
    pub values: Vec<f32>,
}

/// Cells split into what the model sees (input) and what it must predict (target).
///
/// A gene of a cell is in its input, in its target or in neither, never in both.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MaskedBatch {
    /// Global rows of the shard set, one a cell.
    pub rows: Vec<u64>,
    /// `n_cells + 1` offsets into `input_genes` and `input_values`; the first is 0.
    pub input_offsets: Vec<usize>,
    /// Gene tokens that go in, ascending within a cell; every cell has at least one.
    pub input_genes: Vec<u32>,
    /// Expression of the genes that go in, log1p of counts scaled to 10,000 a cell.
    pub input_values: Vec<f32>,
    /// `n_cells + 1` offsets into `target_genes` and `target_values`; the first is 0.
    pub target_offsets: Vec<usize>,
    /// Gene tokens to predict: masked genes ascending, then genes with zero counts. A cell with one gene has none.
    pub target_genes: Vec<u32>,
    /// What to predict, on the scale of `input_values`.
    pub target_values: Vec<f32>,
}

/// The shape a micro-batch has once it is padded, for a cost model to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaddedShape {
    /// Cells.
    pub n_cells: usize,
    /// Genes of the cell with the longest input.
    pub longest_input: usize,
    /// Genes of the cell with the most targets; 0 for batches without targets.
    pub longest_target: usize,
}

/// Cells padded to one length, row-major `[n_cells, width]`, ready to become tensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PaddedGenes {
    /// Rows.
    pub n_cells: usize,
    /// Columns: the longest cell, rounded up as asked; at least 1, so that no tensor is empty.
    pub width: usize,
    /// Gene tokens `[n_cells, width]`, 0 where padded.
    pub genes: Vec<i32>,
    /// Expression `[n_cells, width]`, 0 where padded.
    pub values: Vec<f32>,
    /// Genes of each cell `[n_cells]`; everything from there to `width` is padding.
    pub lengths: Vec<usize>,
}

impl ExpressionBatch {
    /// How many cells the batch holds.
    pub fn n_cells(&self) -> usize {
        self.rows.len()
    }

    /// Genes and values of one cell.
    pub fn cell(&self, index: usize) -> (&[u32], &[f32]) {
        ragged_row(&self.offsets, &self.genes, &self.values, index)
    }

    /// The batch made of these cells, in this order. Panics if an index is not below [`Self::n_cells`].
    pub fn select(&self, cells: &[usize]) -> Self {
        let (offsets, genes, values) = gather(&self.offsets, &self.genes, &self.values, cells);
        Self { rows: cells.iter().map(|&cell| self.rows[cell]).collect(), offsets, genes, values }
    }

    /// Cuts the batch into parts of similar length whose padded cost stays within `max_cost`.
    ///
    /// As [`MaskedBatch::micro_batches`], with `longest_target` always 0.
    pub fn micro_batches(&self, max_cost: usize, cost: impl Fn(PaddedShape) -> usize) -> Vec<Self> {
        let lengths: Vec<_> = (0..self.n_cells()).map(|cell| (length(&self.offsets, cell), 0)).collect();
        partition_by_cost(&lengths, max_cost, cost).iter().map(|cells| self.select(cells)).collect()
    }

    /// The cells padded to the longest, rounded up to a multiple of `multiple_of` (1: no rounding).
    pub fn pad(&self, multiple_of: usize) -> PaddedGenes {
        pad(&self.offsets, &self.genes, &self.values, multiple_of)
    }
}

impl MaskedBatch {
    /// How many cells the batch holds.
    pub fn n_cells(&self) -> usize {
        self.rows.len()
    }

    /// How many targets all cells have together: what a sum of squared errors is divided by.
    pub fn n_targets(&self) -> usize {
        self.target_genes.len()
    }

    /// Genes and values that one cell shows to the model.
    pub fn input(&self, cell: usize) -> (&[u32], &[f32]) {
        ragged_row(&self.input_offsets, &self.input_genes, &self.input_values, cell)
    }

    /// Genes and values the model must predict for one cell.
    pub fn target(&self, cell: usize) -> (&[u32], &[f32]) {
        ragged_row(&self.target_offsets, &self.target_genes, &self.target_values, cell)
    }

    /// The batch made of these cells, in this order. Panics if an index is not below [`Self::n_cells`].
    pub fn select(&self, cells: &[usize]) -> Self {
        let (input_offsets, input_genes, input_values) =
            gather(&self.input_offsets, &self.input_genes, &self.input_values, cells);
        let (target_offsets, target_genes, target_values) =
            gather(&self.target_offsets, &self.target_genes, &self.target_values, cells);
        Self {
            rows: cells.iter().map(|&cell| self.rows[cell]).collect(),
            input_offsets,
            input_genes,
            input_values,
            target_offsets,
            target_genes,
            target_values,
        }
    }

    /// Cuts the batch into parts of similar length whose padded cost stays within `max_cost`.
    ///
    /// Cells are taken from short to long (ties in batch order) and a part is closed when one more cell would make
    /// `cost` of its padded shape exceed `max_cost`. A cell that alone exceeds it is a part of its own. `cost` is in
    /// the unit of `max_cost`, say bytes of activations, and must not fall when a dimension grows.
    ///
    /// Parts differ in their number of targets: weight each part's loss by [`Self::n_targets`], not by its cells.
    pub fn micro_batches(&self, max_cost: usize, cost: impl Fn(PaddedShape) -> usize) -> Vec<Self> {
        let lengths: Vec<_> = (0..self.n_cells())
            .map(|cell| (length(&self.input_offsets, cell), length(&self.target_offsets, cell)))
            .collect();
        partition_by_cost(&lengths, max_cost, cost).iter().map(|cells| self.select(cells)).collect()
    }

    /// Inputs padded to the longest, rounded up to a multiple of `multiple_of` (1: no rounding).
    ///
    /// Rounding keeps the number of distinct tensor shapes small, which GPU backends that tune kernels a shape like.
    pub fn pad_inputs(&self, multiple_of: usize) -> PaddedGenes {
        pad(&self.input_offsets, &self.input_genes, &self.input_values, multiple_of)
    }

    /// Targets padded as [`Self::pad_inputs`] pads inputs.
    pub fn pad_targets(&self, multiple_of: usize) -> PaddedGenes {
        pad(&self.target_offsets, &self.target_genes, &self.target_values, multiple_of)
    }
}

fn length(offsets: &[usize], row: usize) -> usize {
    offsets[row + 1] - offsets[row]
}

fn ragged_row<'a>(
    offsets: &[usize],
    genes: &'a [u32],
    values: &'a [f32],
    row: usize,
) -> (&'a [u32], &'a [f32]) {
    let range = offsets[row]..offsets[row + 1];
    (&genes[range.clone()], &values[range])
}

fn gather(
    offsets: &[usize],
    genes: &[u32],
    values: &[f32],
    rows: &[usize],
) -> (Vec<usize>, Vec<u32>, Vec<f32>) {
    let total = rows.iter().map(|&row| length(offsets, row)).sum();
    let (mut new_genes, mut new_values) = (Vec::with_capacity(total), Vec::with_capacity(total));
    let mut new_offsets = Vec::with_capacity(rows.len() + 1);
    new_offsets.push(0);
    for &row in rows {
        let (row_genes, row_values) = ragged_row(offsets, genes, values, row);
        new_genes.extend_from_slice(row_genes);
        new_values.extend_from_slice(row_values);
        new_offsets.push(new_genes.len());
    }
    (new_offsets, new_genes, new_values)
}

fn pad(offsets: &[usize], genes: &[u32], values: &[f32], multiple_of: usize) -> PaddedGenes {
    let n_cells = offsets.len().saturating_sub(1);
    let lengths: Vec<usize> = (0..n_cells).map(|row| length(offsets, row)).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0).max(1);
    let width = longest.next_multiple_of(multiple_of.max(1));
    let mut padded = PaddedGenes {
        n_cells,
        width,
        genes: vec![0; n_cells * width],
        values: vec![0.0; n_cells * width],
        lengths,
    };
    for row in 0..n_cells {
        let (row_genes, row_values) = ragged_row(offsets, genes, values, row);
        let start = row * width;
        for (slot, &gene) in padded.genes[start..].iter_mut().zip(row_genes) {
            *slot = gene as i32;
        }
        padded.values[start..start + row_values.len()].copy_from_slice(row_values);
    }
    padded
}

fn partition_by_cost(
    lengths: &[(usize, usize)],
    max_cost: usize,
    cost: impl Fn(PaddedShape) -> usize,
) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&cell| lengths[cell]);
    let mut parts = Vec::new();
    let mut part: Vec<usize> = Vec::new();
    let mut shape = PaddedShape { n_cells: 0, longest_input: 0, longest_target: 0 };
    for cell in order {
        let (input, target) = lengths[cell];
        let grown = PaddedShape {
            n_cells: shape.n_cells + 1,
            longest_input: shape.longest_input.max(input),
            longest_target: shape.longest_target.max(target),
        };
        if !part.is_empty() && cost(grown) > max_cost {
            parts.push(std::mem::take(&mut part));
            shape = PaddedShape { n_cells: 1, longest_input: input, longest_target: target };
        } else {
            shape = grown;
        }
        part.push(cell);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(lengths: &[(usize, usize)]) -> MaskedBatch {
        let mut batch = MaskedBatch { input_offsets: vec![0], target_offsets: vec![0], ..Default::default() };
        for (row, &(input, target)) in lengths.iter().enumerate() {
            batch.rows.push(row as u64);
            batch.input_genes.extend((1..=input as u32).map(|gene| gene + 100 * row as u32));
            batch.input_values.extend((0..input).map(|value| value as f32));
            batch.target_genes.extend((1..=target as u32).map(|gene| gene + 50 + 100 * row as u32));
            batch.target_values.extend((0..target).map(|value| -(value as f32)));
            batch.input_offsets.push(batch.input_genes.len());
            batch.target_offsets.push(batch.target_genes.len());
        }
        batch
    }

    #[test]
    fn padding_keeps_every_gene_and_fills_with_zero() {
        let padded = batch(&[(2, 0), (3, 1)]).pad_inputs(1);
        assert_eq!((padded.n_cells, padded.width), (2, 3));
        assert_eq!(padded.genes, [1, 2, 0, 101, 102, 103]);
        assert_eq!(padded.values, [0.0, 1.0, 0.0, 0.0, 1.0, 2.0]);
        assert_eq!(padded.lengths, [2, 3]);
    }

    #[test]
    fn padded_width_is_rounded_up_and_never_zero() {
        assert_eq!(batch(&[(2, 0), (3, 0)]).pad_inputs(8).width, 8);
        let empty = batch(&[(2, 0), (3, 0)]).pad_targets(1);
        assert_eq!((empty.width, empty.genes, empty.lengths), (1, vec![0, 0], vec![0, 0]));
    }

    #[test]
    fn micro_batches_hold_every_cell_once_within_the_budget() {
        let whole = batch(&[(9, 3), (1, 1), (5, 2), (20, 9), (4, 2), (5, 2)]);
        let cost = |shape: PaddedShape| shape.n_cells * (shape.longest_input + shape.longest_target);
        let parts = whole.micro_batches(21, cost);
        let rows: Vec<Vec<u64>> = parts.iter().map(|part| part.rows.clone()).collect();
        assert_eq!(
            rows,
            [vec![1, 4, 2], vec![5], vec![0], vec![3]],
            "short to long; cell 3 is over budget, alone"
        );
        for part in &parts {
            for cell in 0..part.n_cells() {
                let original = part.rows[cell] as usize;
                assert_eq!(part.input(cell), whole.input(original));
                assert_eq!(part.target(cell), whole.target(original));
            }
        }
        assert_eq!(parts.iter().map(MaskedBatch::n_targets).sum::<usize>(), whole.n_targets());
    }
}
