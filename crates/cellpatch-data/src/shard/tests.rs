mod kept;
mod parts;
mod restart;
mod samples;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    fixture::{MemorySource, contents_of, options, shards, symbol, write},
    *,
};
use crate::{Error, GeneToken, GeneVocabulary, QualityFilter};

/// Source and cell id -> (symbol, value) of every gene, and the total.
type Contents = HashMap<(String, String), (Vec<(String, f32)>, f64)>;

fn contents(set: &ShardSet) -> Contents {
    let vocabulary = set.vocabulary().unwrap();
    let ids = set.cell_ids().unwrap();
    let mut contents = Contents::new();
    for &group in set.row_groups() {
        let cells = set.decode(group, &|_| true).unwrap();
        for cell in 0..cells.n_cells() {
            let range = cells.offsets[cell]..cells.offsets[cell + 1];
            let values: Vec<f32> = match &cells.counts {
                CellCounts::U16(counts) => counts[range].iter().copied().map(f32::from).collect(),
                CellCounts::F32(counts) => counts[range].to_vec(),
            };
            let name = |&token: &u32| vocabulary.gene(GeneToken(token)).unwrap().name().to_owned();
            let mut genes: Vec<_> = cells.genes(cell).iter().map(name).zip(values).collect();
            genes.sort_by(|a, b| a.0.cmp(&b.0));
            let source = set.manifest().sources[cells.sources[cell] as usize].name.clone();
            let key = (source, ids[cells.rows[cell] as usize].clone());
            assert!(
                contents.insert(key, (genes, cells.total_counts[cell])).is_none(),
                "a cell is there twice"
            );
        }
    }
    contents
}

fn expected(sources: &[MemorySource]) -> Contents {
    let mut contents = Contents::new();
    for (index, source) in sources.iter().enumerate() {
        for (cell, values) in source.cells.iter().enumerate() {
            let name = |column: u32| source.genes[column as usize].name().to_owned();
            let mut genes: Vec<_> = values.iter().map(|&(column, value)| (name(column), value)).collect();
            genes.sort_by(|a, b| a.0.cmp(&b.0));
            let total = values.iter().map(|&(_, value)| f64::from(value)).sum();
            contents.insert((format!("s{index}"), format!("{}{cell}", source.prefix)), (genes, total));
        }
    }
    contents
}

fn write_set(sources: &[MemorySource], options: &ShardOptions) -> (TempDir, ShardSet) {
    let folder = TempDir::new().unwrap();
    let set = write(sources, &folder.path().join("set"), options).unwrap();
    (folder, set)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_cell_comes_back_exactly_once_with_its_counts(
        sizes in proptest::collection::vec(1usize..60, 1..4),
        seed in any::<u64>(),
        row_group_cells in 1usize..40,
    ) {
        let sources: Vec<_> = sizes.iter().zip(0..).map(|(&n_cells, index)| MemorySource::random(n_cells, 30, index)).collect();
        let options = ShardOptions { seed, row_group_cells, ..options() };
        let (_folder, set) = write_set(&sources, &options);
        prop_assert_eq!(set.n_cells(), sizes.iter().sum::<usize>());
        prop_assert_eq!(contents(&set), expected(&sources));
        set.verify().unwrap();
    }
}

#[test]
fn the_order_does_not_depend_on_the_number_of_buckets() {
    let source = MemorySource::random(3000, 2000, 3);
    let many = ShardOptions { max_memory: 16 << 20, ..options() };
    let (_one_folder, one) = write_set(std::slice::from_ref(&source), &options());
    let (_many_folder, many) = write_set(&[source], &many);
    assert_eq!(one.manifest().files.len(), 1);
    assert!(many.manifest().files.len() > 2, "{} files", many.manifest().files.len());
    assert_eq!(one.cell_ids().unwrap(), many.cell_ids().unwrap());
}

#[test]
fn the_order_is_random_and_repeats_with_the_seed() {
    let source = MemorySource::random(400, 20, 3);
    let order: Vec<usize> = {
        let (_folder, set) = write_set(std::slice::from_ref(&source), &options());
        set.cell_ids().unwrap().iter().map(|id| id.parse().unwrap()).collect()
    };
    let n_ascending = order.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((150..250).contains(&n_ascending), "{n_ascending} of 399 neighbours ascend");
    let (_a, a) = write_set(std::slice::from_ref(&source), &ShardOptions { seed: 7, ..options() });
    let (_b, b) = write_set(std::slice::from_ref(&source), &ShardOptions { seed: 7, ..options() });
    let (_c, c) = write_set(&[source], &ShardOptions { seed: 8, ..options() });
    assert_eq!(a.manifest(), b.manifest());
    assert_ne!(a.cell_ids().unwrap(), c.cell_ids().unwrap());
}

#[test]
fn quality_control_is_per_source_and_totals_count_kept_genes_only() {
    // Gene C is in one kept cell of the first source; cell 2 has too few genes.
    let first = MemorySource {
        genes: ["A", "B", "C"].map(symbol).to_vec(),
        cells: vec![vec![(0, 1.0), (1, 2.0)], vec![(0, 3.0), (1, 4.0), (2, 5.0)], vec![(2, 9.0)]],
        ..Default::default()
    };
    let second = MemorySource { cells: vec![vec![(1, 6.0), (2, 7.0)]; 2], ..first.clone() };
    let options = ShardOptions {
        quality: QualityFilter { min_genes: 2, min_cells: 2 },
        obs_columns: Vec::new(),
        ..options()
    };
    let (_folder, set) = write_set(&[first, second], &options);
    let found = contents(&set);
    assert_eq!(found.len(), 4);
    assert_eq!(found[&("s0".into(), "1".into())], (vec![("A".into(), 3.0), ("B".into(), 4.0)], 7.0));
    assert_eq!(found[&("s1".into(), "0".into())], (vec![("B".into(), 6.0), ("C".into(), 7.0)], 13.0));
    assert_eq!(set.measured_genes(0).len(), 2);
    let entry = &set.manifest().sources[0];
    assert_eq!((entry.n_cells, entry.n_cells_kept, entry.n_genes, entry.n_genes_kept), (3, 2, 3, 2));
}

#[test]
fn genes_outside_a_fixed_vocabulary_count_in_the_total_alone() {
    let mut vocabulary = GeneVocabulary::new(10);
    vocabulary.extend(&["A", "B"].map(symbol), Path::new("known")).unwrap();
    let source = MemorySource {
        genes: ["B", "X", "A", "Y"].map(symbol).to_vec(),
        cells: vec![vec![(0, 1.0), (1, 10.0), (2, 3.0)], vec![(1, 5.0), (3, 50.0)]],
        ..Default::default()
    };
    let options = ShardOptions {
        vocabulary: Some(vocabulary),
        extend_vocabulary: false,
        obs_columns: Vec::new(),
        ..options()
    };
    let (_folder, set) = write_set(std::slice::from_ref(&source), &options);
    let found = contents(&set);
    assert_eq!(found.len(), 1, "the second cell has no known gene");
    assert_eq!(found[&("s0".into(), "0".into())], (vec![("A".into(), 3.0), ("B".into(), 1.0)], 14.0));
    let entry = &set.manifest().sources[0];
    assert_eq!((entry.n_cells_without_genes, entry.n_dropped), (1, 2));
    assert_eq!(entry.largest_misses, ["Y", "X"]);
    let strict = ShardOptions { min_match: 0.9, ..options };
    let folder = TempDir::new().unwrap();
    let error = write(&[source], &folder.path().join("set"), &strict).unwrap_err();
    assert!(matches!(error, Error::FewGenesMatched { matched: 2, n_genes: 4, .. }), "{error}");
}

#[test]
fn columns_of_the_same_gene_are_summed() {
    let source = MemorySource {
        genes: ["A", "B", "A"].map(symbol).to_vec(),
        cells: vec![vec![(0, 60_000.0), (1, 1.0), (2, 60_000.0)], vec![(2, 2.0)]],
        ..Default::default()
    };
    let (_folder, set) = write_set(&[source], &ShardOptions { obs_columns: Vec::new(), ..options() });
    assert_eq!(set.manifest().values, StoredValues::CountsF32, "the sum does not fit 16 bits");
    let found = contents(&set);
    assert_eq!(
        found[&("s0".into(), "0".into())],
        (vec![("A".into(), 120_000.0), ("B".into(), 1.0)], 120_001.0)
    );
    assert_eq!(found[&("s0".into(), "1".into())], (vec![("A".into(), 2.0)], 2.0));
}

#[test]
fn max_cells_takes_a_sample_of_all_sources() {
    let sources = [MemorySource::random(300, 20, 1), MemorySource::random(100, 20, 2)];
    let (_folder, set) = write_set(&sources, &ShardOptions { max_cells: Some(200), ..options() });
    assert_eq!(set.n_cells(), 200);
    let n_first = set.manifest().sources[0].n_cells_written;
    assert!((130..170).contains(&n_first), "{n_first} of 200 cells come from the source with three quarters");
    let everything = expected(&sources);
    assert!(contents(&set).iter().all(|(key, cell)| everything[key] == *cell));
}

#[test]
fn labels_of_different_sources_share_categories() {
    let (first, mut second) = (MemorySource::random(40, 20, 1), MemorySource::random(10, 20, 2));
    second.obs.clear();
    let (_folder, set) = write_set(&[first.clone(), second], &options());
    let labels = set.labels("donor_id").unwrap();
    assert_eq!(labels.categories, ["a", "b", "c", "d"]);
    let sources = set.labels("source").unwrap();
    assert_eq!(sources.categories, ["s0", "s1"]);
    let rows = set.rows().unwrap();
    for (row, id) in set.cell_ids().unwrap().iter().enumerate() {
        let cell: usize = id.parse().unwrap();
        let from_first = sources.codes[row] == Some(0);
        assert_eq!(labels.codes[row], if from_first { first.obs[0].1.codes[cell] } else { None });
        if from_first {
            assert_eq!(rows.n_genes[row] as usize, first.cells[cell].len());
        }
        assert_eq!(rows.sources[row], sources.codes[row].unwrap());
    }
    let error = set.labels("tissue").unwrap_err();
    assert!(matches!(error, Error::Missing { what: "label column", .. }), "{error}");
    let folder = TempDir::new().unwrap();
    let missing = ShardOptions { obs_columns: vec!["tissue".into()], ..options() };
    assert!(matches!(write(&[first], folder.path(), &missing), Err(Error::Missing { .. })));
}

#[test]
fn logarithms_and_counts_meet_as_logarithms() {
    let counts = MemorySource {
        genes: ["A", "B"].map(symbol).to_vec(),
        cells: vec![vec![(0, 1.0), (1, 3.0)]],
        ..Default::default()
    };
    let logarithms =
        MemorySource { cells: vec![vec![(0, 0.5), (1, 1.25)]], is_log1p: true, ..counts.clone() };
    let (_folder, set) =
        write_set(&[counts, logarithms], &ShardOptions { obs_columns: Vec::new(), ..options() });
    assert_eq!(set.manifest().values, StoredValues::Log1pF32);
    let found = contents(&set);
    assert_eq!(found[&("s1".into(), "0".into())].0, [("A".into(), 0.5), ("B".into(), 1.25)]);
    assert_eq!(found[&("s0".into(), "0".into())].0, [("A".into(), 2501f32.ln()), ("B".into(), 7501f32.ln())]);
}

#[test]
fn an_interrupted_run_is_no_shard_set_and_is_started_over() {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("set");
    let unfinished = folder::UnfinishedFolder::claim(&target, "job").unwrap();
    fs::write(unfinished.work().join("bucket-00000"), b"half a cell").unwrap();
    fs::write(target.join("cells-00007.parquet"), b"moved, but the manifest was never written").unwrap();
    assert!(matches!(folder::UnfinishedFolder::claim(&target, "job"), Err(Error::FolderBusy { .. })));
    // A killed process runs no destructor, but its lock is gone: forgetting would keep the lock.
    let work = unfinished.work().to_path_buf();
    let backup = folder.path().join("backup");
    fs::create_dir(&backup).unwrap();
    fs::rename(&work, backup.join("work")).unwrap();
    fs::rename(target.join("cells-00007.parquet"), backup.join("cells")).unwrap();
    drop(unfinished);
    fs::rename(backup.join("work"), &work).unwrap();
    fs::rename(backup.join("cells"), target.join("cells-00007.parquet")).unwrap();

    assert!(matches!(ShardSet::open(&target), Err(Error::NotAShardSet { .. })));
    let set = write(&[MemorySource::random(30, 20, 1)], &target, &options()).unwrap();
    assert_eq!(set.n_cells(), 30);
    let names: std::collections::BTreeSet<_> = fs::read_dir(&target)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        ["cells-00000.parquet", "manifest.json", "sources.parquet", "vocabulary.parquet"]
    );
}

#[test]
fn a_failed_run_takes_back_what_it_wrote() {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("set");
    let options = ShardOptions { capacity: 5, ..options() };
    let error = write(&[MemorySource::random(30, 20, 1)], &target, &options).unwrap_err();
    assert!(matches!(error, Error::VocabularyFull { .. }), "{error}");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

#[test]
fn a_folder_with_something_else_is_left_alone() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("thesis.txt"), b"years of work").unwrap();
    let error = write(&[MemorySource::random(30, 20, 1)], folder.path(), &options()).unwrap_err();
    assert!(matches!(&error, Error::FolderNotEmpty { found, .. } if found == "thesis.txt"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let (_kept, set) = shards(20);
    let again = write(&[MemorySource::random(30, 20, 1)], set.path(), &options());
    assert!(matches!(again, Err(Error::FolderNotEmpty { .. })));
    assert_eq!(ShardSet::open(set.path()).unwrap().n_cells(), 20);
}

#[test]
fn nothing_left_after_quality_control_is_an_error() {
    let folder = TempDir::new().unwrap();
    let options = ShardOptions { quality: QualityFilter::default(), ..options() };
    let error = write(&[MemorySource::random(30, 20, 1)], folder.path(), &options).unwrap_err();
    assert!(matches!(error, Error::NoCells { filtered: true, .. }), "{error}");
}

#[test]
fn a_damaged_set_is_an_error() {
    let (_folder, set) = shards(100);
    let path = set.path().to_path_buf();
    let file = path.join("cells-00000.parquet");
    let whole = fs::read(&file).unwrap();
    for position in (4..whole.len()).step_by(whole.len() / 61) {
        let mut damaged = whole.clone();
        damaged[position] ^= 0x55;
        fs::write(&file, &damaged).unwrap();
        let set = ShardSet::open(&path).unwrap();
        let decoded: Result<Vec<_>, _> =
            set.row_groups().iter().map(|&group| set.decode(group, &|_| true)).collect();
        assert!(matches!(decoded, Err(Error::ChecksumMismatch { .. })), "byte {position} is wrong");
        // Light columns are read on trust, but never with a panic.
        let _ = (set.rows(), set.labels("donor_id"), set.cell_ids());
        assert!(matches!(set.verify(), Err(Error::ChecksumMismatch { .. })));
    }
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(ShardSet::open(&path), Err(Error::NotAShardSet { .. })));
    fs::remove_file(&file).unwrap();
    assert!(matches!(ShardSet::open(&path), Err(Error::NotAShardSet { .. })));
    assert!(matches!(ShardSet::open(path.join("nowhere")), Err(Error::NotFound { .. })));
}

#[test]
fn a_manifest_from_elsewhere_is_not_trusted() {
    let (_folder, set) = shards(20);
    let file = set.path().join(MANIFEST_FILE);
    let good = fs::read_to_string(&file).unwrap();
    for (from, to) in [
        ("\"version\": 2", "\"version\": 3"),
        ("cells-00000.parquet", "../cells-00000.parquet"),
        ("\"n_cells\": 20", "\"n_cells\": 21"),
        ("cellpatch-shards", "other"),
        ("\"files\"", "\"filez\""),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&file, good.replacen(from, to, 1)).unwrap();
        let error = ShardSet::open(set.path()).unwrap_err();
        assert!(matches!(error, Error::NotAShardSet { .. }), "{from}: {error}");
    }
}
