//! Attention by tensor cores, for heads of 16 numbers stored with 16 bits (Dao 2024, "FlashAttention-2").
//!
//! A plane owns 16 rows, queries or keys, and takes the rows of the other side from shared memory, 64 at a time. Products are of
//! 16-bit floats with sums of 32 bits; scores, softmax and all that is gathered stay in registers with 32 bits. What the
//! tensor cores return for one product is laid out as they take the left factor of the next, so scores never leave their unit.
//!
//! Fragments are those of PTX's `mma.m16n8k16`: with `group = lane / 4` and `member = lane % 4`, a unit holds of the left factor the
//! pairs of columns `2 member` and `2 member + 8` of rows `group` and `group + 8`, of the right factor the same pairs of rows of
//! column `group`, and of the sum columns `2 member` and `2 member + 1` of rows `group` and `group + 8`.

mod backward;
mod forward;
mod tile;

pub(super) use self::backward::attention_backward;
pub(super) use self::forward::attention_forward;

use cubecl::cmma::MmaDefinition;
use cubecl::ir::features::MmaConfig;
use cubecl::prelude::*;

use super::{AttentionInput, Place, Sizes};
use crate::memory::f32_storage;
use crate::workgroup;

/// Two floats as they are stored.
type Pair<F> = Vector<F, Const<2>>;
/// Two floats that are computed with.
type Wide2 = Vector<f32, Const<2>>;

/// The width of heads that are served: the depth of one product.
const HEAD: usize = 16;
/// Pairs of a head's row.
const PAIRS: usize = HEAD / 2;
/// Rows of a plane.
const OWN: usize = 16;
/// Planes of a workgroup.
const PLANES: usize = 4;
/// Units of a plane.
const PLANE: usize = 32;
/// Rows of a workgroup.
const ROWS: usize = OWN * PLANES;
/// Rows of the other side that lie in shared memory.
const TILE: usize = 64;
/// Columns of one product.
const BLOCK: usize = 8;

/// Whether the device's tensor cores serve the call; what it stores must be stored alike.
pub(super) fn serves<R: Runtime>(client: &ComputeClient<R>, input: &AttentionInput<'_>) -> bool {
    let properties = client.properties();
    let storage = input.queries.storage;
    let config = MmaConfig { a_type: storage, b_type: storage, cd_type: f32_storage(), m: 16, n: 8, k: 16 };
    let plane = PLANE as u32;
    input.width == input.n_heads * HEAD
        && properties.features.matmul.mma.contains(&config)
        && properties.hardware.plane_size_min == plane
        && properties.hardware.plane_size_max == plane
}

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    /// Pairs of a row.
    width: usize,
    /// Whether all cells ask the same.
    shared: bool,
    dropping: bool,
    /// Whether keys and values are those of genes.
    genes: bool,
}

impl Plan {
    fn new(input: &AttentionInput<'_>) -> Self {
        Self {
            width: input.width / 2,
            shared: input.queries_are_shared,
            dropping: input.dropout().drops(),
            genes: input.genes.is_some(),
        }
    }
}

/// One workgroup for each tile of rows, head and cell.
fn grid<R: Runtime>(client: &ComputeClient<R>, input: &AttentionInput<'_>, rows: usize) -> CubeCount {
    let tiles = workgroup::tiles(rows, ROWS as u32);
    workgroup::grid(client, tiles, input.n_heads as u32, input.n_cells as u32)
}

fn units() -> CubeDim {
    CubeDim::new_1d((PLANE * PLANES) as u32)
}

/// Which part of fragments a unit holds.
#[derive(CubeType, Clone, Copy)]
struct Lane {
    group: usize,
    member: usize,
    /// The first of the two rows that it holds parts of; the second is 8 further.
    row: usize,
}

#[cube]
fn lane(place: Place) -> Lane {
    let unit = UNIT_POS as usize;
    let (plane, lane) = (unit / PLANE, unit % PLANE);
    let group = lane / 4usize;
    Lane { group, member: lane % 4usize, row: place.first + plane * OWN + group }
}

#[cube]
fn place() -> Place {
    Place { cell: CUBE_POS_Z as usize, head: CUBE_POS_Y as usize, first: CUBE_POS_X as usize * ROWS }
}

/// Pair where a row of a cell's head begins.
#[cube]
fn pair_of(place: Place, padded: u32, row: usize, #[comptime] plan: Plan) -> usize {
    (place.cell * padded as usize + row) * comptime!(plan.width) + place.head * PAIRS
}

/// Pair where a row of a cell's queries begins.
#[cube]
fn query_pair(place: Place, sizes: &Sizes, row: usize, #[comptime] plan: Plan) -> usize {
    let mut cell = place.cell;
    if comptime!(plan.shared) {
        cell = 0usize;
    }
    pair_of(Place { cell, head: place.head, first: place.first }, sizes.queries, row, plan)
}

/// Adds a product: 16 x 16 of the left factor, 16 x 8 of the right, to 16 x 8.
#[cube]
fn add_product<F: Float>(left: &Array<Pair<F>>, right: &Array<Pair<F>>, sum: &mut Array<Wide2>) {
    let definition = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    definition.execute_inplace(left, right, sum);
}

/// A part of a sum, 0.
#[cube]
fn nothing() -> Array<Wide2> {
    let mut sum = Array::<Wide2>::new(2usize);
    #[unroll]
    for row in 0..2usize {
        sum[row] = Wide2::new(0.0f32);
    }
    sum
}

#[cube]
fn pair<F: Float>(first: f32, second: f32) -> Pair<F> {
    let mut pair = Pair::<F>::new(F::from_int(0i64));
    pair[0] = F::cast_from(first);
    pair[1] = F::cast_from(second);
    pair
}

/// The parts of two rows of plain rows, as a left factor; 0 where a row is not wanted.
#[cube]
fn left_factor<F: Float>(
    rows: &Array<Pair<F>>,
    lane: Lane,
    first: usize,
    second: usize,
    n: usize,
) -> Array<Pair<F>> {
    let mut factor = Array::<Pair<F>>::new(4usize);
    #[unroll]
    for part in 0..4usize {
        let from = if comptime!(part % 2 == 0) { first } else { second };
        let mut numbers = pair::<F>(0.0f32, 0.0f32);
        if lane.row + comptime!(part % 2 * 8) < n {
            numbers = rows[from + comptime!(part / 2 * 4) + lane.member];
        }
        factor[part] = numbers;
    }
    factor
}

/// The sum of a number over the units that share a row.
#[cube]
fn sum_of_row(number: f32) -> f32 {
    let sum = number + plane_shuffle_xor(number, 1u32);
    sum + plane_shuffle_xor(sum, 2u32)
}
