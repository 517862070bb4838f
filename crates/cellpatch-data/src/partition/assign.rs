//! The rules by which cells are divided.

use super::{Part, Partition, cannot};
use crate::anndata::Labels;
use crate::error::{Error, Result};
use crate::random::{Purpose, stream};

/// Numbers of the streams of one seed; 0 and 1 are [`Split`](crate::Split)'s.
const CELL_ORDER: u64 = 2;
const GROUP_ORDER: u64 = 3;

pub(super) fn random(labels: &Labels, fractions: [f64; 3], seed: u64) -> Result<Partition> {
    let rows = labels.codes.iter().enumerate().filter(|(_, code)| code.is_some());
    let mut rows: Vec<usize> = rows.map(|(row, _)| row).collect();
    let n_parts = fractions.iter().filter(|&&fraction| fraction > 0.0).count();
    if rows.len() < n_parts {
        return Err(cannot(format!("there are {} labelled cells for {n_parts} parts", rows.len())));
    }
    let mut parts = vec![None; labels.codes.len()];
    deal(&mut rows, fractions, seed, &mut parts);
    Ok(Partition { parts })
}

pub(super) fn stratified(labels: &Labels, fractions: [f64; 3], seed: u64) -> Result<Partition> {
    let mut classes = vec![Vec::new(); labels.categories.len()];
    for (row, code) in labels.codes.iter().enumerate() {
        if let Some(code) = code {
            classes[*code as usize].push(row);
        }
    }
    let n_parts = fractions.iter().filter(|&&fraction| fraction > 0.0).count();
    if classes.iter().all(|rows| rows.len() < n_parts) {
        return Err(cannot(format!("no class has the {n_parts} cells that {n_parts} parts need")));
    }
    let mut parts = vec![None; labels.codes.len()];
    for rows in &mut classes {
        if rows.len() < n_parts {
            rows.iter().for_each(|&row| parts[row] = Some(Part::Train));
        } else {
            deal(rows, fractions, seed, &mut parts);
        }
    }
    Ok(Partition { parts })
}

/// Deals at least as many rows as there are parts: each part gets its share, rounded, but at least one.
///
/// Every row draws its own number, so neither the other classes nor the order of work matters.
fn deal(rows: &mut [usize], fractions: [f64; 3], seed: u64, parts: &mut [Option<Part>]) {
    rows.sort_by_cached_key(|&row| (stream(seed, Purpose::Split, CELL_ORDER, row as u64).bits(), row));
    let sizes = sizes(rows.len(), fractions);
    let dealt = Part::ALL.into_iter().zip(sizes).flat_map(|(part, size)| std::iter::repeat_n(part, size));
    rows.iter().zip(dealt).for_each(|(&row, part)| parts[row] = Some(part));
}

/// How many of `n_rows` each part gets.
fn sizes(n_rows: usize, fractions: [f64; 3]) -> [usize; 3] {
    let share = |fraction: f64| {
        let rounded = (fraction * n_rows as f64).round() as usize;
        if fraction > 0.0 { rounded.max(1) } else { 0 }
    };
    let (mut validation, mut test) = (share(fractions[1]), share(fractions[2]));
    // What rounding up took from training comes back from the larger of the others.
    while validation + test >= n_rows {
        *if validation > test { &mut validation } else { &mut test } -= 1;
    }
    [n_rows - validation - test, validation, test]
}

/// One group's cells of each class.
struct Group {
    code: usize,
    n_cells: usize,
    classes: Vec<(usize, f64)>,
}

pub(super) fn by_group(
    labels: &Labels,
    groups: &Labels,
    fractions: [f64; 3],
    seed: u64,
) -> Result<Partition> {
    let n_cells = labels.codes.len();
    if groups.codes.len() != n_cells {
        let (what, found) = ("the column of groups".to_string(), groups.codes.len());
        return Err(Error::WrongLength { what, of: "cells", found, expected: n_cells });
    }
    let counted = count(labels, groups, seed);
    let used: Vec<usize> = (0..3).filter(|&part| fractions[part] > 0.0).collect();
    if counted.len() < used.len() {
        let reason =
            format!("there are {} groups with labelled cells for {} parts", counted.len(), used.len());
        return Err(cannot(reason));
    }
    let mut part_of = place(&counted, labels.categories.len(), fractions, &used);
    fill_empty(&mut part_of, &counted, &used);
    let mut part_of_code = vec![None; groups.categories.len()];
    for (group, part) in counted.iter().zip(part_of) {
        part_of_code[group.code] = Some(Part::ALL[part]);
    }
    let part = |(label, group): (&Option<u32>, &Option<u32>)| {
        label.and(*group).and_then(|group| part_of_code[group as usize])
    };
    Ok(Partition { parts: labels.codes.iter().zip(&groups.codes).map(part).collect() })
}

/// Groups with labelled cells, the largest first, those of the same size in random order.
fn count(labels: &Labels, groups: &Labels, seed: u64) -> Vec<Group> {
    let mut cells = std::collections::BTreeMap::<(usize, usize), f64>::new();
    for (label, group) in labels.codes.iter().zip(&groups.codes) {
        if let (Some(label), Some(group)) = (label, group) {
            *cells.entry((*group as usize, *label as usize)).or_default() += 1.0;
        }
    }
    let mut counted: Vec<Group> = Vec::new();
    for ((code, class), n_cells) in cells {
        match counted.last_mut() {
            Some(group) if group.code == code => {
                group.n_cells += n_cells as usize;
                group.classes.push((class, n_cells));
            }
            _ => counted.push(Group { code, n_cells: n_cells as usize, classes: vec![(class, n_cells)] }),
        }
    }
    counted.sort_by_cached_key(|group| {
        let order = stream(seed, Purpose::Split, GROUP_ORDER, group.code as u64).bits();
        (std::cmp::Reverse(group.n_cells), order, group.code)
    });
    counted
}

/// The part of every group, each where it brings the classes closest to their shares.
///
/// The distance is the sum over classes and parts of (cells - share)^2 / cells of the class, so that a rare class counts
/// as a frequent one; all cells together count as one more class.
fn place(groups: &[Group], n_classes: usize, fractions: [f64; 3], used: &[usize]) -> Vec<usize> {
    let mut totals = vec![0.0; n_classes + 1];
    for group in groups {
        group.classes.iter().for_each(|&(class, n_cells)| totals[class] += n_cells);
        totals[n_classes] += group.n_cells as f64;
    }
    let mut filled = [(); 3].map(|()| vec![0.0; n_classes + 1]);
    let mut part_of = Vec::with_capacity(groups.len());
    for group in groups {
        let classes = || group.classes.iter().copied().chain([(n_classes, group.n_cells as f64)]);
        // By how much the distance grows if the group joins the part.
        let growth = |part: usize| -> f64 {
            let of_class = |(class, n_cells): (usize, f64)| {
                let over = filled[part][class] - fractions[part] * totals[class];
                n_cells * (2.0 * over + n_cells) / totals[class]
            };
            classes().map(of_class).sum()
        };
        let best = used.iter().copied().min_by(|&a, &b| growth(a).total_cmp(&growth(b))).unwrap_or(0);
        classes().for_each(|(class, n_cells)| filled[best][class] += n_cells);
        part_of.push(best);
    }
    part_of
}

/// Gives every part a group, as there are enough.
fn fill_empty(part_of: &mut [usize], groups: &[Group], used: &[usize]) {
    for &part in used {
        if part_of.contains(&part) {
            continue;
        }
        let n_groups = |part: usize| part_of.iter().filter(|&&of| of == part).count();
        let donor = used.iter().copied().max_by_key(|&part| (n_groups(part), std::cmp::Reverse(part)));
        let smallest = (0..groups.len())
            .filter(|&group| Some(part_of[group]) == donor)
            .min_by_key(|&group| (groups[group].n_cells, groups[group].code));
        if let Some(group) = smallest {
            part_of[group] = part;
        }
    }
}
