//! Any bytes as an `.h5ad`: opened, every column and matrix read.
#![no_main]

use cellpatch_data::AnnDataFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join("cells.h5ad");
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    let Ok(file) = AnnDataFile::open(&path) else { return };
    let _ = file.cell_ids();
    for column in file.obs_columns() {
        let _ = file.obs_column(&column).map(|column| column.labels());
    }
    for matrix in file.matrices() {
        let _ = file.genes(&matrix);
        if let Ok(blocks) = file.blocks(&matrix, 1 << 16) {
            blocks.for_each(drop);
        }
    }
});
