//! Version 2 B-trees: the index over a fractal heap's objects (format specification, III.A.2).

use super::fields::{Fields, UNDEFINED, read};
use crate::h5::source::FileSource;

/// Bytes of a node that are not records: signature, version, type, checksum.
const NODE_BYTES: usize = 10;
const MAX_RECORDS: u64 = 1 << 24;

/// Every record of a tree, in no particular order.
pub(super) fn records(source: &FileSource, address: u64) -> Result<Vec<Vec<u8>>, String> {
    if address == UNDEFINED {
        return Ok(Vec::new());
    }
    let header = read(source, address, 38)?;
    let mut fields = Fields::new(&header);
    fields.expect(b"BTHD\0")?;
    fields.skip(1)?;
    let (node_size, record_size, depth) = (fields.count(4)?, fields.count(2)?, fields.count(2)?);
    fields.skip(2)?;
    let (root, n_root, n_total) = (fields.address()?, fields.count(2)?, fields.number(8)?);
    let levels = Level::all(node_size, record_size, depth)?;
    if n_total > MAX_RECORDS {
        return Err(format!("the index at {address} claims {n_total} records"));
    }
    let mut walk = Walk { source, record_size, levels: &levels, limit: n_total, records: Vec::new() };
    if root != UNDEFINED {
        walk.visit(root, n_root, depth)?;
    }
    if walk.records.len() as u64 != n_total {
        return Err(format!("the index at {address} has {} of {n_total} records", walk.records.len()));
    }
    Ok(walk.records)
}

/// How wide the counts beside a child's address are, for nodes of one level above the leaves.
struct Level {
    /// Bytes of a child's own number of records.
    own_width: usize,
    /// Bytes of the number of records in a child's whole subtree; 0 above leaves, where it is the same.
    total_width: usize,
}

impl Level {
    /// Levels from the leaves (entry 0, unused) up.
    fn all(node_size: usize, record_size: usize, depth: usize) -> Result<Vec<Self>, String> {
        let room = node_size.checked_sub(NODE_BYTES).filter(|&room| record_size > 0 && room >= record_size);
        let room = room.ok_or("an index has nodes too small for a record")?;
        if depth > 16 {
            return Err(format!("an index is {depth} levels deep"));
        }
        let most_in_leaf = (room / record_size) as u64;
        let own_width = bytes_for(most_in_leaf);
        let mut levels = vec![Self { own_width, total_width: 0 }];
        let mut most_below = most_in_leaf;
        for level in 1..=depth {
            let total_width = if level > 1 { bytes_for(most_below) } else { 0 };
            let pointer = 8 + own_width + total_width;
            let most = room.saturating_sub(pointer) / (record_size + pointer);
            most_below = (most as u64 + 1).saturating_mul(most_below).saturating_add(most as u64);
            levels.push(Self { own_width, total_width });
        }
        Ok(levels)
    }
}

/// Bytes that hold numbers up to `most`.
fn bytes_for(most: u64) -> usize {
    most.max(1).ilog2() as usize / 8 + 1
}

struct Walk<'a> {
    source: &'a FileSource,
    record_size: usize,
    levels: &'a [Level],
    limit: u64,
    records: Vec<Vec<u8>>,
}

impl Walk<'_> {
    fn visit(&mut self, address: u64, n_records: usize, depth: usize) -> Result<(), String> {
        let level = &self.levels[depth];
        let children = if depth == 0 { 0 } else { n_records + 1 };
        let pointer = 8 + level.own_width + level.total_width;
        let n_bytes = 6 + n_records * self.record_size + children * pointer;
        let node = read(self.source, address, n_bytes as u64)?;
        let mut fields = Fields::new(&node);
        fields.expect(if depth == 0 { b"BTLF\0" } else { b"BTIN\0" })?;
        fields.skip(1)?;
        for _ in 0..n_records {
            self.records.push(fields.take(self.record_size)?.to_vec());
        }
        if self.records.len() as u64 > self.limit {
            return Err("an index has more records than it claims".into());
        }
        for _ in 0..children {
            let (child, n_own) = (fields.address()?, fields.count(level.own_width)?);
            fields.skip(level.total_width)?;
            self.visit(child, n_own, depth - 1)?;
        }
        Ok(())
    }
}
