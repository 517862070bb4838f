//! Any text as the matrix of a 10x folder with three genes and two cells.
#![no_main]

use cellpatch_data::{MatrixChoice, open_cells};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    let files: [(&str, &[u8]); 3] = [
        ("matrix.mtx", bytes),
        ("features.tsv", b"ENSG00000141510\tTP53\nENSG00000153563\tCD8A\nENSG00000105374\tNKG7\n"),
        ("barcodes.tsv", b"AAACCTGAGAAACCAT-1\nAAACCTGAGAAACCGC-1\n"),
    ];
    if files.iter().any(|(name, text)| std::fs::write(folder.path().join(name), text).is_err()) {
        return;
    }
    let Ok(source) = open_cells(folder.path(), &MatrixChoice::default()) else { return };
    if let Ok(blocks) = source.blocks(1 << 10) {
        blocks.for_each(drop);
    }
});
