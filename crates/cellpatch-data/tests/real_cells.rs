//! Real files through shards and loader, compared with what the files say.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may")]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use cellpatch_data::{
    AnnDataFile, GeneToken, Loader, LoaderOptions, MatrixChoice, QualityFilter, RowSelection, ShardOptions,
    normalize, write_shards,
};
use tempfile::TempDir;

/// The CELLxGENE-like files, or `None` where they are not installed.
fn real_files() -> Option<Vec<PathBuf>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let data = std::env::var_os("CELLPATCH_DATA").map_or(beside, PathBuf::from);
    let Ok(entries) = std::fs::read_dir(data.join("cellxgene")) else {
        println!("skipped: no real cells in {}; set CELLPATCH_DATA", data.display());
        return None;
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "h5ad"));
    files.sort();
    Some(files)
}

#[test]
fn shards_give_back_every_cell_of_ten_files() {
    let Some(files) = real_files() else { return };
    let folder = TempDir::new().unwrap();
    let options = ShardOptions { quality: QualityFilter::OFF, ..ShardOptions::default() };
    let set = Arc::new(write_shards(&files, &folder.path().join("set"), &options, &mut |_| {}).unwrap());
    set.verify().unwrap();

    let (vocabulary, sources, ids) =
        (set.vocabulary().unwrap(), set.rows().unwrap().sources, set.cell_ids().unwrap());
    let everything = LoaderOptions {
        shuffle: false,
        masking: cellpatch_data::Masking { max_input: usize::MAX, ..Default::default() },
        ..LoaderOptions::default()
    };
    let loader = Loader::new(Arc::clone(&set), RowSelection::all(set.n_cells() as u64), everything).unwrap();
    let mut loaded: HashMap<(u32, String), Vec<(u32, f32)>> = HashMap::new();
    for batch in loader.expressions(0, 0) {
        let batch = batch.unwrap();
        for cell in 0..batch.n_cells() {
            let row = batch.rows[cell] as usize;
            let (genes, values) = batch.cell(cell);
            let values = genes.iter().copied().zip(values.iter().copied()).collect();
            assert!(loaded.insert((sources[row], ids[row].clone()), values).is_none());
        }
    }

    let mut n_compared = 0;
    for (index, path) in files.iter().enumerate() {
        let file = AnnDataFile::open(path).unwrap();
        let chosen = file.choose_matrix(&MatrixChoice::default()).unwrap();
        let tokens = vocabulary.match_genes(&file.genes(&chosen.location).unwrap()).tokens;
        let names = file.cell_ids().unwrap();
        for block in file.chosen_blocks(&chosen, 1 << 20).unwrap() {
            let block = block.unwrap();
            for cell in 0..block.n_cells() {
                let (columns, counts) = block.cell(cell);
                let mut values = Vec::new();
                normalize(counts, counts.iter().sum(), &mut values);
                let token = |&column: &u32| tokens[column as usize].map(|GeneToken(token)| token).unwrap();
                let mut expected: Vec<(u32, f32)> = columns.iter().map(token).zip(values).collect();
                expected.sort_by_key(|&(token, _)| token);
                let key = (index as u32, names[block.first_row + cell].clone());
                assert_eq!(loaded[&key], expected, "{} {}", path.display(), key.1);
                n_compared += 1;
            }
        }
    }
    assert_eq!(n_compared, set.n_cells(), "every cell of every file, and no other");
}
