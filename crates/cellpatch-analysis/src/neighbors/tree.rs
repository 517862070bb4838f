//! A k-d tree over places in the plane: exact neighbours whatever the density (Bentley 1975).

use std::ops::Range;

/// A balanced tree over places in the plane: a node halves its places at the median of the wider side. The same places give
/// the same tree.
#[derive(Debug)]
pub struct KdTree<'a> {
    places: &'a [[f64; 2]],
    /// Numbers of places, those of a node side by side.
    order: Vec<u32>,
    /// Nodes as in a binary heap.
    splits: Vec<Split>,
    leaf: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Split {
    axis: usize,
    /// No place of the first half lies beyond it, none of the second before it.
    at: f64,
}

/// A place that was found.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct NearPlace {
    /// The square of its distance.
    pub squared: f64,
    /// Its number.
    pub place: u32,
}

fn squared_distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    let (x, y) = (a[0] - b[0], a[1] - b[1]);
    x * x + y * y
}

impl<'a> KdTree<'a> {
    /// - `places`: finite, at most 4 billion
    /// - `leaf`: a node of so many places is not halved any more; at least 1
    pub fn new(places: &'a [[f64; 2]], leaf: usize) -> Self {
        let order = (0..places.len() as u32).collect();
        let mut tree = Self { places, order, splits: Vec::new(), leaf: leaf.max(1) };
        tree.halve(0, 0..places.len());
        tree
    }

    fn halve(&mut self, node: usize, range: Range<usize>) {
        if range.len() <= self.leaf {
            return;
        }
        let places = self.places;
        let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        for &place in &self.order[range.clone()] {
            for axis in 0..2 {
                low[axis] = low[axis].min(places[place as usize][axis]);
                high[axis] = high[axis].max(places[place as usize][axis]);
            }
        }
        let axis = usize::from(high[1] - low[1] > high[0] - low[0]);
        let middle = range.len() / 2;
        // Ties by number, so that the tree is a function of the places.
        let (_, median, _) = self.order[range.clone()].select_nth_unstable_by(middle, |&a, &b| {
            places[a as usize][axis].total_cmp(&places[b as usize][axis]).then(a.cmp(&b))
        });
        let at = places[*median as usize][axis];
        if self.splits.len() <= node {
            self.splits.resize(node + 1, Split::default());
        }
        self.splits[node] = Split { axis, at };
        let middle = range.start + middle;
        self.halve(2 * node + 1, range.start..middle);
        self.halve(2 * node + 2, middle..range.end);
    }

    /// Calls with every place whose squared distance is not above `squared`, in no order that means anything.
    pub fn within(&self, of: [f64; 2], squared: f64, found: &mut impl FnMut(NearPlace)) {
        self.visit_within(0, 0..self.order.len(), of, squared, found);
    }

    fn visit_within(
        &self,
        node: usize,
        range: Range<usize>,
        of: [f64; 2],
        limit: f64,
        found: &mut impl FnMut(NearPlace),
    ) {
        if range.len() <= self.leaf {
            for &place in &self.order[range] {
                let squared = squared_distance(of, self.places[place as usize]);
                if squared <= limit {
                    found(NearPlace { squared, place });
                }
            }
            return;
        }
        let Split { axis, at } = self.splits[node];
        let beyond = of[axis] - at;
        let middle = range.start + range.len() / 2;
        if beyond <= 0.0 || beyond * beyond <= limit {
            self.visit_within(2 * node + 1, range.start..middle, of, limit, found);
        }
        if beyond >= 0.0 || beyond * beyond <= limit {
            self.visit_within(2 * node + 2, middle..range.end, of, limit, found);
        }
    }

    /// The `k` nearest places, the nearest first; of equally far ones those of lower number.
    ///
    /// - `except`: a place that does not count, such as the one looked from
    pub fn nearest(&self, of: [f64; 2], k: usize, except: Option<u32>) -> Vec<NearPlace> {
        let mut search = Nearest { of, k, except, found: Vec::with_capacity(k + 1) };
        self.visit_nearest(0, 0..self.order.len(), &mut search);
        search.found
    }

    fn visit_nearest(&self, node: usize, range: Range<usize>, search: &mut Nearest) {
        if range.len() <= self.leaf {
            self.order[range].iter().for_each(|&place| search.look_at(self.places, place));
            return;
        }
        let Split { axis, at } = self.splits[node];
        let beyond = search.of[axis] - at;
        let middle = range.start + range.len() / 2;
        let halves = [(2 * node + 1, range.start..middle), (2 * node + 2, middle..range.end)];
        let [near, far] = if beyond <= 0.0 {
            halves
        } else {
            let [a, b] = halves;
            [b, a]
        };
        self.visit_nearest(near.0, near.1, search);
        if search.reaches(beyond * beyond) {
            self.visit_nearest(far.0, far.1, search);
        }
    }

    /// Places of each node that was not halved any more, neighbours in the tree one after the other.
    pub fn leaves(&self) -> Vec<Vec<u32>> {
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

/// The nearest places so far.
struct Nearest {
    of: [f64; 2],
    k: usize,
    except: Option<u32>,
    /// Ascending, at most `k`.
    found: Vec<NearPlace>,
}

impl Nearest {
    fn look_at(&mut self, places: &[[f64; 2]], place: u32) {
        if Some(place) == self.except {
            return;
        }
        let near = NearPlace { squared: squared_distance(self.of, places[place as usize]), place };
        let at = self.found.partition_point(|other| *other <= near);
        if at < self.k {
            self.found.insert(at, near);
            self.found.truncate(self.k);
        }
    }

    /// Whether a place at this squared distance may be among the nearest.
    fn reaches(&self, squared: f64) -> bool {
        self.found.len() < self.k || self.found.last().is_some_and(|last| squared <= last.squared)
    }
}
