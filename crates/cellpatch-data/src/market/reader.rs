//! Lines and entries of a Matrix Market file.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::header::{Field, MarketFile};
use crate::error::{Error, Result};

/// Bytes in memory at a time.
const BUFFER_BYTES: usize = 1 << 18;
/// Longest line, comments included: entries have fewer than a hundred bytes, Cell Ranger's comments a few hundred.
const MAX_LINE_BYTES: usize = 1 << 16;
/// Most digits whose value fits an `f64` exactly.
const EXACT_DIGITS: usize = 15;

/// A stream of bytes with whole lines always at hand.
pub(crate) struct Lines {
    path: PathBuf,
    reader: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    number: u64,
}

impl Lines {
    pub(super) fn new(path: &Path, reader: Box<dyn Read + Send>) -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Self { path: path.to_path_buf(), reader, buffer, start: 0, end: 0, ended: false, number: 0 }
    }

    /// The line read last, counted from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// An error about the line read last.
    fn bad(&self, reason: impl Into<String>) -> Error {
        Error::BadLine { path: self.path.clone(), line: self.number, reason: reason.into() }
    }

    /// Brings what follows to the front of the buffer and fills it up.
    fn fill(&mut self) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        while self.end < self.buffer.len() {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(count) => self.end += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Io { action: "unpack", path: self.path.clone(), source });
                }
            }
        }
        Ok(())
    }

    /// What follows: at least one whole line unless the file ends.
    fn ahead(&mut self) -> Result<&[u8]> {
        if !self.ended && self.end - self.start < MAX_LINE_BYTES {
            self.fill()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// The next line without its end.
    pub(super) fn next_line(&mut self) -> Result<Option<&[u8]>> {
        let ahead = self.ahead()?;
        if ahead.is_empty() {
            return Ok(None);
        }
        let length = ahead.iter().take(MAX_LINE_BYTES).position(|&byte| byte == b'\n');
        let (length, next) = match length {
            Some(length) => (length, length + 1),
            None if ahead.len() < MAX_LINE_BYTES => (ahead.len(), ahead.len()),
            None => {
                self.number += 1;
                return Err(self.bad(format!("it is longer than {MAX_LINE_BYTES} bytes")));
            }
        };
        let begin = self.start;
        self.number += 1;
        self.start += next;
        let line = &self.buffer[begin..begin + length];
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }
}

/// The entries of a file, row and column counted from 0.
pub(super) struct EntryReader {
    file: MarketFile,
    lines: Lines,
    n_read: u64,
}

/// One line: row, column, value.
type Triple = (u32, u32, f64);

impl EntryReader {
    /// Goes to the first entry.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (file, lines) = MarketFile::begin(path)?;
        Ok(Self { file, lines, n_read: 0 })
    }

    /// The next entry, `None` after the last.
    pub(super) fn next_entry(&mut self) -> Result<Option<Triple>> {
        loop {
            let has_values = self.file.field() != Field::Pattern;
            let ahead = self.lines.ahead()?;
            if ahead.is_empty() {
                return self.end();
            }
            let (entry, length) = match entry(ahead, has_values) {
                Ok(found) => found,
                Err(reason) => {
                    self.lines.number += 1;
                    return Err(self.lines.bad(reason));
                }
            };
            self.lines.start += length;
            self.lines.number += 1;
            let Some((row, column, value)) = entry else { continue };
            self.n_read += 1;
            if self.n_read > self.file.n_entries() {
                let reason = format!("there are more entries than the {} announced", self.file.n_entries());
                return Err(self.lines.bad(reason));
            }
            let (n_rows, n_columns) = (self.file.n_rows() as u64, self.file.n_columns() as u64);
            if !(1..=n_rows).contains(&row) || !(1..=n_columns).contains(&column) {
                let reason = format!("row {row}, column {column} is outside {n_rows} x {n_columns}");
                return Err(self.lines.bad(reason));
            }
            return Ok(Some((row as u32 - 1, column as u32 - 1, value)));
        }
    }

    fn end(&self) -> Result<Option<Triple>> {
        if self.n_read == self.file.n_entries() {
            return Ok(None);
        }
        let n_entries = self.file.n_entries();
        Err(self.lines.bad(format!("the file is cut short: it has {} of {n_entries} entries", self.n_read)))
    }
}

/// The entry at the beginning of `text`, `None` for a blank line, and how many bytes its line takes.
#[allow(clippy::type_complexity, reason = "a name for it would say less than its parts")]
fn entry(text: &[u8], has_value: bool) -> Result<(Option<(u64, u64, f64)>, usize), &'static str> {
    let at = blanks(text, 0);
    if let Some(length) = line_end(text, at) {
        return Ok((None, length));
    }
    let (row, at) = index(text, at)?;
    let (column, at) = index(text, blanks(text, at))?;
    let (value, at) = if has_value { number(text, blanks(text, at))? } else { (1.0, at) };
    match line_end(text, blanks(text, at)) {
        Some(length) => Ok((Some((row, column, value)), length)),
        None => Err("it has more than row, column and value"),
    }
}

fn blanks(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    at
}

/// Where the next line begins if this one ends at `at`.
fn line_end(text: &[u8], at: usize) -> Option<usize> {
    match (text.get(at), text.get(at + 1)) {
        (None, _) => Some(at),
        (Some(b'\n'), _) => Some(at + 1),
        (Some(b'\r'), Some(b'\n')) => Some(at + 2),
        (Some(b'\r'), None) => Some(at + 1),
        _ => None,
    }
}

/// Digits from `at` on as a number, and where they end.
fn digits(text: &[u8], at: usize) -> (u64, usize) {
    let (mut value, mut end) = (0u64, at);
    while let Some(digit) = text.get(end).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
        value = value.saturating_mul(10).saturating_add(u64::from(digit));
        end += 1;
    }
    (value, end)
}

fn index(text: &[u8], at: usize) -> Result<(u64, usize), &'static str> {
    match digits(text, at) {
        (value, end) if end > at => Ok((value, end)),
        _ => Err("row and column must be whole numbers"),
    }
}

/// A number in any notation; counts, which are digits only, the quick way.
fn number(text: &[u8], at: usize) -> Result<(f64, usize), &'static str> {
    let is_end = |byte: Option<&u8>| matches!(byte, None | Some(b' ' | b'\t' | b'\n' | b'\r'));
    let (value, end) = digits(text, at);
    if end > at && end - at <= EXACT_DIGITS && is_end(text.get(end)) {
        return Ok((value as f64, end));
    }
    let mut end = at;
    while !is_end(text.get(end)) {
        end += 1;
    }
    let value = std::str::from_utf8(&text[at..end]).ok().and_then(|text| text.parse().ok());
    value.map(|value| (value, end)).ok_or("the value is missing or no number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_any_notation_are_entries() {
        let value = |line: &str| entry(line.as_bytes(), true).unwrap().0.unwrap();
        assert_eq!(value("12 3 45\n"), (12, 3, 45.0));
        assert_eq!(value("  12\t3 4.5e1 \r\n7"), (12, 3, 45.0));
        assert_eq!(value("1 1 -2"), (1, 1, -2.0));
        assert_eq!(value("1 1 12345678901234567890"), (1, 1, 12345678901234567890.0));
        assert_eq!(entry(b"1 2\n", false).unwrap(), (Some((1, 2, 1.0)), 4));
        assert_eq!(entry(b" \r\n1 1 1", true).unwrap(), (None, 3));
        for bad in ["1 1", "1 x 1", "1 1 1 1", "1 1 one", "-1 1 1"] {
            assert!(entry(bad.as_bytes(), true).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_are_whole_wherever_the_buffer_ends() {
        let text: String = (0..40_000).map(|line| format!("{line} and some more of it\n")).collect();
        let mut lines = Lines::new(Path::new("text"), Box::new(std::io::Cursor::new(text.into_bytes())));
        for line in 0..40_000 {
            let found = lines.next_line().unwrap().unwrap();
            assert_eq!(found, format!("{line} and some more of it").as_bytes());
        }
        assert!(lines.next_line().unwrap().is_none());
        let mut endless = Lines::new(Path::new("text"), Box::new(std::io::repeat(b'1')));
        assert!(endless.next_line().unwrap_err().to_string().contains("longer"));
    }
}
