//! Mini-batches for slices of 10^5 to 10^6 cells: tiles of the tissue with everything that their spots read.

use std::ops::Range;
use std::sync::Arc;

use cellpatch_analysis::KdTree;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::expression::Expression;
use crate::graph::{Position, SpatialGraph};
use crate::input::Slice;

/// How far a reconstruction reads: the encoder's neighbours of the decoder's neighbours.
const RINGS: usize = 2;

/// A slice cut into compact tiles of similar size, some of which make a batch (clusters as in Chiang et al. 2019, but with
/// every edge kept).
///
/// A batch holds its tiles' spots and all spots within two steps of them, so the loss of its own spots, and the gradient, are
/// exactly what they are on the whole slice: the losses of an epoch's batches, weighted by their spots, add up to the loss
/// of the slice.
#[derive(Debug, Clone)]
pub struct Tiles {
    graph: SpatialGraph,
    expression: Expression,
    pruned: Option<Arc<[bool]>>,
    tiles: Vec<Vec<u32>>,
    tiles_per_batch: usize,
}

/// One batch of an epoch.
#[derive(Debug, Clone)]
pub struct TileBatch {
    /// What a model takes on a backend ([`SpatialInput::of_slice`](crate::SpatialInput::of_slice)); the batch's own spots come
    /// first.
    pub slice: Slice,
    /// Numbers of all its spots on the slice, the batch's own first.
    pub spots: Vec<u32>,
}

impl Tiles {
    /// Cuts a slice.
    ///
    /// - positions: of the graph's spots; of stacked slices one after the other, so that a tile is a column through them
    /// - spots_per_tile: at most so many
    /// - tiles_per_batch: far apart in general, which makes a batch more like the slice
    ///
    /// # Errors
    ///
    /// [`Error::Disagreement`] if there is not a position and a row of expression for each spot, or a size is 0.
    pub fn new(
        graph: SpatialGraph,
        expression: Expression,
        positions: &[Position],
        spots_per_tile: usize,
        tiles_per_batch: usize,
    ) -> Result<Self> {
        let expected = graph.n_spots();
        for (what, found) in [("positions", positions.len()), ("spots with expression", expression.n_spots())]
        {
            if found != expected {
                return Err(Error::Disagreement { what, found, expected });
            }
        }
        for (what, found) in [("spots of a tile", spots_per_tile), ("tiles of a batch", tiles_per_batch)] {
            if found == 0 {
                return Err(Error::Disagreement { what, found, expected: 1 });
            }
        }
        let tiles = KdTree::new(positions, spots_per_tile).leaves();
        Ok(Self { graph, expression, pruned: None, tiles, tiles_per_batch })
    }

    /// The same with a pruned graph beside it: see [`Slice::with_pruned`].
    ///
    /// # Errors
    ///
    /// [`Error::Disagreement`] if it does not say of every edge whether it has it.
    pub fn with_pruned(mut self, kept: Arc<[bool]>) -> Result<Self> {
        let (found, expected) = (kept.len(), self.graph.n_edges());
        if found != expected {
            return Err(Error::Disagreement { what: "edges of the pruned graph", found, expected });
        }
        self.pruned = Some(kept);
        Ok(self)
    }

    /// Batches of an epoch.
    pub fn n_batches(&self) -> usize {
        self.tiles.len().div_ceil(self.tiles_per_batch)
    }

    /// The own spots of each batch of an epoch: a function of seed and epoch alone, so that any batch can be made at any time.
    pub fn epoch(&self, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
        let mut order: Vec<usize> = (0..self.tiles.len()).collect();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(epoch);
        order.shuffle(&mut random);
        let batch =
            |tiles: &[usize]| tiles.iter().flat_map(|&tile| self.tiles[tile].iter().copied()).collect();
        order.chunks(self.tiles_per_batch).map(batch).collect()
    }

    /// One batch.
    ///
    /// - own: of [`Tiles::epoch`]; distinct
    ///
    /// # Errors
    ///
    /// [`Error::BadGraph`] if a spot is not there or twice.
    pub fn batch(&self, own: &[u32]) -> Result<TileBatch> {
        let Surroundings { graph, spots, edges } = self.graph.around(own)?;
        let expression = self.expression.of_spots(&spots)?;
        let mut slice = Slice::of_core(graph, expression, own.len())?;
        if let Some(pruned) = &self.pruned {
            slice = slice.with_pruned(edges.iter().map(|&edge| pruned[edge]).collect())?;
        }
        Ok(TileBatch { slice, spots })
    }
}

/// Some spots of a graph with all that their reconstruction reads.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Of the spots, by their place in `spots`. The last ones' lists hold themselves only: they are read, but read nothing
    /// that counts.
    pub graph: SpatialGraph,
    /// Their numbers in the whole graph: first the ones asked for, then those one step away, then those two steps away.
    pub spots: Vec<u32>,
    /// Of each edge, its number in the whole graph.
    pub edges: Vec<usize>,
}

impl SpatialGraph {
    /// Some spots with everything that their reconstruction reads.
    ///
    /// # Errors
    ///
    /// [`Error::BadGraph`] if a spot is not there or twice.
    pub fn around(&self, own: &[u32]) -> Result<Surroundings> {
        let n_spots = self.n_spots();
        let mut place = vec![u32::MAX; n_spots];
        let mut spots = Vec::with_capacity(2 * own.len());
        let mut meet = |spot: u32, spots: &mut Vec<u32>| {
            let Some(place) = place.get_mut(spot as usize) else { return Err(Error::BadGraph { n_spots }) };
            let met = *place != u32::MAX;
            if !met {
                *place = spots.len() as u32;
                spots.push(spot);
            }
            Ok(met)
        };
        for &spot in own {
            if meet(spot, &mut spots)? {
                return Err(Error::BadGraph { n_spots });
            }
        }
        let mut ring: Range<usize> = 0..own.len();
        let mut n_reading = 0;
        for _ in 0..RINGS {
            n_reading = ring.end;
            for index in ring.clone() {
                for &source in self.neighbors(spots[index] as usize) {
                    meet(source, &mut spots)?;
                }
            }
            ring = ring.end..spots.len();
        }
        let mut lists = Vec::with_capacity(spots.len());
        let mut edges = Vec::new();
        for (index, &spot) in spots.iter().enumerate() {
            let all = self.adjacency().edges(spot as usize).zip(self.neighbors(spot as usize));
            let read = all.filter(|&(_, &source)| index < n_reading || source == spot);
            let mut list: Vec<(u32, usize)> =
                read.map(|(edge, &source)| (place[source as usize], edge)).collect();
            list.sort_unstable();
            edges.extend(list.iter().map(|entry| entry.1));
            lists.push(list.into_iter().map(|entry| entry.0).collect());
        }
        Ok(Surroundings { graph: Self::from_lists(lists)?, spots, edges })
    }
}
