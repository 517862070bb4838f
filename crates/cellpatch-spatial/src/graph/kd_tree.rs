//! A k-d tree over positions: exact neighbours whatever the density (Bentley 1975).

use std::ops::Range;

use super::Position;

/// A balanced tree: a node halves its positions at the median of the wider side. Nodes lie as in a binary heap.
#[derive(Debug)]
pub(crate) struct KdTree<'a> {
    positions: &'a [Position],
    /// Spots, those of a node side by side.
    order: Vec<u32>,
    splits: Vec<Split>,
    leaf: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Split {
    axis: usize,
    /// No spot of the first half lies beyond it, none of the second before it.
    at: f64,
}

/// A spot and the square of its distance.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Near {
    pub(crate) squared: f64,
    pub(crate) spot: u32,
}

pub(crate) fn squared_distance(a: Position, b: Position) -> f64 {
    let (x, y) = (a[0] - b[0], a[1] - b[1]);
    x * x + y * y
}

impl<'a> KdTree<'a> {
    /// - positions: finite
    /// - leaf: a node of so many positions is not halved any more; at least 1
    pub(crate) fn new(positions: &'a [Position], leaf: usize) -> Self {
        let order = (0..positions.len() as u32).collect();
        let mut tree = Self { positions, order, splits: Vec::new(), leaf: leaf.max(1) };
        tree.halve(0, 0..positions.len());
        tree
    }

    fn halve(&mut self, node: usize, range: Range<usize>) {
        if range.len() <= self.leaf {
            return;
        }
        let positions = self.positions;
        let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        for &spot in &self.order[range.clone()] {
            for axis in 0..2 {
                low[axis] = low[axis].min(positions[spot as usize][axis]);
                high[axis] = high[axis].max(positions[spot as usize][axis]);
            }
        }
        let axis = usize::from(high[1] - low[1] > high[0] - low[0]);
        let middle = range.len() / 2;
        // Ties by number, so that the tree is a function of the positions.
        let (_, median, _) = self.order[range.clone()].select_nth_unstable_by(middle, |&a, &b| {
            positions[a as usize][axis].total_cmp(&positions[b as usize][axis]).then(a.cmp(&b))
        });
        let at = positions[*median as usize][axis];
        if self.splits.len() <= node {
            self.splits.resize(node + 1, Split::default());
        }
        self.splits[node] = Split { axis, at };
        let middle = range.start + middle;
        self.halve(2 * node + 1, range.start..middle);
        self.halve(2 * node + 2, middle..range.end);
    }

    /// Calls with every spot whose squared distance from a position is not above the limit, and that square.
    pub(crate) fn within(&self, position: Position, squared: f64, found: &mut impl FnMut(Near)) {
        self.visit_within(0, 0..self.order.len(), position, squared, found);
    }

    fn visit_within(
        &self,
        node: usize,
        range: Range<usize>,
        position: Position,
        limit: f64,
        found: &mut impl FnMut(Near),
    ) {
        if range.len() <= self.leaf {
            for &spot in &self.order[range] {
                let squared = squared_distance(position, self.positions[spot as usize]);
                if squared <= limit {
                    found(Near { squared, spot });
                }
            }
            return;
        }
        let Split { axis, at } = self.splits[node];
        let beyond = position[axis] - at;
        let middle = range.start + range.len() / 2;
        if beyond <= 0.0 || beyond * beyond <= limit {
            self.visit_within(2 * node + 1, range.start..middle, position, limit, found);
        }
        if beyond >= 0.0 || beyond * beyond <= limit {
            self.visit_within(2 * node + 2, middle..range.end, position, limit, found);
        }
    }

    /// The `k` nearest of the other spots, the nearest first; of equally far ones those of lower number.
    pub(crate) fn nearest(&self, spot: usize, k: usize) -> Vec<Near> {
        let mut nearest = Vec::with_capacity(k + 1);
        self.visit_nearest(0, 0..self.order.len(), spot, k, &mut nearest);
        nearest
    }

    fn visit_nearest(&self, node: usize, range: Range<usize>, of: usize, k: usize, nearest: &mut Vec<Near>) {
        let position = self.positions[of];
        if range.len() <= self.leaf {
            for &spot in &self.order[range] {
                if spot as usize == of {
                    continue;
                }
                let near = Near { squared: squared_distance(position, self.positions[spot as usize]), spot };
                let place = nearest.partition_point(|other| *other <= near);
                if place < k {
                    nearest.insert(place, near);
                    nearest.truncate(k);
                }
            }
            return;
        }
        let Split { axis, at } = self.splits[node];
        let beyond = position[axis] - at;
        let middle = range.start + range.len() / 2;
        let halves = [(2 * node + 1, range.start..middle), (2 * node + 2, middle..range.end)];
        let [near, far] = if beyond <= 0.0 {
            halves
        } else {
            let [a, b] = halves;
            [b, a]
        };
        self.visit_nearest(near.0, near.1, of, k, nearest);
        let full = nearest.len() == k;
        if !full || nearest.last().is_some_and(|last| beyond * beyond <= last.squared) {
            self.visit_nearest(far.0, far.1, of, k, nearest);
        }
    }

    /// Spots of each node that was not halved any more, neighbours in the tree one after the other.
    pub(crate) fn leaves(&self) -> Vec<Vec<u32>> {
        let mut leaves = Vec::new();
        self.visit_leaves(0..self.order.len(), &mut leaves);
        leaves
    }

    fn visit_leaves(&self, range: Range<usize>, leaves: &mut Vec<Vec<u32>>) {
        if range.len() <= self.leaf {
            if !range.is_empty() {
                leaves.push(self.order[range].to_vec());
            }
            return;
        }
        let middle = range.start + range.len() / 2;
        self.visit_leaves(range.start..middle, leaves);
        self.visit_leaves(middle..range.end, leaves);
    }
}
