//! Column chunks of lists of whole numbers, decoded page by page as [`pages`](super::pages) encodes them.
//!
//! The library's reader makes two levels of sixteen bits for every number before it looks at the lists. Here levels stay runs, of
//! which a cell has a few, and numbers are unpacked thirty-two at a time. What is encoded in another way is left to the library.

use parquet::{
    basic::Encoding,
    column::page::{Page, PageReader},
};

use super::pages::{BLOCK, PART};

/// Most numbers of a page that is decoded here: a page that claims more is not one of ours.
const MAX_PAGE: usize = 1 << 24;

/// Lists one after the other.
#[derive(Debug, Default)]
pub(super) struct Lists<T> {
    pub(super) lengths: Vec<u32>,
    pub(super) numbers: Vec<T>,
}

/// How the numbers of a page are encoded. Functions say whether they know the encoding.
trait Decoder {
    type Number: Copy;

    fn take_dictionary(&mut self, page: &[u8]) -> Result<bool, String>;

    /// Appends `count` numbers.
    fn decode(
        &self,
        encoding: Encoding,
        page: &[u8],
        count: usize,
        numbers: &mut Vec<Self::Number>,
    ) -> Result<bool, String>;
}

/// Reads the lists of those rows that are wanted; `None` where they are not genes as we write them.
///
/// - `wanted`: a flag for each row
/// - `n_expected`: numbers that room is made for
pub(super) fn read_genes(
    pages: &mut dyn PageReader,
    wanted: &[bool],
    n_expected: usize,
) -> Result<Option<Lists<u32>>, String> {
    read_lists(pages, wanted, n_expected, &mut Deltas)
}

/// The same of counts.
pub(super) fn read_counts(
    pages: &mut dyn PageReader,
    wanted: &[bool],
    n_expected: usize,
) -> Result<Option<Lists<u16>>, String> {
    read_lists(pages, wanted, n_expected, &mut Codes { dictionary: Vec::new() })
}

fn read_lists<D: Decoder>(
    pages: &mut dyn PageReader,
    wanted: &[bool],
    n_expected: usize,
    decoder: &mut D,
) -> Result<Option<Lists<D::Number>>, String> {
    let mut lists =
        Lists { lengths: Vec::with_capacity(wanted.len()), numbers: Vec::with_capacity(n_expected) };
    let (mut lengths, mut left) = (Vec::new(), wanted);
    while let Some(page) = pages.get_next_page().map_err(|error| error.to_string())? {
        let known = match page {
            Page::DictionaryPage { buf, encoding: Encoding::PLAIN, .. } => decoder.take_dictionary(&buf)?,
            Page::DataPage {
                buf,
                num_values,
                encoding,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                ..
            } if num_values as usize <= MAX_PAGE => {
                let mut body = &buf[..];
                lengths.clear();
                let begin_here = read_lengths(&mut body, num_values as usize, left.len(), &mut lengths)?;
                let count = lengths.iter().map(|&length| length as usize).sum();
                let start = lists.numbers.len();
                let known = begin_here
                    && (count == 0 || decoder.decode(encoding, body, count, &mut lists.numbers)?);
                if known {
                    let here;
                    (here, left) = left.split_at(lengths.len());
                    lists.keep(start, &lengths, here);
                }
                known
            }
            _ => false,
        };
        if !known {
            return Ok(None);
        }
    }
    if left.is_empty() { Ok(Some(lists)) } else { Err("a column has fewer rows than its row group".into()) }
}

impl<T: Copy> Lists<T> {
    /// Of the lists from number `start` on, leaves those that are wanted.
    fn keep(&mut self, start: usize, lengths: &[u32], wanted: &[bool]) {
        let (mut from, mut to) = (start, start);
        for (&length, &wanted) in lengths.iter().zip(wanted) {
            let end = from + length as usize;
            if wanted {
                if from != to {
                    self.numbers.copy_within(from..end, to);
                }
                to += length as usize;
                self.lengths.push(length);
            }
            from = end;
        }
        self.numbers.truncate(to);
    }
}

/// Takes the levels off a page and appends the lengths of its lists; `false` if the first began on the page before.
fn read_lengths(
    body: &mut &[u8],
    n_levels: usize,
    max_lists: usize,
    lengths: &mut Vec<u32>,
) -> Result<bool, String> {
    let (mut begins_before, mut too_many) = (false, false);
    read_levels(body, n_levels, |goes_on, count| {
        if goes_on {
            match lengths.last_mut() {
                Some(length) => *length += count as u32,
                None => begins_before = true,
            }
        } else if lengths.len() + count <= max_lists {
            lengths.extend(std::iter::repeat_n(1, count));
        } else {
            too_many = true;
        }
    })?;
    let (mut position, mut empty) = (0, Vec::new());
    read_levels(body, n_levels, |is_number, count| {
        match is_number {
            false if empty.len() + count > max_lists => too_many = true,
            false => empty.extend(position..position + count),
            true => {}
        }
        position += count;
    })?;
    if too_many {
        return Err("a column has more rows than its row group".into());
    }
    if begins_before {
        return Ok(false);
    }
    // An empty list has one entry, which is no number.
    let (mut empty, mut start) = (empty.into_iter().peekable(), 0);
    for length in lengths {
        let n_levels = *length as usize;
        if empty.next_if_eq(&start).is_some() {
            if n_levels != 1 {
                return Err("a list has nothing and something".into());
            }
            *length = 0;
        }
        start += n_levels;
    }
    match empty.next() {
        None => Ok(true),
        Some(_) => Err("a list has nulls".into()),
    }
}

/// Takes levels of one bit off a page and hands them out as runs.
fn read_levels(
    body: &mut &[u8],
    n_levels: usize,
    mut take_run: impl FnMut(bool, usize),
) -> Result<(), String> {
    let n_bytes = u32::from_le_bytes(*take_array(body)?) as usize;
    let mut levels = take(body, n_bytes)?;
    let mut left = n_levels;
    while left > 0 {
        let header = read_varint(&mut levels)?;
        let count = usize::try_from(header >> 1).unwrap_or(usize::MAX);
        if count == 0 {
            return Err("a run of no levels".into());
        }
        if header & 1 == 0 {
            let &[level] = take_array::<1>(&mut levels)?;
            let count = count.min(left);
            take_run(level != 0, count);
            left -= count;
            continue;
        }
        for &packed in take(&mut levels, count.min(left.div_ceil(8)))? {
            let count = left.min(8);
            match packed {
                u8::MAX => take_run(true, count),
                _ => (0..count).for_each(|bit| take_run(packed >> bit & 1 != 0, 1)),
            }
            left -= count;
        }
    }
    Ok(())
}

/// DELTA_BINARY_PACKED numbers below 2^32.
struct Deltas;

impl Decoder for Deltas {
    type Number = u32;

    fn take_dictionary(&mut self, _: &[u8]) -> Result<bool, String> {
        Ok(false)
    }

    fn decode(
        &self,
        encoding: Encoding,
        mut page: &[u8],
        count: usize,
        numbers: &mut Vec<u32>,
    ) -> Result<bool, String> {
        let page = &mut page;
        if encoding != Encoding::DELTA_BINARY_PACKED {
            return Ok(false);
        }
        let (block, n_parts) = (read_varint(page)?, read_varint(page)?);
        let (n_stored, first) = (read_varint(page)?, read_zigzag(page)?);
        if (block, n_parts) != (BLOCK as u64, (BLOCK / PART) as u64) {
            return Ok(false);
        }
        if n_stored != count as u64 {
            return Err(format!("a page has {n_stored} numbers in lists of {count}"));
        }
        let start = numbers.len();
        numbers.resize(start + count, 0);
        let Some((first_number, mut rest)) = numbers[start..].split_first_mut() else { return Ok(true) };
        *first_number = first;
        let mut number = first;
        let mut deltas = [0; PART];
        while !rest.is_empty() {
            let least = read_zigzag(page)?;
            for &width in take_array::<{ BLOCK / PART }>(page)? {
                if rest.is_empty() {
                    break;
                }
                unpack(take(page, usize::from(width) * PART / 8)?, width, &mut deltas)?;
                let part;
                (part, rest) = rest.split_at_mut(PART.min(rest.len()));
                for (place, delta) in part.iter_mut().zip(deltas) {
                    number = number.wrapping_add(least).wrapping_add(delta);
                    *place = number;
                }
            }
        }
        Ok(true)
    }
}

/// RLE_DICTIONARY codes of numbers of sixteen bits.
struct Codes {
    dictionary: Vec<u16>,
}

impl Decoder for Codes {
    type Number = u16;

    fn take_dictionary(&mut self, page: &[u8]) -> Result<bool, String> {
        let numbers = page.as_chunks::<4>().0.iter().map(|&bytes| u16::try_from(u32::from_le_bytes(bytes)));
        self.dictionary = numbers.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        Ok(true)
    }

    fn decode(
        &self,
        encoding: Encoding,
        mut page: &[u8],
        count: usize,
        numbers: &mut Vec<u16>,
    ) -> Result<bool, String> {
        let page = &mut page;
        if encoding != Encoding::RLE_DICTIONARY {
            return Ok(false);
        }
        let &[width] = take_array::<1>(page)?;
        let start = numbers.len();
        numbers.resize(start + count, 0);
        let mut rest = &mut numbers[start..];
        while !rest.is_empty() {
            let header = read_varint(page)?;
            let count = usize::try_from(header >> 1).unwrap_or(usize::MAX);
            if count == 0 {
                return Err("a run of no codes".into());
            }
            let run;
            if header & 1 == 0 {
                (run, rest) = rest.split_at_mut(count.min(rest.len()));
                let code = take(page, usize::from(width).div_ceil(8))?;
                let code = code.iter().rev().fold(0u64, |code, &byte| code << 8 | u64::from(byte));
                let number = usize::try_from(code).ok().and_then(|code| self.dictionary.get(code));
                run.fill(*number.ok_or("a code without a number")?);
                continue;
            }
            (run, rest) = rest.split_at_mut(count.saturating_mul(8).min(rest.len()));
            let codes = take(page, count.min(run.len().div_ceil(8)) * usize::from(width))?;
            self.look_up(codes, width, run)?;
        }
        Ok(true)
    }
}

impl Codes {
    /// Numbers of packed codes.
    fn look_up(&self, packed: &[u8], width: u8, numbers: &mut [u16]) -> Result<(), String> {
        let (part_bytes, mut padded) = (usize::from(width) * PART / 8, [0; 4 * PART]);
        let mut codes = [0; PART];
        for (part, numbers) in numbers.chunks_mut(PART).enumerate() {
            let packed = packed.get(part * part_bytes..).unwrap_or_default();
            let whole = match packed.get(..part_bytes) {
                Some(whole) => whole,
                // The last codes of a page need not fill a part.
                None => {
                    padded.fill(0);
                    let room = padded.get_mut(..packed.len()).ok_or("codes are too wide")?;
                    room.copy_from_slice(packed);
                    padded.get(..part_bytes).ok_or("codes are too wide")?
                }
            };
            unpack(whole, width, &mut codes)?;
            let codes = &codes[..numbers.len()];
            if codes.iter().fold(0, |most, &code| most.max(code)) as usize >= self.dictionary.len() {
                return Err("a code without a number".into());
            }
            for (number, &code) in numbers.iter_mut().zip(codes) {
                *number = self.dictionary[code as usize];
            }
        }
        Ok(())
    }
}

/// Unpacks 32 numbers of `width` bits each, the lowest bits first, from `4 * width` bytes.
fn unpack(bytes: &[u8], width: u8, numbers: &mut [u32; PART]) -> Result<(), String> {
    macro_rules! by_width {
        ($($width:literal)*) => {
            match width {
                0 => numbers.fill(0),
                $($width => unpack_from::<$width>(bytes, numbers),)*
                _ => return Err(format!("numbers of {width} bits")),
            }
        };
    }
    by_width!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);
    Ok(())
}

fn unpack_from<const WIDTH: usize>(bytes: &[u8], numbers: &mut [u32; PART]) {
    let mut words = [0u32; WIDTH];
    for (word, &bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(bytes);
    }
    let mask = u32::MAX >> (32 - WIDTH);
    for (index, number) in numbers.iter_mut().enumerate() {
        let (word, bit) = (index * WIDTH / 32, index * WIDTH % 32);
        let high = if bit + WIDTH > 32 { words[word + 1] << (32 - bit) } else { 0 };
        *number = (words[word] >> bit | high) & mask;
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or("a page is cut short")?;
    *bytes = rest;
    Ok(taken)
}

fn take_array<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], String> {
    let (taken, rest) = bytes.split_first_chunk().ok_or("a page is cut short")?;
    *bytes = rest;
    Ok(taken)
}

fn read_varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let &[byte] = take_array::<1>(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err("a number has more than 64 bits".into())
}

/// The lower 32 bits of a number whose lowest bit is its sign.
fn read_zigzag(bytes: &mut &[u8]) -> Result<u32, String> {
    let number = read_varint(bytes)?;
    Ok((number >> 1) as u32 ^ ((number & 1) as u32).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_wider_than_any_number_are_refused() {
        let codes = Codes { dictionary: vec![7] };
        // Eight packed codes of 255 bits.
        let mut page = vec![255, 0b11];
        page.extend([0; 255]);
        let refused = codes.decode(Encoding::RLE_DICTIONARY, &page, 8, &mut Vec::new());
        assert_eq!(refused.unwrap_err(), "codes are too wide");
    }
}
