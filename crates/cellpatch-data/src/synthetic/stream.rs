//! Random streams addressed by what they are for, so that no number depends on the order of work.

use crate::random::{self, Purpose, RandomStream};

/// What a stream decides. The numbers fix what a seed means: never renumber them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Part {
    /// Levels and dispersions of genes.
    Genes = 0,
    /// Background differences of one role (a cell type or a lineage).
    Role = 1,
    /// Gene loadings of one programme.
    Program = 2,
    /// One donor.
    Donor = 3,
    /// One batch.
    Batch = 4,
    /// Programme levels of one cell type.
    CellType = 5,
    /// One cell.
    Cell = 6,
}

/// The stream of one `item` of a part under a seed.
pub(super) fn stream(seed: u64, part: Part, item: usize) -> RandomStream {
    random::stream(seed, Purpose::Synthesis, part as u64, item as u64)
}
