//! Any bytes as a 10x `.h5`: opened and every cell read.
#![no_main]

use cellpatch_data::{MatrixChoice, describe_cells, open_cells};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join("cells.h5");
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    let _ = describe_cells(&path, None);
    let Ok(source) = open_cells(&path, &MatrixChoice::default()) else { return };
    let _ = (source.genes(), source.cell_ids());
    if let Ok(blocks) = source.blocks(1 << 16) {
        blocks.for_each(drop);
    }
});
