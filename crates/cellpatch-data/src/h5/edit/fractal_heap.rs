//! Fractal heaps: where newer files keep the links and attributes of large groups (format specification, III.G).

use super::fields::{Fields, UNDEFINED, read};
use super::index;
use crate::h5::source::FileSource;

/// Indirect blocks nest at most this deep in any heap that fits a 64-bit address.
const MAX_DEPTH: usize = 16;

/// A heap's shape. Offsets into it address rows of blocks, every row twice as large as the one before.
pub(super) struct FractalHeap<'a> {
    source: &'a FileSource,
    offset_width: usize,
    length_width: usize,
    table_width: u64,
    first_block: u64,
    max_direct: u64,
    root: u64,
    /// Rows of the root block; 0 if it is a direct block.
    root_rows: u64,
    /// The index of objects too large for a block.
    huge_objects: u64,
}

impl<'a> FractalHeap<'a> {
    pub(super) fn read(source: &'a FileSource, address: u64) -> Result<Self, String> {
        let bytes = read(source, address, 142)?;
        let mut fields = Fields::new(&bytes);
        fields.expect(b"FRHP\0")?;
        fields.skip(2)?;
        let filters = fields.number(2)?;
        if filters != 0 {
            return Err("a heap of links or attributes is compressed".into());
        }
        fields.skip(1)?;
        let max_object = fields.number(4)?;
        fields.skip(8)?;
        let huge_objects = fields.address()?;
        // Free space (16), managed space (32), huge and tiny objects (32).
        fields.skip(80)?;
        let table_width = fields.number(2)?;
        let (first_block, max_direct) = (fields.number(8)?, fields.number(8)?);
        let max_bits = fields.number(2)?;
        fields.skip(2)?;
        let (root, root_rows) = (fields.address()?, fields.number(2)?);
        let sane = table_width > 0 && first_block.is_power_of_two() && max_direct.is_power_of_two();
        if !sane || max_bits > 64 || max_direct < first_block || max_object == 0 {
            return Err(format!("the heap at {address} is damaged"));
        }
        let direct_width = (max_direct.ilog2() as usize).div_ceil(8);
        Ok(Self {
            source,
            offset_width: (max_bits as usize).div_ceil(8),
            length_width: direct_width.min(max_object.ilog2() as usize / 8 + 1),
            table_width,
            first_block,
            max_direct,
            root,
            root_rows,
            huge_objects,
        })
    }

    /// The bytes of one object.
    ///
    /// - `id`: as an index holds it
    pub(super) fn object(&self, id: &[u8]) -> Result<Vec<u8>, String> {
        let mut fields = Fields::new(id);
        // Two bits of version, two bits of type.
        match fields.byte()? >> 4 {
            0 => {}
            2 => {
                let length = usize::from(id[0] & 0x0f) + 1;
                return fields.take(length).map(<[u8]>::to_vec);
            }
            1 => return self.huge_object(fields.rest()),
            _ => return Err("a heap holds an object of an unknown type".into()),
        }
        let (offset, length) = (fields.number(self.offset_width)?, fields.number(self.length_width)?);
        let (block, inside) = self.locate(offset)?;
        read(self.source, block.checked_add(inside).ok_or("an address overflows")?, length)
    }

    /// An object with bytes of its own, found by its number.
    fn huge_object(&self, number: &[u8]) -> Result<Vec<u8>, String> {
        let number = Fields::new(number).number(number.len())?;
        for record in index::records(self.source, self.huge_objects)? {
            let mut fields = Fields::new(&record);
            let (address, length) = (fields.address()?, fields.number(8)?);
            if fields.number(8)? == number {
                return read(self.source, address, length);
            }
        }
        Err("a heap does not know one of its large objects".into())
    }

    /// The direct block of an offset, and the position in it.
    fn locate(&self, offset: u64) -> Result<(u64, u64), String> {
        let (mut block, mut offset, mut rows) = (self.root, offset, self.root_rows);
        for _ in 0..MAX_DEPTH {
            if block == UNDEFINED {
                break;
            }
            if rows == 0 {
                return Ok((block, offset));
            }
            let (row, start, size) = self.row_of(offset);
            if row >= rows {
                break;
            }
            let column = (offset - start) / size;
            let entry = row * self.table_width + column;
            // Signature, version, heap address, block offset; then addresses, direct blocks before indirect ones.
            let at = 4 + 1 + 8 + self.offset_width as u64 + entry * 8;
            let address = Fields::new(&read(self.source, block + at, 8)?).address()?;
            rows = if size <= self.max_direct { 0 } else { self.rows_of(size) };
            (block, offset) = (address, (offset - start) % size);
        }
        Err("a heap has no block for one of its objects".into())
    }

    /// The row of an offset in an indirect block, where the row starts, and the size of its blocks.
    fn row_of(&self, offset: u64) -> (u64, u64, u64) {
        let (mut row, mut start, mut size) = (0, 0u64, self.first_block);
        while offset - start >= size.saturating_mul(self.table_width) {
            start += size * self.table_width;
            // The first two rows have blocks of the same size.
            if row > 0 {
                size *= 2;
            }
            row += 1;
        }
        (row, start, size)
    }

    /// Rows of an indirect block that spans `size` bytes.
    fn rows_of(&self, size: u64) -> u64 {
        let first_row = (self.first_block * self.table_width).max(1);
        u64::from((size / first_row).max(1).ilog2()) + 1
    }
}
