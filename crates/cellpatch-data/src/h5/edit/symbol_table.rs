//! Old groups: a B-tree of tables of names in a local heap (format specification, III.A.1, III.B, III.C).

use std::collections::HashSet;

use super::fields::{Fields, read};
use super::link::Link;
use crate::h5::source::FileSource;

/// Bytes of a node before its keys and children.
const NODE_BYTES: u64 = 24;
const ENTRY_BYTES: u64 = 40;
const SOFT: u64 = 2;
const MAX_DEPTH: u8 = 16;

/// The links of an old group, from its symbol table message.
pub(super) fn links(source: &FileSource, message: &[u8]) -> Result<Vec<Link>, String> {
    let mut fields = Fields::new(message);
    let (tree, heap) = (fields.address()?, fields.address()?);
    let mut walk = Walk { source, names: local_heap(source, heap)?, seen: HashSet::new(), links: Vec::new() };
    walk.node(tree, MAX_DEPTH)?;
    Ok(walk.links)
}

fn local_heap(source: &FileSource, address: u64) -> Result<Vec<u8>, String> {
    let header = read(source, address, 32)?;
    let mut fields = Fields::new(&header);
    fields.expect(b"HEAP\0")?;
    fields.skip(3)?;
    let size = fields.number(8)?;
    fields.skip(8)?;
    read(source, fields.address()?, size)
}

struct Walk<'a> {
    source: &'a FileSource,
    names: Vec<u8>,
    seen: HashSet<u64>,
    links: Vec<Link>,
}

impl Walk<'_> {
    fn node(&mut self, address: u64, depth: u8) -> Result<(), String> {
        if depth == 0 || !self.seen.insert(address) {
            return Err("the index of a group goes in a circle".into());
        }
        let head = read(self.source, address, NODE_BYTES)?;
        let mut fields = Fields::new(&head);
        fields.expect(b"TREE\0")?;
        let level = fields.byte()?;
        let n_children = fields.number(2)?;
        // A key, then child and key in turn; keys are not needed to visit everything.
        let pairs = read(self.source, address + NODE_BYTES, n_children * 16)?;
        let mut fields = Fields::new(&pairs);
        for _ in 0..n_children {
            fields.skip(8)?;
            let child = fields.address()?;
            if level == 0 { self.table(child)? } else { self.node(child, depth - 1)? }
        }
        Ok(())
    }

    fn table(&mut self, address: u64) -> Result<(), String> {
        let head = read(self.source, address, 8)?;
        let mut fields = Fields::new(&head);
        fields.expect(b"SNOD\x01")?;
        fields.skip(1)?;
        let n_entries = fields.number(2)?;
        let entries = read(self.source, address + 8, n_entries * ENTRY_BYTES)?;
        let mut fields = Fields::new(&entries);
        for _ in 0..n_entries {
            let (name, target, cached) = (fields.count(8)?, fields.address()?, fields.number(4)?);
            fields.skip(4)?;
            let value = fields.count(4)?;
            fields.skip(12)?;
            let name = self.text(name)?;
            self.links.push(if cached == SOFT {
                Link::soft(name, self.text(value)?)
            } else {
                Link::to_object(name, target, None)
            });
        }
        Ok(())
    }

    /// A zero-terminated text of the heap.
    fn text(&self, offset: usize) -> Result<&[u8], String> {
        let text = self.names.get(offset..).ok_or("a name lies outside its heap")?;
        let end = text.iter().position(|&byte| byte == 0).ok_or("a name does not end")?;
        Ok(&text[..end])
    }
}
