//! The real data, and what anndata and scanpy read from it.

#![allow(
    dead_code,
    clippy::print_stdout,
    reason = "every test uses a part of this, and one that is skipped says so"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cellpatch_data::CountBlock;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The folder of real data, or `None` after saying that the test is skipped.
pub(crate) fn data() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("CELLPATCH_DATA").map_or_else(beside, PathBuf::from);
    if folder.join("cells").is_dir() {
        return Some(folder);
    }
    println!("skipped: no data in {} (set CELLPATCH_DATA)", folder.display());
    None
}

/// What anndata reads from a file.
#[derive(Deserialize)]
pub(crate) struct ExpectedFile {
    pub(crate) n_cells: usize,
    pub(crate) cell_ids: String,
    pub(crate) matrices: BTreeMap<String, ExpectedMatrix>,
    pub(crate) obs: BTreeMap<String, Option<String>>,
}

/// What anndata reads from a matrix.
#[derive(Deserialize)]
pub(crate) struct ExpectedMatrix {
    pub(crate) shape: [usize; 2],
    pub(crate) nonzero: usize,
    pub(crate) sum: f64,
    pub(crate) sha256: String,
}

/// What anndata reads, by file.
pub(crate) fn expected_files() -> BTreeMap<String, ExpectedFile> {
    serde_json::from_str(include_str!("../expected/files.json")).unwrap()
}

/// Bytes of a digest in hex.
pub(crate) fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of lines.
pub(crate) fn text_hash(lines: &[String]) -> String {
    hex(Sha256::new_with_prefix(lines.join("\n")))
}

/// SHA-256 of offsets, columns and values, as make.py computes it.
pub(crate) fn matrix_hash(matrix: &CountBlock) -> String {
    let mut hasher = Sha256::new();
    matrix.offsets.iter().for_each(|offset| hasher.update((*offset as u64).to_le_bytes()));
    matrix.columns.iter().for_each(|column| hasher.update(column.to_le_bytes()));
    matrix.values.iter().for_each(|value| hasher.update(value.to_le_bytes()));
    hex(hasher)
}

/// What scanpy reads from a 10x input.
#[derive(Deserialize)]
pub(crate) struct ExpectedTenx {
    pub(crate) matrix: ExpectedMatrix,
    pub(crate) cell_ids: String,
    pub(crate) gene_names: String,
    pub(crate) first_gene: [String; 2],
}

/// What scanpy reads, by path and genome: `path|genome`, the genome empty where none has to be chosen.
pub(crate) fn expected_tenx() -> BTreeMap<String, ExpectedTenx> {
    serde_json::from_str(include_str!("../expected/tenx.json")).unwrap()
}

/// Puts blocks together to one.
pub(crate) fn join(
    blocks: impl Iterator<Item = cellpatch_data::Result<CountBlock>>,
) -> cellpatch_data::Result<CountBlock> {
    let mut whole = CountBlock { offsets: vec![0], ..CountBlock::default() };
    for block in blocks {
        let block = block?;
        assert_eq!(block.first_row, whole.n_cells());
        let start = whole.columns.len();
        whole.offsets.extend(block.offsets[1..].iter().map(|offset| start + offset));
        whole.columns.extend(block.columns);
        whole.values.extend(block.values);
    }
    Ok(whole)
}
