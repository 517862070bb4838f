//! Any bytes as a vocabulary: Parquet, and the released dictionary's JSON.
#![no_main]

use cellpatch_data::GeneVocabulary;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join("vocabulary");
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    let _ = GeneVocabulary::read_parquet(&path);
    let _ = GeneVocabulary::from_gene2tok(&path, 70_000);
});
