//! Lists of neighbours in both directions.

/// Who reads whom: of each spot the spots it reads, and of each spot the edges by which it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjacency {
    starts: Vec<usize>,
    sources: Vec<u32>,
    back_starts: Vec<usize>,
    back_targets: Vec<u32>,
    back_edges: Vec<u32>,
}

impl Adjacency {
    /// - starts: where each spot's list begins, and where the last's ends: [spots + 1]
    /// - sources: the spots it reads, strictly ascending within a list: `[edges]`
    /// - output: `None` where that does not hold
    pub fn new(starts: Vec<usize>, sources: Vec<u32>) -> Option<Self> {
        let n = starts.len().checked_sub(1)?;
        if starts[0] != 0
            || starts[n] != sources.len()
            || !starts.is_sorted()
            || sources.len() > u32::MAX as usize
        {
            return None;
        }
        let ordered = starts.windows(2).all(|list| {
            let list = &sources[list[0]..list[1]];
            list.is_sorted_by(|a, b| a < b) && list.last().is_none_or(|&last| (last as usize) < n)
        });
        if !ordered {
            return None;
        }
        let mut back_starts = vec![0_usize; n + 1];
        for &source in &sources {
            back_starts[source as usize + 1] += 1;
        }
        for spot in 0..n {
            back_starts[spot + 1] += back_starts[spot];
        }
        let mut next = back_starts.clone();
        let (mut back_targets, mut back_edges) = (vec![0; sources.len()], vec![0; sources.len()]);
        for target in 0..n {
            for edge in starts[target]..starts[target + 1] {
                let position = &mut next[sources[edge] as usize];
                back_targets[*position] = target as u32;
                back_edges[*position] = edge as u32;
                *position += 1;
            }
        }
        Some(Self { starts, sources, back_starts, back_targets, back_edges })
    }

    /// Spots.
    pub fn n_spots(&self) -> usize {
        self.starts.len() - 1
    }

    /// Edges, all lists together.
    pub fn n_edges(&self) -> usize {
        self.sources.len()
    }

    /// Where each spot's list begins among the edges, and where the last's ends.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// The spots that are read: of each edge, ordered by the spot that reads.
    pub fn sources(&self) -> &[u32] {
        &self.sources
    }

    /// Numbers of the edges by which a spot reads.
    pub fn edges(&self, spot: usize) -> std::ops::Range<usize> {
        self.starts[spot]..self.starts[spot + 1]
    }

    /// Who reads a spot, and by which edges.
    pub fn readers(&self, spot: usize) -> (&[u32], &[u32]) {
        let range = self.back_starts[spot]..self.back_starts[spot + 1];
        (&self.back_targets[range.clone()], &self.back_edges[range])
    }
}
