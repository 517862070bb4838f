//! The network that nodes are moved in, and the smaller one that their groups make.

use crate::graph::NeighborGraph;

/// Nodes with weighted links to others, and sizes. What links a node to itself moves with it and is not kept.
#[derive(Debug, Clone)]
pub(super) struct Network {
    starts: Vec<usize>,
    targets: Vec<u32>,
    weights: Vec<f64>,
    /// What a node counts for in the size of its group: its share of the links for modularity, its cells otherwise.
    pub(super) sizes: Vec<f64>,
}

impl Network {
    /// The network of a graph's cells.
    pub(super) fn of(graph: &NeighborGraph, sizes: Vec<f64>) -> Self {
        let mut network = Self { starts: vec![0], targets: Vec::new(), weights: Vec::new(), sizes };
        for cell in 0..graph.n_cells() {
            for (near, weight) in graph.of_cell(cell).filter(|(near, _)| *near != cell) {
                network.targets.push(near as u32);
                network.weights.push(f64::from(weight));
            }
            network.starts.push(network.targets.len());
        }
        network
    }

    pub(super) fn n_nodes(&self) -> usize {
        self.sizes.len()
    }

    /// A node's links: the other node and the weight.
    pub(super) fn links(&self, node: usize) -> impl Iterator<Item = (usize, f64)> {
        let row = self.starts[node]..self.starts[node + 1];
        self.targets[row.clone()].iter().map(|target| *target as usize).zip(self.weights[row].iter().copied())
    }

    /// The network whose nodes are groups of these nodes; `groups` numbers them from 0 without gaps.
    pub(super) fn united(&self, groups: &[u32], n_groups: usize) -> Self {
        let mut members = vec![Vec::new(); n_groups];
        let mut sizes = vec![0.0; n_groups];
        for (node, &group) in groups.iter().enumerate() {
            members[group as usize].push(node);
            sizes[group as usize] += self.sizes[node];
        }
        let mut network = Self { starts: vec![0], targets: Vec::new(), weights: Vec::new(), sizes };
        let mut links = Links::new(n_groups);
        for (group, members) in members.iter().enumerate() {
            for &node in members {
                for (other, weight) in self.links(node) {
                    links.add(groups[other], weight);
                }
            }
            for (other, weight) in links.drain() {
                if other as usize != group {
                    network.targets.push(other);
                    network.weights.push(weight);
                }
            }
            network.starts.push(network.targets.len());
        }
        network
    }
}

/// What links one node to each group near it.
#[derive(Debug)]
pub(super) struct Links {
    weights: Vec<f64>,
    is_met: Vec<bool>,
    met: Vec<u32>,
}

impl Links {
    pub(super) fn new(n_groups: usize) -> Self {
        Self { weights: vec![0.0; n_groups], is_met: vec![false; n_groups], met: Vec::new() }
    }

    pub(super) fn add(&mut self, group: u32, weight: f64) {
        let at = group as usize;
        if !self.is_met[at] {
            self.is_met[at] = true;
            self.met.push(group);
        }
        self.weights[at] += weight;
    }

    /// What links to a group.
    pub(super) fn to(&self, group: u32) -> f64 {
        self.weights[group as usize]
    }

    /// The groups there are links to, in the order they were met.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, f64)> {
        self.met.iter().map(|&group| (group, self.weights[group as usize]))
    }

    /// [`Links::iter`] of all links, which are gone afterwards.
    pub(super) fn drain(&mut self) -> Vec<(u32, f64)> {
        let links = self.iter().collect();
        self.clear();
        links
    }

    pub(super) fn clear(&mut self) {
        for group in self.met.drain(..) {
            self.weights[group as usize] = 0.0;
            self.is_met[group as usize] = false;
        }
    }
}
