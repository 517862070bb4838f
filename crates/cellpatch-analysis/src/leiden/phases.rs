//! The two phases of a pass: nodes move to better groups, groups are taken apart again where they do not hold together.

use std::collections::VecDeque;

use super::network::{Links, Network};
use crate::noise::Noise;

/// A gain must be larger than rounding to be one.
const LEAST_GAIN: f64 = 1e-12;
/// How freely a node joins another group than the best when groups are refined, in the unit of a gain over the largest
/// weight that a graph of neighbours has, as the authors advise.
const RANDOMNESS: f64 = 0.01;

/// What a group costs for its size: the gain of a node that joins one is what links them less this times both sizes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Price(pub(super) f64);

/// Moves nodes one after the other to the group of the highest gain until none has one; nodes beside one that moved are
/// looked at again (Traag et al. 2019, algorithm A.2, MoveNodesFast). Says whether any moved.
pub(super) fn move_nodes(network: &Network, price: Price, groups: &mut [u32], noise: &mut Noise) -> bool {
    let n_nodes = network.n_nodes();
    let (mut sizes, mut counts) = (vec![0.0; n_nodes], vec![0_usize; n_nodes]);
    for (node, &group) in groups.iter().enumerate() {
        sizes[group as usize] += network.sizes[node];
        counts[group as usize] += 1;
    }
    let mut empty: Vec<u32> =
        (0..n_nodes as u32).rev().filter(|group| counts[*group as usize] == 0).collect();
    let mut queue: VecDeque<u32> = shuffled((0..n_nodes as u32).collect(), noise).into();
    let mut is_queued = vec![true; n_nodes];
    let mut links = Links::new(n_nodes);
    let mut has_moved = false;
    while let Some(node) = queue.pop_front() {
        let node = node as usize;
        is_queued[node] = false;
        let (own, size) = (groups[node], network.sizes[node]);
        for (other, weight) in network.links(node) {
            links.add(groups[other], weight);
        }
        sizes[own as usize] -= size;
        counts[own as usize] -= 1;
        let gain = |group: u32| links.to(group) - price.0 * size * sizes[group as usize];
        let mut best = (own, gain(own));
        let alone = if counts[own as usize] > 0 { empty.last().copied() } else { None };
        for group in links.iter().map(|(group, _)| group).chain(alone) {
            let gain = gain(group);
            if gain > best.1 + LEAST_GAIN {
                best = (group, gain);
            }
        }
        links.clear();
        let (new, _) = best;
        sizes[new as usize] += size;
        counts[new as usize] += 1;
        if new == own {
            continue;
        }
        has_moved = true;
        if alone == Some(new) {
            empty.pop();
        }
        if counts[own as usize] == 0 {
            empty.push(own);
        }
        groups[node] = new;
        for (other, _) in network.links(node) {
            if groups[other] != new && !is_queued[other] {
                is_queued[other] = true;
                queue.push_back(other as u32);
            }
        }
    }
    has_moved
}

/// Parts of groups that hold together: within each group, nodes start alone, and those that are well linked to the rest of
/// it join a part that is, the likelier the more they gain (Traag et al. 2019, algorithm A.2, RefinePartition). Parts are
/// numbered from 0 without gaps.
pub(super) fn refine(
    network: &Network,
    price: Price,
    groups: &[u32],
    noise: &mut Noise,
) -> (Vec<u32>, usize) {
    let n_nodes = network.n_nodes();
    let mut group_sizes = vec![0.0; n_nodes];
    for (node, &group) in groups.iter().enumerate() {
        group_sizes[group as usize] += network.sizes[node];
    }
    let mut parts: Vec<u32> = (0..n_nodes as u32).collect();
    let mut sizes = network.sizes.clone();
    let mut is_alone = vec![true; n_nodes];
    // What links each part to the rest of its group.
    let mut outside: Vec<f64> = (0..n_nodes)
        .map(|node| {
            let inside = network.links(node).filter(|(other, _)| groups[*other] == groups[node]);
            inside.map(|(_, weight)| weight).sum()
        })
        .collect();
    let within: Vec<f64> = outside.clone();
    let is_well_linked =
        |outside: f64, size: f64, of_group: f64| outside >= price.0 * size * (of_group - size) - LEAST_GAIN;
    let mut links = Links::new(n_nodes);
    let mut chances: Vec<(u32, f64)> = Vec::new();
    for node in shuffled((0..n_nodes as u32).collect(), noise) {
        let at = node as usize;
        let (group, size) = (groups[at], network.sizes[at]);
        let group_size = group_sizes[group as usize];
        if !is_alone[at] || !is_well_linked(outside[at], size, group_size) {
            continue;
        }
        for (other, weight) in network.links(at).filter(|(other, _)| groups[*other] == group) {
            links.add(parts[other], weight);
        }
        chances.clear();
        // To stay alone gains nothing.
        chances.push((node, 0.0));
        for (part, weight) in links.iter().filter(|(part, _)| *part != node) {
            let gain = weight - price.0 * size * sizes[part as usize];
            if gain >= 0.0 && is_well_linked(outside[part as usize], sizes[part as usize], group_size) {
                chances.push((part, gain));
            }
        }
        let part = drawn(&chances, noise).unwrap_or(node);
        if part != node {
            let to = part as usize;
            outside[to] += within[at] - 2.0 * links.to(part);
            sizes[to] += size;
            parts[at] = part;
            is_alone[to] = false;
            is_alone[at] = false;
        }
        links.clear();
    }
    numbered(&parts)
}

/// One of the groups, each as likely as the exponential of its gain.
fn drawn(chances: &[(u32, f64)], noise: &mut Noise) -> Option<u32> {
    let most = chances.iter().map(|(_, gain)| *gain).fold(f64::NEG_INFINITY, f64::max);
    let chance = |gain: f64| ((gain - most) / RANDOMNESS).exp();
    let mut left = noise.even() * chances.iter().map(|(_, gain)| chance(*gain)).sum::<f64>();
    let found = chances.iter().find(|(_, gain)| {
        left -= chance(*gain);
        left < 0.0
    });
    found.or(chances.last()).map(|(group, _)| *group)
}

/// Groups numbered from 0 in the order they first occur, and how many there are.
pub(super) fn numbered(groups: &[u32]) -> (Vec<u32>, usize) {
    let mut numbers = vec![u32::MAX; groups.iter().map(|group| *group as usize + 1).max().unwrap_or(0)];
    let mut n_groups = 0;
    let numbered = groups.iter().map(|&group| {
        let number = &mut numbers[group as usize];
        if *number == u32::MAX {
            *number = n_groups;
            n_groups += 1;
        }
        *number
    });
    let numbered = numbered.collect();
    (numbered, n_groups as usize)
}

fn shuffled(mut nodes: Vec<u32>, noise: &mut Noise) -> Vec<u32> {
    for at in (1..nodes.len()).rev() {
        nodes.swap(at, noise.below(at as u32 + 1) as usize);
    }
    nodes
}
