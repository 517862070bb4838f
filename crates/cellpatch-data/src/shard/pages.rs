//! Column chunks of lists of whole numbers, encoded and compressed page by page.
//!
//! The library's writer goes through three buffers and a hash table for every number; a cell has a thousand. What comes out
//! here is what it would write: data pages of version 1 with levels in the hybrid of runs and packed bits, numbers by
//! DELTA_BINARY_PACKED or RLE_DICTIONARY (Apache Parquet, Encodings.md), zstd. Any reader takes it.

use std::io;

use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    column::{
        page::{CompressedPage, Page, PageWriter},
        writer::ColumnCloseResult,
    },
    errors::ParquetError,
    file::{
        metadata::ColumnChunkMetaData,
        writer::{SerializedPageWriter, TrackedWrite},
    },
    schema::types::ColumnDescPtr,
};

/// On packed numbers, level 3 saves a sixtieth of the bytes and takes three times as long.
const ZSTD_LEVEL: i32 = 1;
/// Deltas of a block, which share a least one, and of each of its four parts, which have a width of their own.
pub(super) const BLOCK: usize = 128;
pub(super) const PART: usize = 32;

/// A finished column chunk: its pages, and where they are.
pub(super) type Chunk = (bytes::Bytes, ColumnCloseResult);

/// A column of lists that is being written.
pub(super) struct ListColumn {
    column: ColumnDescPtr,
    encoding: Encoding,
    compressor: zstd::bulk::Compressor<'static>,
    pages: Vec<CompressedPage>,
    n_levels: u64,
    n_rows: u64,
    body: Vec<u8>,
}

impl ListColumn {
    pub(super) fn new(column: ColumnDescPtr, encoding: Encoding) -> io::Result<Self> {
        let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
        Ok(Self { column, encoding, compressor, pages: Vec::new(), n_levels: 0, n_rows: 0, body: Vec::new() })
    }

    /// Appends a page of whole lists.
    ///
    /// - `lengths`: of each list
    /// - `encode`: appends all their numbers in the column's encoding
    pub(super) fn push(&mut self, lengths: &[u32], encode: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.body.clear();
        // A list begins at level 0 and goes on at level 1; an empty one has one entry, which is not defined.
        let repetitions = lengths.iter().flat_map(|&length| [(false, 1), (true, length.max(1) as usize - 1)]);
        write_levels(repetitions, &mut self.body);
        let definitions = lengths.iter().map(|&length| (length > 0, length.max(1) as usize));
        write_levels(definitions, &mut self.body);
        encode(&mut self.body);
        let n_levels: usize = lengths.iter().map(|&length| length.max(1) as usize).sum();
        let page = Page::DataPage {
            buf: self.compressor.compress(&self.body)?.into(),
            num_values: n_levels as u32,
            encoding: self.encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        self.pages.push(CompressedPage::new(page, self.body.len()));
        self.n_levels += n_levels as u64;
        self.n_rows += lengths.len() as u64;
        Ok(())
    }

    /// Puts the pages together.
    ///
    /// - `dictionary`: the numbers that codes stand for, as 32-bit numbers
    pub(super) fn finish(mut self, dictionary: Option<&[u16]>) -> Result<Chunk, ParquetError> {
        let mut sink = TrackedWrite::new(Vec::new());
        let (mut uncompressed, mut data_start) = (0, 0);
        let mut writer = SerializedPageWriter::new(&mut sink);
        if let Some(numbers) = dictionary {
            let plain: Vec<u8> = numbers.iter().flat_map(|&number| u32::from(number).to_le_bytes()).collect();
            let page = Page::DictionaryPage {
                buf: self.compressor.compress(&plain)?.into(),
                num_values: numbers.len() as u32,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            let spec = writer.write_page(CompressedPage::new(page, plain.len()))?;
            (uncompressed, data_start) = (spec.uncompressed_size, spec.bytes_written);
        }
        for page in std::mem::take(&mut self.pages) {
            uncompressed += writer.write_page(page)?.uncompressed_size;
        }
        let pages = sink.into_inner()?;
        let n_bytes = pages.len() as u64;
        let level = ZstdLevel::try_new(ZSTD_LEVEL)?;
        let mut encodings = vec![self.encoding, Encoding::RLE];
        encodings.extend(dictionary.map(|_| Encoding::PLAIN));
        let metadata = ColumnChunkMetaData::builder(self.column)
            .set_encodings(encodings)
            .set_compression(Compression::ZSTD(level))
            .set_num_values(self.n_levels as i64)
            .set_total_compressed_size(n_bytes as i64)
            .set_total_uncompressed_size(uncompressed as i64)
            .set_data_page_offset(data_start as i64)
            .set_dictionary_page_offset(dictionary.map(|_| 0))
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: n_bytes,
            rows_written: self.n_rows,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        Ok((pages.into(), close))
    }
}

/// Levels of one bit, given as runs, behind their length in bytes.
fn write_levels(runs: impl Iterator<Item = (bool, usize)>, body: &mut Vec<u8>) {
    let start = body.len();
    body.extend_from_slice(&[0; 4]);
    let mut packed: Vec<u8> = Vec::new();
    let (mut bits, mut n_bits) = (0u8, 0);
    let flush = |packed: &mut Vec<u8>, body: &mut Vec<u8>| {
        if !packed.is_empty() {
            write_varint((packed.len() as u64) << 1 | 1, body);
            body.append(packed);
        }
    };
    let mut current = (false, 0usize);
    for (level, length) in runs.filter(|&(_, length)| length > 0).chain([(false, 0)]) {
        let is_end = length == 0;
        if !is_end && (current.1 == 0 || current.0 == level) {
            current = (level, current.1 + length);
            continue;
        }
        let (run, mut left) = std::mem::replace(&mut current, (level, length));
        // Packed bits come in groups of eight; a run may be of any length, but begins after a whole group.
        while left > 0 && (n_bits > 0 || left < 8) {
            bits |= u8::from(run) << n_bits;
            (n_bits, left) = (n_bits + 1, left - 1);
            if n_bits == 8 {
                packed.push(std::mem::take(&mut bits));
                n_bits = 0;
            }
        }
        if left > 0 {
            flush(&mut packed, body);
            write_varint((left as u64) << 1, body);
            body.push(u8::from(run));
        }
    }
    if n_bits > 0 {
        packed.push(bits);
    }
    flush(&mut packed, body);
    let n_bytes = (body.len() - start - 4) as u32;
    body[start..start + 4].copy_from_slice(&n_bytes.to_le_bytes());
}

fn write_varint(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Numbers below 2^31 as DELTA_BINARY_PACKED.
pub(super) fn write_deltas(numbers: &[u32], body: &mut Vec<u8>) {
    let zigzag = |number: i32| u64::from((number << 1 ^ number >> 31) as u32);
    write_varint(BLOCK as u64, body);
    write_varint((BLOCK / PART) as u64, body);
    write_varint(numbers.len() as u64, body);
    write_varint(zigzag(numbers.first().map_or(0, |&first| first as i32)), body);
    let mut start = 0;
    while start + 1 < numbers.len() {
        let numbers = &numbers[start..numbers.len().min(start + BLOCK + 1)];
        let mut deltas = [0i32; BLOCK];
        let n_deltas = numbers.len() - 1;
        for (delta, (&before, &number)) in deltas.iter_mut().zip(numbers.iter().zip(&numbers[1..])) {
            *delta = number as i32 - before as i32;
        }
        let least = deltas[..n_deltas].iter().copied().min().unwrap_or(0);
        let mut above = [0u32; BLOCK];
        for (above, &delta) in above[..n_deltas].iter_mut().zip(&deltas) {
            *above = delta.wrapping_sub(least) as u32;
        }
        write_varint(zigzag(least), body);
        let parts = above.as_chunks::<PART>().0;
        let widths =
            parts.iter().map(|part| 32 - part.iter().fold(0, |bits, &number| bits | number).leading_zeros());
        let widths: Vec<u8> = widths.map(|width| width as u8).collect();
        body.extend_from_slice(&widths);
        parts.iter().zip(widths).for_each(|(part, width)| pack(part, width, body));
        start += BLOCK;
    }
}

/// Codes for the numbers of a column chunk, in the order in which they appear.
pub(super) struct Dictionary {
    /// One more than the code of each number; 0 for none.
    codes: Vec<u32>,
    numbers: Vec<u16>,
    page: Vec<u32>,
}

impl Dictionary {
    pub(super) fn new() -> Self {
        Self { codes: vec![0; 1 << 16], numbers: Vec::new(), page: Vec::new() }
    }

    /// What the codes stand for, so far.
    pub(super) fn numbers(&self) -> &[u16] {
        &self.numbers
    }

    /// Numbers as RLE_DICTIONARY: the width of codes, and one run of packed codes.
    pub(super) fn write(&mut self, numbers: &[u16], body: &mut Vec<u8>) {
        self.page.clear();
        for &number in numbers {
            let code = &mut self.codes[usize::from(number)];
            if *code == 0 {
                self.numbers.push(number);
                *code = self.numbers.len() as u32;
            }
            self.page.push(*code - 1);
        }
        // Codes that fill bytes, or halves of them, compress better than the narrowest.
        let width = match (self.numbers.len().max(1) - 1).checked_ilog2().map_or(1, |bits| bits + 1) {
            3 => 4,
            5..=7 => 8,
            narrowest => narrowest,
        } as u8;
        body.push(width);
        write_varint((numbers.len().div_ceil(8) as u64) << 1 | 1, body);
        let end = body.len() + numbers.len().div_ceil(8) * usize::from(width);
        let (whole, rest) = self.page.as_chunks::<PART>();
        whole.iter().for_each(|codes| pack(codes, width, body));
        let mut last = [0; PART];
        last[..rest.len()].copy_from_slice(rest);
        if !rest.is_empty() {
            pack(&last, width, body);
        }
        body.truncate(end);
    }
}

/// Appends 32 numbers of `width` bits each, the lowest bits first.
fn pack(numbers: &[u32; PART], width: u8, bytes: &mut Vec<u8>) {
    macro_rules! by_width {
        ($($width:literal)*) => {
            match width {
                8 => bytes.extend_from_slice(&numbers.map(|number| number as u8)),
                $($width => pack_to::<$width>(numbers, bytes),)*
                _ => {}
            }
        };
    }
    by_width!(1 2 3 4 5 6 7 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);
}

fn pack_to<const WIDTH: usize>(numbers: &[u32; PART], bytes: &mut Vec<u8>) {
    let mut words = [0u32; WIDTH];
    for (index, &number) in numbers.iter().enumerate() {
        let (word, bit) = (index * WIDTH / 32, index * WIDTH % 32);
        words[word] |= number << bit;
        if bit + WIDTH > 32 {
            words[word + 1] |= number >> (32 - bit);
        }
    }
    bytes.extend_from_slice(words.map(u32::to_le_bytes).as_flattened());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, UInt16Array, UInt32Array},
        buffer::OffsetBuffer,
        datatypes::{DataType, Field, Schema, UInt16Type, UInt32Type},
    };
    use parquet::{
        arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
        file::{
            properties::{WriterProperties, WriterVersion},
            reader::{FileReader, SerializedFileReader},
        },
        schema::types::ColumnPath,
    };
    use proptest::prelude::*;

    use super::{
        super::{
            encode::element,
            lists::{self, Lists},
        },
        *,
    };

    /// Pages of lists of genes and counts.
    type Pages = Vec<Vec<(Vec<u32>, Vec<u16>)>>;

    fn written(pages: &Pages) -> Vec<u8> {
        let list = |name, data_type| Field::new(name, DataType::List(element(data_type)), false);
        let schema =
            Arc::new(Schema::new(vec![list("genes", DataType::UInt32), list("counts", DataType::UInt16)]));
        let (mut file, _) =
            ArrowWriter::try_new(Vec::new(), schema, None).unwrap().into_serialized_writer().unwrap();
        let columns = file.schema_descr().clone();
        let mut genes = ListColumn::new(columns.column(0), Encoding::DELTA_BINARY_PACKED).unwrap();
        let mut counts = ListColumn::new(columns.column(1), Encoding::RLE_DICTIONARY).unwrap();
        let mut dictionary = Dictionary::new();
        for page in pages {
            let lengths: Vec<u32> = page.iter().map(|(genes, _)| genes.len() as u32).collect();
            let all_genes: Vec<u32> = page.iter().flat_map(|(genes, _)| genes.clone()).collect();
            let all_counts: Vec<u16> = page.iter().flat_map(|(_, counts)| counts.clone()).collect();
            genes.push(&lengths, |body| write_deltas(&all_genes, body)).unwrap();
            counts.push(&lengths, |body| dictionary.write(&all_counts, body)).unwrap();
        }
        let mut group = file.next_row_group().unwrap();
        for (pages, close) in
            [genes.finish(None).unwrap(), counts.finish(Some(dictionary.numbers())).unwrap()]
        {
            group.append_column(&pages, close).unwrap();
        }
        group.close().unwrap();
        file.into_inner().unwrap()
    }

    /// The same as the library would write it and reads it.
    fn expected(pages: &Pages) -> RecordBatch {
        let lists: Vec<_> = pages.iter().flatten().collect();
        let offsets = || OffsetBuffer::from_lengths(lists.iter().map(|(genes, _)| genes.len()));
        let genes: ArrayRef =
            Arc::new(lists.iter().flat_map(|(genes, _)| genes.clone()).collect::<UInt32Array>());
        let counts: ArrayRef =
            Arc::new(lists.iter().flat_map(|(_, counts)| counts.clone()).collect::<UInt16Array>());
        let list = |values: ArrayRef| {
            let field = element(values.data_type().clone());
            Arc::new(ListArray::try_new(field, offsets(), values, None).unwrap()) as ArrayRef
        };
        RecordBatch::try_from_iter([("genes", list(genes)), ("counts", list(counts))]).unwrap()
    }

    /// Lists of a file by our own decoder; `None` where it does not know their encoding.
    fn decoded(file: &bytes::Bytes, wanted: &[bool]) -> Option<(Lists<u32>, Lists<u16>)> {
        let reader = SerializedFileReader::new(file.clone()).unwrap();
        let group = reader.get_row_group(0).unwrap();
        let mut pages = [0, 1].map(|column| group.get_column_page_reader(column).unwrap());
        let genes = lists::read_genes(pages[0].as_mut(), wanted, 0).unwrap()?;
        Some((genes, lists::read_counts(pages[1].as_mut(), wanted, 0).unwrap()?))
    }

    /// Every list, and then some of them, as they should be.
    fn check_decoded(file: &bytes::Bytes, pages: &Pages) -> bool {
        let all: Vec<_> = pages.iter().flatten().collect();
        for every in [1, 3] {
            let wanted: Vec<bool> = (0..all.len()).map(|row| row % every == 0).collect();
            let Some((genes, counts)) = decoded(file, &wanted) else { return false };
            let wanted: Vec<_> = all.iter().step_by(every).collect();
            let lengths: Vec<u32> = wanted.iter().map(|(genes, _)| genes.len() as u32).collect();
            assert_eq!((&genes.lengths, &counts.lengths), (&lengths, &lengths));
            assert!(genes.numbers.iter().eq(wanted.iter().flat_map(|(genes, _)| genes)));
            assert!(counts.numbers.iter().eq(wanted.iter().flat_map(|(_, counts)| counts)));
        }
        true
    }

    fn check(pages: &Pages) {
        let file = bytes::Bytes::from(written(pages));
        assert!(check_decoded(&file, pages));
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(1 << 20);
        let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
        let expected = expected(pages);
        let n_rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(n_rows, expected.num_rows());
        let mut start = 0;
        for batch in batches {
            let expected = expected.slice(start, batch.num_rows());
            for row in 0..batch.num_rows() {
                let genes = |batch: &RecordBatch| {
                    batch.column(0).as_list::<i32>().value(row).as_primitive::<UInt32Type>().values().to_vec()
                };
                let counts = |batch: &RecordBatch| {
                    batch.column(1).as_list::<i32>().value(row).as_primitive::<UInt16Type>().values().to_vec()
                };
                assert_eq!(genes(&batch), genes(&expected), "row {}", start + row);
                assert_eq!(counts(&batch), counts(&expected), "row {}", start + row);
            }
            start += batch.num_rows();
        }
    }

    fn lists(max_length: usize, max_gene: u32, max_count: u16) -> impl Strategy<Value = Pages> {
        let entry = (0..=max_gene, 0..=max_count);
        let list = proptest::collection::vec(entry, 0..=max_length)
            .prop_map(|entries| entries.into_iter().unzip::<u32, u16, Vec<_>, Vec<_>>());
        proptest::collection::vec(proptest::collection::vec(list, 1..12), 1..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn the_library_reads_the_lists_that_were_written(pages in prop_oneof![
            lists(3, 5, 1),
            lists(20, 70_000, 20),
            lists(400, 70_000, 300),
            lists(400, u32::MAX >> 1, u16::MAX),
        ]) {
            check(&pages);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn lists_of_the_library_are_read_or_left_to_it(
            pages in prop_oneof![lists(3, 5, 1), lists(60, 70_000, 300), lists(400, u32::MAX >> 1, 20)],
            rows_of_a_page in 1usize..40,
        ) {
            let batch = expected(&pages);
            let genes = ColumnPath::new(["genes", "list", "element"].map(String::from).to_vec());
            let properties = WriterProperties::builder()
                .set_writer_version(WriterVersion::PARQUET_1_0)
                .set_column_dictionary_enabled(genes.clone(), false)
                .set_column_encoding(genes, Encoding::DELTA_BINARY_PACKED)
                .set_data_page_row_count_limit(rows_of_a_page)
                .set_write_batch_size(rows_of_a_page)
                .build();
            let mut file = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            prop_assert!(check_decoded(&file.into(), &pages));
        }

        #[test]
        fn damaged_pages_are_read_or_refused(
            pages in lists(40, 70_000, 300),
            damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6),
        ) {
            let mut file = written(&pages);
            // Behind the first magic number, before the footer: the pages.
            let footer = u32::from_le_bytes(*file.last_chunk::<8>().unwrap().first_chunk().unwrap()) as usize;
            let n_bytes = file.len() - footer - 12;
            for (at, byte) in damage {
                file[4 + usize::from(at) % n_bytes] = byte;
            }
            let wanted = vec![true; pages.iter().map(Vec::len).sum()];
            let reader = SerializedFileReader::new(bytes::Bytes::from(file)).unwrap();
            let group = reader.get_row_group(0).unwrap();
            let mut pages = [0, 1].map(|column| group.get_column_page_reader(column));
            if let [Ok(genes), Ok(counts)] = &mut pages {
                let _ = lists::read_genes(genes.as_mut(), &wanted, 0);
                let _ = lists::read_counts(counts.as_mut(), &wanted, 0);
            }
        }
    }

    #[test]
    fn every_count_there_can_be_has_a_code() {
        let counts: Vec<u16> = (0..=u16::MAX).collect();
        let genes: Vec<u32> = (0..1 << 16).map(|gene| gene * 3 + 1).collect();
        check(&vec![vec![(genes, counts), (vec![7], vec![65_535])], vec![(Vec::new(), Vec::new())]]);
    }
}
