//! What a file is that is not HDF5.

use super::MATRIX_MARKET;

/// What the first bytes of a file that is not HDF5 look like.
pub(super) fn looks_like(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &'static str); 7] = [
        (b"version https://git-lfs", "a Git LFS pointer: fetch the file with `git lfs pull`"),
        (b"\x1f\x8b", "gzip-compressed data: unpack it first"),
        (b"PK\x03\x04", "a zip archive: unpack it first"),
        (b"PAR1", "a Parquet file"),
        (b"<", "a web page"),
        (b"%%MatrixMarket", MATRIX_MARKET),
        (b"{", "JSON"),
    ];
    if head.is_empty() {
        return Some("an empty file");
    }
    known.iter().find(|(start, _)| head.starts_with(start)).map(|&(_, what)| what)
}
