//! What a graph looks like, in numbers.

use super::SpatialGraph;

/// How many neighbours spots have, not counting themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct NeighborStatistics {
    /// Neighbours of a spot on average.
    pub mean: f64,
    /// Of the spot with fewest.
    pub min: usize,
    /// Of the spot with most.
    pub max: usize,
    /// Spots without any.
    pub n_isolated: usize,
    /// Spots with 0, 1, 2, ... neighbours, up to the most.
    pub distribution: Vec<usize>,
}

impl NeighborStatistics {
    /// Of the numbers of neighbours of spots.
    pub fn of(counts: impl IntoIterator<Item = usize>) -> Self {
        let mut distribution = Vec::new();
        for count in counts {
            if distribution.len() <= count {
                distribution.resize(count + 1, 0);
            }
            distribution[count] += 1;
        }
        let n_spots: usize = distribution.iter().sum();
        let n_neighbors: usize = distribution.iter().enumerate().map(|(count, spots)| count * spots).sum();
        Self {
            mean: n_neighbors as f64 / n_spots.max(1) as f64,
            min: distribution.iter().position(|&spots| spots > 0).unwrap_or(0),
            max: distribution.len().saturating_sub(1),
            n_isolated: distribution.first().copied().unwrap_or(0),
            distribution,
        }
    }
}

/// Parts of a graph between which there is no edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components {
    /// Of each spot, the number of its part; parts are numbered by their first spot.
    pub of_spot: Vec<u32>,
    /// Spots of each part.
    pub sizes: Vec<usize>,
}

impl SpatialGraph {
    /// How many neighbours spots have, not counting themselves.
    pub fn statistics(&self) -> NeighborStatistics {
        NeighborStatistics::of((0..self.n_spots()).map(|spot| self.neighbors(spot).len() - 1))
    }

    /// The graph's connected parts, whatever the direction of edges.
    pub fn components(&self) -> Components {
        let mut parents: Vec<u32> = (0..self.n_spots() as u32).collect();
        for (source, target) in self.edges() {
            let (a, b) = (root(&mut parents, source), root(&mut parents, target));
            // The lower number is the root, so that parts are met by their first spot.
            parents[a.max(b) as usize] = a.min(b);
        }
        let mut sizes = Vec::new();
        let mut of_spot = Vec::with_capacity(parents.len());
        for spot in 0..parents.len() as u32 {
            let first = root(&mut parents, spot);
            if first == spot {
                of_spot.push(sizes.len() as u32);
                sizes.push(0);
            } else {
                of_spot.push(of_spot[first as usize]);
            }
            sizes[of_spot[spot as usize] as usize] += 1;
        }
        Components { of_spot, sizes }
    }
}

/// The root of a spot's part; spots on the way are moved closer to it.
fn root(parents: &mut [u32], spot: u32) -> u32 {
    let mut spot = spot;
    while parents[spot as usize] != spot {
        let above = parents[spot as usize];
        parents[spot as usize] = parents[above as usize];
        spot = above;
    }
    spot
}
