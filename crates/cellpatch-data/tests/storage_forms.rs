//! Files in HDF5's rarer forms, made by h5py: filters of plugins, soft links, the newest layout. `storage/make.py` made them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod reference;

use std::path::{Path, PathBuf};

use cellpatch_data::{AnnDataFile, CountBlock, Error, MatrixChoice, MatrixLocation, open_cells};
use reference::join;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/storage").join(name)
}

/// The counts every matrix holds.
fn counts() -> CountBlock {
    let mut block = CountBlock { offsets: vec![0], ..CountBlock::default() };
    for line in std::fs::read_to_string(file("counts.txt")).unwrap().lines() {
        for entry in line.split_whitespace() {
            let (column, value) = entry.split_once(':').unwrap();
            block.columns.push(column.parse().unwrap());
            block.values.push(value.parse().unwrap());
        }
        block.offsets.push(block.columns.len());
    }
    block
}

/// Reads every layer with a name that `keep` takes, and says how many there were.
fn assert_layers(name: &str, keep: impl Fn(&str) -> bool) -> usize {
    let file = AnnDataFile::open(&file(name)).unwrap();
    let counts = counts();
    let mut n_layers = 0;
    for layer in file.matrices() {
        if !keep(&layer.to_string()) {
            continue;
        }
        for max_bytes in [0, 2_000, 1 << 20] {
            let blocks = file.blocks(&layer, max_bytes).unwrap_or_else(|error| panic!("{layer}: {error}"));
            let found = join(blocks).unwrap_or_else(|error| panic!("{layer}: {error}"));
            assert!(found == counts, "{name} {layer} in blocks of {max_bytes}");
        }
        n_layers += 1;
    }
    n_layers
}

#[test]
fn filters_of_plugins_are_undone() {
    assert_eq!(assert_layers("filters.h5ad", |_| true), 2 * 19 + 5);
}

#[test]
fn every_chunk_index_of_the_newest_layout_reads() {
    assert_eq!(assert_layers("newest.h5ad", |_| true), 4 * 2 * 4);
}

#[test]
fn a_filter_without_a_reader_is_named() {
    let error = open_cells(&file("blosc2.h5ad"), &MatrixChoice::default()).err().unwrap();
    assert!(error.to_string().contains("compressed with blosc2"), "{error}");
}

#[test]
fn soft_links_lead_to_what_they_name() {
    for name in ["links-old.h5ad", "links-new.h5ad"] {
        assert_eq!(assert_layers(name, |layer| ["X", "layers/same"].contains(&layer)), 2, "{name}");
        let file = AnnDataFile::open(&file(name)).unwrap();
        assert_eq!(file.n_cells(), 24);
        assert_eq!(file.obs_columns(), ["number", "again"]);
        let (number, again) = (file.obs_column("number").unwrap(), file.obs_column("again").unwrap());
        assert_eq!(number.values, again.values);
        let refusal = |layer: &str| file.matrix_info(&MatrixLocation::Layer(layer.into())).unwrap_err();
        assert!(matches!(refusal("nowhere"), Error::Missing { .. }), "{}", refusal("nowhere"));
        assert!(refusal("circle").to_string().contains("in a circle"), "{}", refusal("circle"));
        assert!(refusal("outside").to_string().contains("another file"), "{}", refusal("outside"));
    }
}
