//! Sets that several processes make.

use super::{super::fixture::Inputs, *};

/// A vocabulary of the genes that random sources have, but for every tenth.
fn vocabulary(n_genes: u32) -> GeneVocabulary {
    let mut vocabulary = GeneVocabulary::new(n_genes as usize + 1);
    let genes = (0..n_genes).filter(|gene| gene % 10 != 9).map(|gene| symbol(&format!("G{gene}")));
    vocabulary.extend(&genes.collect::<Vec<_>>(), Path::new("known")).unwrap();
    vocabulary
}

fn part_options(n_genes: u32) -> ShardOptions {
    ShardOptions { vocabulary: Some(vocabulary(n_genes)), extend_vocabulary: false, ..options() }
}

/// Shards each part into a folder of its own.
fn write_parts(inputs: &Inputs, folder: &Path, count: u32, options: &ShardOptions) -> Vec<PathBuf> {
    let write = |index| {
        let part = ShardPart { index, count };
        let out = folder.join(format!("part-{index}"));
        inputs.write(&out, &ShardOptions { part: Some(part), ..options.clone() }, &mut |_| {}).unwrap();
        out
    };
    (1..=count).map(write).collect()
}

fn merge(parts: &[PathBuf], out: &Path, options: &MergeOptions) -> Result<ShardSet, Error> {
    merge_shards(parts, out, options, &mut |_| {})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn parts_merge_into_the_bytes_that_one_process_writes(
        sizes in proptest::collection::vec(1usize..60, 1..7),
        count in 1u32..7,
        seed in any::<u64>(),
        max_cells in proptest::option::of(1usize..100),
        stratify in any::<bool>(),
        kind in 0..3,
    ) {
        let count = count.min(sizes.len() as u32);
        let mut sources: Vec<_> =
            sizes.iter().zip(0..).map(|(&n_cells, index)| MemorySource::random(n_cells, 40, index)).collect();
        match kind {
            // Counts that do not fit 16 bits, or logarithms, in one source decide the type of all.
            1 => sources[0].cells[0][0].1 = 70_000.0,
            2 => sources[0].is_log1p = true,
            _ => {}
        }
        let inputs = Inputs::new(&sources);
        let folder = TempDir::new().unwrap();
        let options = ShardOptions { seed, ..part_options(40) };
        let parts = write_parts(&inputs, folder.path(), count, &options);
        let stratify = (stratify && max_cells.is_some()).then(|| "donor_id".to_owned());
        let (merged, whole) = (folder.path().join("merged"), folder.path().join("whole"));
        let merging = MergeOptions { max_cells, stratify: stratify.clone(), ..MergeOptions::default() };
        merge(&parts, &merged, &merging).unwrap().verify().unwrap();
        inputs.write(&whole, &ShardOptions { max_cells, stratify, ..options }, &mut |_| {}).unwrap();
        prop_assert!(contents_of(&merged) == contents_of(&whole));
    }
}

#[test]
fn large_parts_merge_in_buckets() {
    let sources: Vec<_> = (0..3).map(|index| MemorySource::random(800, 3000, index)).collect();
    let inputs = Inputs::new(&sources);
    let folder = TempDir::new().unwrap();
    let options = ShardOptions { max_memory: 16 << 20, ..part_options(3000) };
    let parts = write_parts(&inputs, folder.path(), 2, &options);
    let merging = MergeOptions { max_memory: 16 << 20, ..MergeOptions::default() };
    let merged = merge(&parts, &folder.path().join("merged"), &merging).unwrap();
    assert!(merged.manifest().files.len() > 2, "{} files", merged.manifest().files.len());
    inputs.write(&folder.path().join("whole"), &options, &mut |_| {}).unwrap();
    assert!(contents_of(merged.path()) == contents_of(&folder.path().join("whole")));
    // What one process after the other makes of it does not depend on memory either, but for where files end.
    let roomy = merge(&parts, &folder.path().join("roomy"), &MergeOptions::default()).unwrap();
    assert_eq!(roomy.manifest().files.len(), 1);
    assert_eq!(roomy.cell_ids().unwrap(), merged.cell_ids().unwrap());
}

#[test]
fn a_part_may_have_nothing_left() {
    let genes = ["G0", "G1"].map(symbol).to_vec();
    let full = MemorySource { genes, cells: vec![vec![(0, 1.0), (1, 2.0)]; 5], ..Default::default() };
    let poor = MemorySource { cells: vec![vec![(0, 1.0)]; 4], is_log1p: true, ..full.clone() };
    let inputs = Inputs::new(&[full, poor]);
    let folder = TempDir::new().unwrap();
    let quality = QualityFilter { min_genes: 2, min_cells: 0 };
    let options = ShardOptions { quality, obs_columns: Vec::new(), ..part_options(2) };
    let parts = write_parts(&inputs, folder.path(), 2, &options);
    assert_eq!(ShardSet::open(&parts[1]).unwrap().n_cells(), 0);
    merge(&parts, &folder.path().join("merged"), &MergeOptions::default()).unwrap();
    inputs.write(&folder.path().join("whole"), &options, &mut |_| {}).unwrap();
    assert!(contents_of(&folder.path().join("merged")) == contents_of(&folder.path().join("whole")));
}

#[test]
fn only_all_parts_of_one_set_are_merged() {
    let sources: Vec<_> = (0..3).map(|index| MemorySource::random(30, 40, index)).collect();
    let inputs = Inputs::new(&sources);
    let folder = TempDir::new().unwrap();
    let parts = write_parts(&inputs, folder.path(), 3, &part_options(40));
    let out = folder.path().join("merged");
    let default = MergeOptions::default();

    let error = merge(&parts[1..2], &out, &default).unwrap_err();
    assert!(matches!(&error, Error::MissingParts { missing, count: 3, .. } if missing == &[1, 3]), "{error}");
    assert!(error.help().unwrap().contains("--part 1/3"), "{error}");
    let twice = [&parts[0], &parts[1], &parts[1]].map(Clone::clone);
    assert!(matches!(merge(&twice, &out, &default), Err(Error::NotAPart { .. })));
    let whole = folder.path().join("whole");
    inputs.write(&whole, &part_options(40), &mut |_| {}).unwrap();
    assert!(matches!(merge(&[whole], &out, &default), Err(Error::NotAPart { .. })));
    let other_seed = ShardOptions { seed: 9, ..part_options(40) };
    let others = write_parts(&inputs, &folder.path().join("others"), 3, &other_seed);
    let mixed = [parts[0].clone(), parts[1].clone(), others[2].clone()];
    assert!(matches!(merge(&mixed, &out, &default), Err(Error::NotAPart { .. })));
    assert!(matches!(merge(&[], &out, &default), Err(Error::BadOption { .. })));
    let unknown = MergeOptions { max_cells: Some(5), stratify: Some("tissue".into()), ..default.clone() };
    assert!(matches!(merge(&parts, &out, &unknown), Err(Error::Missing { .. })));
    assert!(!out.exists(), "nothing was begun");

    let file = parts[2].join("cells-00000.parquet");
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert!(matches!(merge(&parts, &out, &default), Err(Error::ChecksumMismatch { .. })));
    assert_eq!(contents_of(&out).len(), 0, "nothing is left of a merge that failed");
}

#[test]
fn a_part_needs_tokens_that_all_parts_share() {
    let inputs = Inputs::new(&[MemorySource::random(30, 40, 1), MemorySource::random(30, 40, 2)]);
    let folder = TempDir::new().unwrap();
    let part = Some(ShardPart { index: 1, count: 2 });
    let growing = ShardOptions { extend_vocabulary: true, part, ..part_options(40) };
    let sampled = ShardOptions { max_cells: Some(10), part, ..part_options(40) };
    for bad in [ShardOptions { part, ..options() }, growing, sampled] {
        let error = inputs.write(folder.path(), &bad, &mut |_| {}).unwrap_err();
        assert!(matches!(error, Error::BadOption { option: "part", .. }), "{error}");
    }
    let too_many = ShardOptions { part: Some(ShardPart { index: 1, count: 3 }), ..part_options(40) };
    assert!(inputs.write(folder.path(), &too_many, &mut |_| {}).is_err());
}
