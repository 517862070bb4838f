//! Cells kept from the first pass to the second, against reading everything twice.

use super::{super::fixture::Inputs, *};

/// Sources that differ in what makes the second pass differ: genes in another order, twice, or unknown; fractions; logarithms.
fn source(index: usize, n_cells: usize, kind: u8) -> MemorySource {
    let mut source = MemorySource::random(n_cells, 40, index as u64);
    match kind {
        // Tokens do not ascend with columns.
        1 => source.genes.reverse(),
        // Two columns of one gene.
        2 => source.genes[30] = source.genes[3].clone(),
        3 => source.cells.iter_mut().flatten().for_each(|(_, value)| *value += 0.25),
        4 => {
            source.is_log1p = true;
            source.cells.iter_mut().flatten().for_each(|(_, value)| *value = value.ln_1p());
        }
        5 => source.cells.iter_mut().flatten().for_each(|(_, value)| *value *= 3_000.0),
        _ => {}
    }
    source
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn kept_cells_become_the_same_bytes_as_cells_read_twice(
        sizes in proptest::collection::vec((1usize..60, 0u8..6), 1..4),
        seed in any::<u64>(),
        row_group_cells in 1usize..40,
        min_genes in 0usize..8,
        max_cells in proptest::option::of(1usize..80),
        has_vocabulary in any::<bool>(),
    ) {
        let sources: Vec<_> =
            sizes.iter().enumerate().map(|(index, &(n_cells, kind))| source(index, n_cells, kind)).collect();
        let mut vocabulary = GeneVocabulary::new(100);
        let known: Vec<_> = (0..40).rev().step_by(2).map(|gene| symbol(&format!("G{gene}"))).collect();
        vocabulary.extend(&known, Path::new("known")).unwrap();
        let options = ShardOptions {
            seed,
            row_group_cells,
            quality: QualityFilter { min_genes, min_cells: 2 },
            max_cells,
            stratify: max_cells.map(|_| "donor_id".into()),
            vocabulary: has_vocabulary.then_some(vocabulary),
            extend_vocabulary: false,
            ..options()
        };
        let inputs = Inputs::new(&sources);
        let folder = TempDir::new().unwrap();
        let written = |keep_bytes: usize| {
            let out = folder.path().join(keep_bytes.to_string());
            let n_reads = inputs.n_reads();
            let set = inputs.write_keeping(keep_bytes, &out, &options, &mut |_| {});
            (set.map(|_| contents_of(&out)).map_err(|error| error.to_string()), inputs.n_reads() - n_reads)
        };
        let (twice, n_twice) = written(0);
        // Some of the inputs fit, or all.
        for keep_bytes in [4_000, 20_000, usize::MAX] {
            let (kept, n_reads) = written(keep_bytes);
            prop_assert!(kept == twice, "keeping {} bytes", keep_bytes);
            prop_assert!(n_reads <= n_twice);
            prop_assert!(keep_bytes < usize::MAX || n_reads == sources.len());
        }
        prop_assert!(twice.is_err() || n_twice == 2 * sources.len());
    }
}

#[test]
fn many_files_are_cut_at_the_same_cells() {
    let sources: Vec<_> = (0..2).map(|index| MemorySource::random(1500, 2000, index)).collect();
    let options = ShardOptions { max_memory: 16 << 20, row_group_cells: 100, ..options() };
    let (inputs, folder) = (Inputs::new(&sources), TempDir::new().unwrap());
    let written = |keep_bytes: usize| {
        let out = folder.path().join(keep_bytes.to_string());
        inputs.write_keeping(keep_bytes, &out, &options, &mut |_| {}).unwrap();
        contents_of(&out)
    };
    let kept = written(usize::MAX);
    assert!(kept.len() > 5, "{:?}", kept.keys());
    assert!(written(0) == kept);
}
