//! Lists of neighbours in both directions.

use cellpatch_kernels::graph;
use cubecl::prelude::*;

use crate::buffer::Buffer;

/// Who reads whom, on a device: of each spot the spots it reads, and of each spot the edges by which it is read. Cloning is
/// cheap.
#[derive(Debug, Clone)]
pub struct Adjacency {
    /// [spots + 1]
    pub(super) starts: Buffer<u32>,
    /// The spots that are read: `[edges]`.
    pub(super) sources: Buffer<u32>,
    /// The spots that read: `[edges]`.
    pub(super) targets: Buffer<u32>,
    /// Where the lists of readers begin, and where the last ends: [spots + 1].
    pub(super) back_starts: Buffer<u32>,
    /// The spots that read, in the order of readers' lists: `[edges]`.
    pub(super) back_targets: Buffer<u32>,
    /// By which edges they do: `[edges]`.
    pub(super) back_edges: Buffer<u32>,
    all: Edges,
}

/// A choice among a graph's edges, on a device: `[edges]`, 1 where an edge counts and 0 where not. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Edges(pub(super) Buffer<u32>);

impl Edges {
    /// A copy of the choice.
    pub fn new<R: Runtime>(client: &ComputeClient<R>, kept: &[bool]) -> Self {
        let kept: Vec<u32> = kept.iter().map(|&kept| u32::from(kept)).collect();
        Self(Buffer::of(client, &kept))
    }
}

impl Adjacency {
    /// A copy of the lists.
    pub fn new<R: Runtime>(client: &ComputeClient<R>, adjacency: &graph::Adjacency) -> Self {
        // Lists have fewer than 2^32 edges.
        let starts: Vec<u32> = adjacency.starts().iter().map(|&start| start as u32).collect();
        let mut targets = Vec::with_capacity(adjacency.n_edges());
        let (mut back_starts, mut back_targets, mut back_edges) = (vec![0], Vec::new(), Vec::new());
        for spot in 0..adjacency.n_spots() {
            targets.resize(adjacency.edges(spot).end, spot as u32);
            let (readers, edges) = adjacency.readers(spot);
            back_targets.extend_from_slice(readers);
            back_edges.extend_from_slice(edges);
            back_starts.push(back_edges.len() as u32);
        }
        Self {
            starts: Buffer::of(client, &starts),
            sources: Buffer::of(client, adjacency.sources()),
            targets: Buffer::of(client, &targets),
            back_starts: Buffer::of(client, &back_starts),
            back_targets: Buffer::of(client, &back_targets),
            back_edges: Buffer::of(client, &back_edges),
            all: Edges::new(client, &vec![true; adjacency.n_edges()]),
        }
    }

    /// Spots.
    pub fn n_spots(&self) -> usize {
        self.starts.len() - 1
    }

    /// Edges, all lists together.
    pub fn n_edges(&self) -> usize {
        self.sources.len()
    }

    /// Every edge.
    pub fn all(&self) -> &Edges {
        &self.all
    }
}
