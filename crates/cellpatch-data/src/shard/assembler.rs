//! A cell of a file, as columns and values, as a cell of a set: tokens and counts.

use super::{
    piece::{Counts, Piece},
    survey::ColumnFate,
};
use crate::normalize::normalize;

/// Turns one cell after the other into tokens and counts.
#[derive(Debug, Default)]
pub(super) struct CellAssembler {
    /// Whether counts must become logarithms, because those of other sources are.
    pub(super) normalize_first: bool,
    pairs: Vec<(u32, f32)>,
    pub(super) genes: Vec<u32>,
    pub(super) counts: Vec<f32>,
    pub(super) total_counts: f64,
}

impl CellAssembler {
    pub(super) fn new(normalize_first: bool) -> Self {
        Self { normalize_first, ..Self::default() }
    }

    /// Counts of columns with the same token are summed.
    pub(super) fn assemble(&mut self, entries: impl Iterator<Item = (u32, f32)>, columns: &[ColumnFate]) {
        self.pairs.clear();
        self.total_counts = 0.0;
        for (column, value) in entries {
            match columns.get(column as usize) {
                Some(ColumnFate::Token(token)) => self.pairs.push((*token, value)),
                Some(ColumnFate::Unknown) => {}
                Some(ColumnFate::Filtered) | None => continue,
            }
            self.total_counts += f64::from(value);
        }
        // Stable: sums of fractions must not depend on how the sort treats equal tokens.
        if !self.pairs.is_sorted_by_key(|&(token, _)| token) {
            self.pairs.sort_by_key(|&(token, _)| token);
        }
        self.genes.clear();
        self.counts.clear();
        for &(token, value) in &self.pairs {
            match self.counts.last_mut() {
                Some(count) if self.genes.last() == Some(&token) => *count += value,
                _ => {
                    self.genes.push(token);
                    self.counts.push(value);
                }
            }
        }
        self.normalize();
    }

    /// The same of columns whose tokens ascend with them.
    pub(super) fn assemble_ascending(&mut self, columns: &[u32], values: &[f32], tokens: &AscendingTokens) {
        self.genes.clear();
        self.counts.clear();
        let add = |total, value| total + f64::from(value);
        self.total_counts = tokens.append(columns, values, &mut self.genes, &mut self.counts, add);
        self.normalize();
    }

    fn normalize(&mut self) {
        if self.normalize_first {
            let counts = std::mem::take(&mut self.counts);
            normalize(&counts, self.total_counts as f32, &mut self.counts);
        }
    }

    /// Appends the cell's genes and counts.
    pub(super) fn append_to(&self, piece: &mut Piece) {
        piece.n_genes.push(self.genes.len() as u32);
        piece.genes.extend_from_slice(&self.genes);
        piece.total_counts.push(self.total_counts);
        match &mut piece.counts {
            Counts::U16(counts) => counts.extend(self.counts.iter().map(|&count| count as u16)),
            Counts::F32(counts) => counts.extend_from_slice(&self.counts),
        }
    }
}

/// Tokens of columns that ascend with them, so that cells need neither sorting nor summing.
#[derive(Debug)]
pub(super) struct AscendingTokens(Vec<u32>);

impl AscendingTokens {
    const FILTERED: u32 = 0;
    const UNKNOWN: u32 = u32::MAX;

    pub(super) fn of(columns: &[ColumnFate]) -> Option<Self> {
        let token = |fate: &ColumnFate| match fate {
            ColumnFate::Filtered => Self::FILTERED,
            ColumnFate::Unknown => Self::UNKNOWN,
            ColumnFate::Token(token) => *token,
        };
        let tokens: Vec<u32> = columns.iter().map(token).collect();
        let known = tokens.iter().filter(|&&token| token != Self::FILTERED && token != Self::UNKNOWN);
        known.is_sorted_by(|a, b| a < b).then_some(Self(tokens))
    }

    /// Appends a cell of counts to a piece as [`CellAssembler`] would.
    pub(super) fn append_counts(&self, columns: &[u32], values: &[u16], piece: &mut Piece) {
        let Counts::U16(counts) = &mut piece.counts else { return };
        let start = piece.genes.len();
        let add = |total: u64, count| total + u64::from(count);
        let total = self.append(columns, values, &mut piece.genes, counts, add);
        piece.n_genes.push((piece.genes.len() - start) as u32);
        piece.total_counts.push(total as f64);
    }

    /// Appends the tokens and values of a cell, and says the total, to which `add` adds a value.
    fn append<T: Copy + Default, S: Copy + Default>(
        &self,
        columns: &[u32],
        values: &[T],
        genes: &mut Vec<u32>,
        counts: &mut Vec<T>,
        add: impl Fn(S, T) -> S,
    ) -> S {
        let start = genes.len();
        genes.resize(start + columns.len(), 0);
        counts.resize(start + columns.len(), T::default());
        let (mut end, mut total) = (start, S::default());
        for (&column, &value) in columns.iter().zip(values) {
            let token = self.0.get(column as usize).copied().unwrap_or(Self::FILTERED);
            (genes[end], counts[end]) = (token, value);
            end += usize::from(token != Self::FILTERED && token != Self::UNKNOWN);
            total = if token == Self::FILTERED { total } else { add(total, value) };
        }
        genes.truncate(end);
        counts.truncate(end);
        total
    }
}
