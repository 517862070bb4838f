//! Any text as the manifest of a shard set.
#![no_main]

use cellpatch_data::{Manifest, ShardSet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    if std::fs::write(folder.path().join("manifest.json"), bytes).is_err() {
        return;
    }
    let _ = Manifest::read(folder.path());
    let _ = ShardSet::open(folder.path());
});
