//! Products of small matrices with many rows, in a fixed order of sums.
//!
//! A row's result depends on that row and the weights only, never on how many rows there are or which thread computes it.

use crate::simd::{Simd, Vectorized};

/// Where the elements of a matrix lie: rows `row` elements apart; columns in groups of `group`, which are side by side,
/// and the groups `next_group` apart. A row-major matrix is one group; one block a head is `group = H`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) row: usize,
    pub(crate) group: usize,
    pub(crate) next_group: usize,
}

impl Layout {
    pub(crate) fn row_major(n_columns: usize) -> Self {
        Self { row: n_columns, group: n_columns, next_group: 0 }
    }

    /// One block of `n_rows x head_dim` for each head.
    pub(crate) fn by_head(n_rows: usize, head_dim: usize) -> Self {
        Self { row: head_dim, group: head_dim, next_group: n_rows * head_dim }
    }

    #[inline(always)]
    fn offset(&self, row: usize, column: usize) -> usize {
        row * self.row + column / self.group * self.next_group + column % self.group
    }
}

/// What a product does with what is in the output already.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Replaces it by the bias and the product.
    Bias(&'a [f32]),
    /// Replaces it by the product.
    Zero,
    /// Adds the product to it.
    Accumulate,
}

/// `output[r, c] = start[c] + sum over i of input[r, i] weights[i, c]`.
///
/// - weights: [n_in, n_out], row-major; `n_out` a multiple of the lanes
pub(crate) fn multiply<S: Simd>(
    (input, input_layout): (&[f32], Layout),
    n_rows: usize,
    weights: &[f32],
    n_out: usize,
    start: Start<'_>,
    (output, output_layout): (&mut [f32], Layout),
) {
    S::call(Multiply { input, input_layout, n_rows, weights, n_out, start, output, output_layout });
}

struct Multiply<'a> {
    input: &'a [f32],
    input_layout: Layout,
    n_rows: usize,
    weights: &'a [f32],
    n_out: usize,
    start: Start<'a>,
    output: &'a mut [f32],
    output_layout: Layout,
}

impl Vectorized for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        let Self { input, input_layout, n_rows, weights, n_out, start, output, output_layout } = self;
        let mut column = 0;
        while column < n_out {
            let product = Product { input, input_layout, weights, n_out, column, start, output_layout };
            let wide = column + 2 * S::LANES <= n_out;
            let mut row = 0;
            while row + K <= n_rows {
                match wide {
                    true => product.tile::<S, K, 2>(row, output),
                    false => product.tile::<S, K, 1>(row, output),
                }
                row += K;
            }
            while row < n_rows {
                match wide {
                    true => product.tile::<S, 1, 2>(row, output),
                    false => product.tile::<S, 1, 1>(row, output),
                }
                row += 1;
            }
            column += if wide { 2 * S::LANES } else { S::LANES };
        }
    }
}

/// A product's columns from `column` on.
#[derive(Clone, Copy)]
struct Product<'a> {
    input: &'a [f32],
    input_layout: Layout,
    weights: &'a [f32],
    n_out: usize,
    column: usize,
    start: Start<'a>,
    output_layout: Layout,
}

impl Product<'_> {
    /// `K` rows times `V` vectors of columns.
    #[inline(always)]
    fn tile<S: Simd, const K: usize, const V: usize>(&self, first_row: usize, output: &mut [f32]) {
        let mut sums = [[S::splat(0.0); V]; K];
        for (row, sums) in sums.iter_mut().enumerate() {
            for (vector, sum) in sums.iter_mut().enumerate() {
                let column = self.column + vector * S::LANES;
                *sum = match self.start {
                    Start::Bias(bias) => S::load(&bias[column..]),
                    Start::Zero => S::splat(0.0),
                    Start::Accumulate => {
                        S::load(&output[self.output_layout.offset(first_row + row, column)..])
                    }
                };
            }
        }
        let group = self.input_layout.group;
        for (index, weights) in self.weights.chunks_exact(group * self.n_out).enumerate() {
            let mut rows: [&[f32]; K] = [&[]; K];
            for (row, elements) in rows.iter_mut().enumerate() {
                let first = self.input_layout.offset(first_row + row, index * group);
                *elements = &self.input[first..][..group];
            }
            for (i, weights) in weights.chunks_exact(self.n_out).enumerate() {
                let weights = vectors::<S, V>(&weights[self.column..]);
                for row in 0..K {
                    let element = S::splat(rows[row][i]);
                    for vector in 0..V {
                        sums[row][vector] = S::fma(element, weights[vector], sums[row][vector]);
                    }
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                let column = self.column + vector * S::LANES;
                S::store(*sum, &mut output[self.output_layout.offset(first_row + row, column)..]);
            }
        }
    }
}

/// `output[i, c] += sum over r of left[r, i] right[r, c]`: the gradient of a weight from its input and its output's
/// gradient.
///
/// - right: [n_rows, n_right], row-major; `n_right` a multiple of the lanes
/// - output: [n_left, n_right], row-major
pub(crate) fn add_outer_products<S: Simd>(
    (left, left_layout): (&[f32], Layout),
    n_left: usize,
    right: &[f32],
    n_right: usize,
    n_rows: usize,
    output: &mut [f32],
) {
    S::call(AddOuterProducts { left, left_layout, n_left, right, n_right, n_rows, output });
}

struct AddOuterProducts<'a> {
    left: &'a [f32],
    left_layout: Layout,
    n_left: usize,
    right: &'a [f32],
    n_right: usize,
    n_rows: usize,
    output: &'a mut [f32],
}

impl Vectorized for AddOuterProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        let Self { left, left_layout, n_left, right, n_right, n_rows, output } = self;
        let mut column = 0;
        while column < n_right {
            let outer =
                OuterProducts { left, left_layout, right: &right[..n_rows * n_right], n_right, column };
            let wide = column + 2 * S::LANES <= n_right;
            let mut i = 0;
            // Tiles of K columns of the left matrix never cross its groups: these are multiples of the lanes.
            while i + K <= n_left {
                match wide {
                    true => outer.tile::<S, K, 2>(i, output),
                    false => outer.tile::<S, K, 1>(i, output),
                }
                i += K;
            }
            while i < n_left {
                match wide {
                    true => outer.tile::<S, 1, 2>(i, output),
                    false => outer.tile::<S, 1, 1>(i, output),
                }
                i += 1;
            }
            column += if wide { 2 * S::LANES } else { S::LANES };
        }
    }
}

#[derive(Clone, Copy)]
struct OuterProducts<'a> {
    left: &'a [f32],
    left_layout: Layout,
    right: &'a [f32],
    n_right: usize,
    column: usize,
}

impl OuterProducts<'_> {
    #[inline(always)]
    fn tile<S: Simd, const K: usize, const V: usize>(&self, first: usize, output: &mut [f32]) {
        let mut sums = [[S::splat(0.0); V]; K];
        for (i, sums) in sums.iter_mut().enumerate() {
            *sums = vectors::<S, V>(&output[(first + i) * self.n_right + self.column..]);
        }
        let left = &self.left[self.left_layout.offset(0, first)..];
        let left = left.chunks(self.left_layout.row);
        for (right, left) in self.right.chunks_exact(self.n_right).zip(left) {
            let left = &left[..K];
            let right = vectors::<S, V>(&right[self.column..]);
            for i in 0..K {
                let element = S::splat(left[i]);
                for vector in 0..V {
                    sums[i][vector] = S::fma(element, right[vector], sums[i][vector]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                let column = self.column + vector * S::LANES;
                S::store(*sum, &mut output[(first + i) * self.n_right + column..]);
            }
        }
    }
}

/// The first `V` vectors of a row.
#[inline(always)]
fn vectors<S: Simd, const V: usize>(row: &[f32]) -> [S::Vector; V] {
    let mut vectors = [S::splat(0.0); V];
    for (index, vector) in vectors.iter_mut().enumerate() {
        *vector = S::load(&row[index * S::LANES..]);
    }
    vectors
}

/// `output[c] += sum over r of rows[r, c]`.
///
/// - rows: `n_columns` a multiple of the lanes and of the layout's groups
#[inline(always)]
pub(crate) fn add_column_sums<S: Simd>(
    (rows, layout): (&[f32], Layout),
    n_rows: usize,
    n_columns: usize,
    output: &mut [f32],
) {
    for column in (0..n_columns).step_by(S::LANES) {
        let mut sum = S::load(&output[column..]);
        let first = layout.offset(0, column);
        for row in 0..n_rows {
            sum = S::add(sum, S::load(&rows[first + row * layout.row..]));
        }
        S::store(sum, &mut output[column..]);
    }
}

/// The transpose of a row-major matrix [n_rows, n_columns].
pub(crate) fn transposed(matrix: &[f32], n_columns: usize) -> Vec<f32> {
    let n_rows = matrix.len() / n_columns;
    (0..matrix.len()).map(|index| matrix[index % n_rows * n_columns + index / n_rows]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Instructions, dispatch};

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0 - 0.5).collect()
    }

    struct Everything<'a> {
        rows: &'a [f32],
        layout: Layout,
        n_rows: usize,
        weights: &'a [f32],
        bias: &'a [f32],
        gradient: &'a [f32],
    }

    impl Vectorized for Everything<'_> {
        /// The product, the outer products added to ones, and the column sums.
        type Output = [Vec<f32>; 3];

        #[inline(always)]
        fn run<S: Simd, const K: usize, const Q: usize>(self) -> [Vec<f32>; 3] {
            let (n_out, n_in) = (self.bias.len(), self.weights.len() / self.bias.len());
            let mut product = vec![0.0; self.n_rows * n_out];
            let input = (self.rows, self.layout);
            let output = Layout::row_major(n_out);
            let start = Start::Bias(self.bias);
            multiply::<S>(input, self.n_rows, self.weights, n_out, start, (&mut product, output));
            let mut outer = vec![1.0; n_in * n_out];
            add_outer_products::<S>(input, n_in, self.gradient, n_out, self.n_rows, &mut outer);
            let mut sums = vec![1.0; n_out];
            add_column_sums::<S>((self.gradient, output), self.n_rows, n_out, &mut sums);
            [product, outer, sums]
        }
    }

    #[test]
    fn products_are_what_three_loops_say() {
        for (n_rows, n_in, n_out, head) in
            [(1, 32, 32, 16), (13, 32, 64, 16), (64, 64, 32, 32), (9, 48, 48, 16)]
        {
            let by_head = numbers(n_rows * n_in, 1);
            let layout = Layout::by_head(n_rows, head);
            let element =
                |row: usize, i: usize| f64::from(by_head[(i / head * n_rows + row) * head + i % head]);
            let (weights, bias) = (numbers(n_in * n_out, 2), numbers(n_out, 3));
            let gradient = numbers(n_rows * n_out, 4);
            for instructions in Instructions::available() {
                let (rows, weights, bias, gradient) = (&by_head[..], &weights[..], &bias[..], &gradient[..]);
                let work = Everything { rows, layout, n_rows, weights, bias, gradient };
                let [product, outer, sums] = dispatch(instructions, work);
                let close = |found: f32, exact: f64| {
                    assert!((f64::from(found) - exact).abs() < 1e-5, "{found} {exact} with {instructions:?}");
                };
                for out in 0..n_out {
                    let of_gradient = |row: usize| f64::from(gradient[row * n_out + out]);
                    for row in 0..n_rows {
                        let terms = (0..n_in).map(|i| element(row, i) * f64::from(weights[i * n_out + out]));
                        close(product[row * n_out + out], f64::from(bias[out]) + terms.sum::<f64>());
                    }
                    for i in 0..n_in {
                        let terms = (0..n_rows).map(|row| element(row, i) * of_gradient(row));
                        close(outer[i * n_out + out], 1.0 + terms.sum::<f64>());
                    }
                    close(sums[out], 1.0 + (0..n_rows).map(of_gradient).sum::<f64>());
                }
            }
        }
    }

    #[test]
    fn a_matrix_is_transposed() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
