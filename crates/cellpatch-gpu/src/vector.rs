//! Products with one vector.

use cubecl::prelude::*;

use crate::matrix::{Tail, check_width};
use crate::memory::{Floats, f32_storage};
use crate::tile::{Four, LANES, Stored, lanes_sum};

/// Adds the outer product of two vectors to a matrix.
///
/// - left: `[a]`, `f32`
/// - right: `[b]`
/// - matrix: [a, b], stored as `right`
///
/// # Panics
/// When memory is smaller than stated.
pub(crate) fn add_outer_product<R: Runtime>(
    client: &ComputeClient<R>,
    (left, a): (&Floats, usize),
    (right, b): (&Floats, usize),
    matrix: Tail<'_>,
) {
    let dim = CubeDim::new(client, a * b);
    // SAFETY: sizes are checked against memory, and the kernel stays within them.
    unsafe {
        outer_product_kernel::launch_unchecked::<R>(
            client,
            cubecl::calculate_cube_count_elemwise(client, a * b, dim),
            dim,
            left.argument(a),
            right.argument(b),
            matrix.floats.argument(matrix.first + a * b),
            (a * b) as u32,
            b as u32,
            matrix.first as u32,
            right.storage,
        );
    }
}

#[cube(launch_unchecked)]
fn outer_product_kernel<F: Float>(
    left: &Array<f32>,
    right: &Array<F>,
    matrix: &mut Array<F>,
    n: u32,
    b: u32,
    first: u32,
    #[define(F)] _storage: StorageType,
) {
    let position = ABSOLUTE_POS;
    if position < n as usize {
        let (i, j) = (position / b as usize, position % b as usize);
        let element = first as usize + position;
        let product = left[i] * f32::cast_from(right[j]);
        matrix[element] = F::cast_from(f32::cast_from(matrix[element]) + product);
    }
}

/// The product of each row with a vector.
///
/// - rows: [n, width]; `width` a multiple of 4
/// - vector: `[width]`
/// - plus: `[n]`, `f32`
/// - output: `[n]`, `f32`
///
/// # Panics
/// When memory is smaller than stated, or the width no multiple of 4.
pub(crate) fn row_products<R: Runtime>(
    client: &ComputeClient<R>,
    rows: &Floats,
    n: usize,
    (vector, width): (Tail<'_>, usize),
    plus: Option<&Floats>,
) -> Floats {
    check_width(width);
    let products = Floats::empty(client, n, f32_storage());
    let dim = CubeDim::new(client, n);
    let whole = vector.first + width;
    let added = plus.is_some();
    // What there is not is never read.
    let plus = plus.map_or_else(|| rows.argument(n * width), |plus| plus.argument(n));
    // SAFETY: sizes are checked against memory, and the kernel stays within them.
    unsafe {
        products_kernel::launch_unchecked::<R>(
            client,
            cubecl::calculate_cube_count_elemwise(client, n, dim),
            dim,
            rows.argument(n * width),
            vector.floats.argument(whole),
            plus,
            products.argument(n),
            n as u32,
            vector.vectors(),
            width / LANES,
            added,
            [rows.storage, vector.floats.storage],
        );
    }
    products
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn products_kernel<F: Float, G: Float>(
    rows: &Array<Stored<F>>,
    vector: &Array<Stored<G>>,
    plus: &Array<f32>,
    products: &mut Array<f32>,
    n: u32,
    first: u32,
    #[comptime] columns: usize,
    #[comptime] added: bool,
    #[define(F, G)] _storage: [StorageType; 2],
) {
    let row = ABSOLUTE_POS;
    if row < n as usize {
        let mut sum = Four::new(0.0f32);
        #[unroll]
        for column in 0..columns {
            let element = Four::cast_from(rows[row * columns + column]);
            sum = fma(element, Four::cast_from(vector[first as usize + column]), sum);
        }
        let mut product = lanes_sum(sum);
        if comptime!(added) {
            product += plus[row];
        }
        products[row] = product;
    }
}
