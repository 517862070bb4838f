use std::{collections::HashMap, fs, sync::Arc};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    GeneToken, QualityFilter, ShardOptions, Split,
    shard::fixture::{MemorySource, options as shard_options, shards, symbol, write},
};

fn loader(set: &Arc<ShardSet>, selection: &RowSelection, options: &LoaderOptions) -> Loader {
    Loader::new(Arc::clone(set), selection.clone(), options.clone()).unwrap()
}

fn all(set: &ShardSet) -> RowSelection {
    RowSelection::all(set.n_cells() as u64)
}

fn small() -> LoaderOptions {
    LoaderOptions {
        batch_size: 8,
        window_cells: 40,
        seed: 3,
        threads: 2,
        length_buckets: true,
        ..LoaderOptions::default()
    }
}

fn collect(loader: &Loader, epoch: u64, first_batch: usize) -> Vec<MaskedBatch> {
    loader.epoch(epoch, first_batch).map(Result::unwrap).collect()
}

#[test]
fn what_batches_are_made_into_comes_in_their_order() {
    let (_folder, set) = shards(100);
    let set = Arc::new(set);
    let loader = loader(&set, &all(&set), &small());
    let made = |batch: &MaskedBatch| (batch.rows.clone(), batch.n_targets());
    let finished = loader.finished_epoch(3, 2, move |batch| made(&batch));
    let finished: Vec<_> = finished.map(Result::unwrap).collect();
    assert!(finished.len() > 2);
    assert_eq!(finished, collect(&loader, 3, 2).iter().map(made).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn an_epoch_visits_every_selected_cell_once_and_can_start_anywhere(
        n_cells in 1usize..400,
        batch_size in 1usize..50,
        window_cells in 1usize..120,
        one_in in 1u64..6,
        shuffle in any::<bool>(),
        drop_last in any::<bool>(),
        epoch in 0u64..3,
    ) {
        let (_folder, set) = shards(n_cells);
        let set = Arc::new(set);
        let selection = RowSelection::from_rows(n_cells as u64, (0..n_cells as u64).filter(|row| row % one_in == 0));
        let options = LoaderOptions { batch_size, window_cells, shuffle, drop_last, ..small() };
        prop_assume!(!drop_last || selection.len() >= batch_size);
        let loader = loader(&set, &selection, &options);
        let batches = collect(&loader, epoch, 0);
        prop_assert_eq!(batches.len(), loader.n_batches());
        let (last, others) = batches.split_last().unwrap();
        prop_assert!(others.iter().all(|batch| batch.n_cells() == batch_size));
        prop_assert!(last.n_cells() == batch_size || !drop_last);
        let mut rows: Vec<u64> = batches.iter().flat_map(|batch| batch.rows.clone()).collect();
        prop_assert_eq!(rows.len(), loader.n_cells());
        if !shuffle {
            prop_assert!(rows.is_sorted());
        }
        rows.sort_unstable();
        rows.dedup();
        prop_assert_eq!(rows.len(), loader.n_cells(), "no cell comes twice");
        prop_assert!(rows.iter().all(|&row| selection.contains(row)));
        for first_batch in [1, batches.len() / 2, batches.len() - 1, batches.len(), batches.len() + 3] {
            let tail = collect(&loader, epoch, first_batch);
            prop_assert_eq!(&tail[..], &batches[first_batch.min(batches.len())..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn batches_are_the_same_for_any_number_of_threads_and_after_any_step(
        n_cells in 1usize..400,
        batch_size in 1usize..50,
        window_cells in 1usize..200,
        length_buckets in any::<bool>(),
        seed in any::<u64>(),
        epoch in 0u64..1000,
        resumed_at in 0.0f64..1.0,
    ) {
        let (_folder, set) = shards(n_cells);
        let set = Arc::new(set);
        let options = LoaderOptions { batch_size, window_cells, length_buckets, seed, ..small() };
        let on = |threads: usize, first_batch: usize| {
            let options = LoaderOptions { threads, prefetch: threads, ..options.clone() };
            collect(&loader(&set, &all(&set), &options), epoch, first_batch)
        };
        // Cells, genes, masks, targets and their order: all that a batch is.
        let reference = on(1, 0);
        prop_assert_eq!(reference.len(), n_cells.div_ceil(batch_size));
        let first = (resumed_at * reference.len() as f64) as usize;
        for threads in [1, 2, 8] {
            prop_assert_eq!(&on(threads, 0), &reference, "{} threads", threads);
            prop_assert_eq!(&on(threads, first)[..], &reference[first..], "{} threads, from {}", threads, first);
        }
    }
}

#[test]
fn the_parts_of_all_ranks_are_the_batches_of_one_process() {
    let (_folder, set) = shards(300);
    let set = Arc::new(set);
    for (batch_size, length_buckets, shuffle) in
        [(7, false, true), (8, true, true), (64, false, false), (299, true, true)]
    {
        let options = LoaderOptions { batch_size, length_buckets, shuffle, ..small() };
        let whole = loader(&set, &all(&set), &options);
        for world_size in [1, 2, 3, 4, 11] {
            let ranks: Vec<Loader> =
                (0..world_size).map(|rank| whole.of_rank(rank, world_size).unwrap()).collect();
            assert!(ranks.iter().all(|rank| (rank.n_batches(), rank.n_cells()) == (whole.n_batches(), 300)));
            for first_batch in [0, whole.n_batches() - 1] {
                let parts: Vec<Vec<MaskedBatch>> =
                    ranks.iter().map(|rank| collect(rank, 2, first_batch)).collect();
                for (index, batch) in collect(&whole, 2, first_batch).iter().enumerate() {
                    let of_batch: Vec<&MaskedBatch> = parts.iter().map(|part| &part[index]).collect();
                    let sizes: Vec<usize> = of_batch.iter().map(|part| part.n_cells()).collect();
                    let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
                    assert!(most - least <= 1, "{sizes:?}");
                    let joined = of_batch.iter().flat_map(|part| part.rows.clone());
                    assert!(joined.eq(batch.rows.iter().copied()));
                    let values = of_batch.iter().flat_map(|part| part.target_values.clone());
                    assert!(values.eq(batch.target_values.iter().copied()), "masks are those of the whole");
                }
            }
        }
    }
    assert!(matches!(
        loader(&set, &all(&set), &small()).of_rank(3, 3),
        Err(Error::BadOption { option: "rank", .. })
    ));
}

#[test]
fn cells_are_reduced_to_the_wanted_genes() {
    let (_folder, set) = shards(60);
    let set = Arc::new(set);
    let batches = |genes: Option<GeneSelection>| -> Vec<ExpressionBatch> {
        let options = LoaderOptions { genes, ..small() };
        loader(&set, &all(&set), &options).expressions(0, 0).map(Result::unwrap).collect()
    };
    let wanted = GeneSelection::from((1..40).step_by(3).collect::<Vec<u32>>());
    let (whole, reduced) = (batches(None), batches(Some(wanted.clone())));
    assert!(reduced.iter().map(|batch| batch.genes.len()).sum::<usize>() > 0);
    for (whole, reduced) in whole.iter().zip(&reduced) {
        assert_eq!(whole.rows, reduced.rows);
        for cell in 0..whole.n_cells() {
            let (genes, values) = whole.cell(cell);
            let (genes, values): (Vec<u32>, Vec<f32>) =
                genes.iter().zip(values).filter(|(gene, _)| wanted.contains(GeneToken(**gene))).unzip();
            assert_eq!(reduced.cell(cell), (&genes[..], &values[..]));
        }
    }
}

#[test]
fn epochs_differ_and_repeat() {
    let (_folder, set) = shards(200);
    let set = Arc::new(set);
    let shuffled = loader(&set, &all(&set), &small());
    assert_eq!(collect(&shuffled, 4, 0), collect(&shuffled, 4, 0));
    assert_ne!(collect(&shuffled, 4, 0), collect(&shuffled, 5, 0));
    let in_order = loader(&set, &all(&set), &LoaderOptions { shuffle: false, ..small() });
    let (first, second) = (collect(&in_order, 0, 0), collect(&in_order, 1, 0));
    assert_ne!(first, second, "masks follow the epoch");
    assert!(first.iter().zip(&second).all(|(a, b)| a.rows == b.rows), "the order does not");
}

#[test]
fn a_cell_is_masked_the_same_whatever_its_batch() {
    let (_folder, set) = shards(200);
    let set = Arc::new(set);
    let targets = |options: LoaderOptions| -> HashMap<u64, (Vec<u32>, Vec<f32>)> {
        let batches = collect(&loader(&set, &all(&set), &options), 2, 0);
        let cells = batches
            .iter()
            .flat_map(|batch| (0..batch.n_cells()).map(|cell| (batch.rows[cell], batch.target(cell))));
        cells.map(|(row, (genes, values))| (row, (genes.to_vec(), values.to_vec()))).collect()
    };
    assert_eq!(
        targets(small()),
        targets(LoaderOptions { batch_size: 33, window_cells: 99, shuffle: false, ..small() })
    );
}

#[test]
fn batches_hold_cells_of_similar_length() {
    let (_folder, set) = shards(640);
    let set = Arc::new(set);
    let spread = |shuffle| -> f64 {
        let options = LoaderOptions { window_cells: 320, shuffle, ..small() };
        let batches = loader(&set, &all(&set), &options).expressions(0, 0).map(Result::unwrap);
        let (mut padded, mut genes) = (0, 0);
        for batch in batches {
            padded += batch.pad(1).genes.len();
            genes += batch.genes.len();
        }
        padded as f64 / genes as f64
    };
    assert!(spread(true) < 1.2, "padding makes batches {} times larger", spread(true));
    assert!(spread(false) > 1.5, "the lengths differ enough for the test to mean something");
}

/// Of the batches of an epoch: the mean entropy of their cells' sources, relative to that of all cells; and the mean distance
/// of neighbouring cells in the input, relative to that of cells drawn at random.
fn shuffle_quality(loader: &Loader, n_a_source: usize) -> (f64, f64) {
    let set = loader.shards();
    let (sources, ids) = (set.rows().unwrap().sources, set.cell_ids().unwrap());
    let position =
        |row: u64| sources[row as usize] as usize * n_a_source + ids[row as usize].parse::<usize>().unwrap();
    let n_sources = set.manifest().sources.len();
    let (mut entropies, mut distances) = (Vec::new(), Vec::new());
    for batch in loader.epoch(1, 0).map(Result::unwrap) {
        let mut n_cells = vec![0usize; n_sources];
        batch.rows.iter().for_each(|&row| n_cells[sources[row as usize] as usize] += 1);
        let shares = n_cells.iter().map(|&n| n as f64 / batch.rows.len() as f64).filter(|&share| share > 0.0);
        entropies.push(shares.map(|share| -share * share.ln()).sum::<f64>());
        let distance = |pair: &[u64]| position(pair[0]).abs_diff(position(pair[1])) as f64;
        distances.extend(batch.rows.windows(2).map(distance));
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    // Every source has the same number of cells; two places drawn at random are a third of the whole apart.
    let (all, apart) = ((n_sources as f64).ln(), (n_sources * n_a_source) as f64 / 3.0);
    (mean(&entropies) / all, mean(&distances) / apart)
}

#[test]
fn sorted_sources_are_mixed_in_every_batch() {
    // Ten sources one after the other, each with longer cells than the one before.
    let source = |index: u32| MemorySource {
        genes: (0..80).map(|gene| symbol(&format!("G{gene}"))).collect(),
        ..MemorySource::random(2000, 8 + 8 * index, u64::from(index))
    };
    let sources: Vec<_> = (0..10).map(source).collect();
    let folder = TempDir::new().unwrap();
    let options = ShardOptions { quality: QualityFilter::OFF, ..ShardOptions::default() };
    let set = Arc::new(write(&sources, &folder.path().join("set"), &options).unwrap());
    let (entropy, distance) = shuffle_quality(&loader(&set, &all(&set), &LoaderOptions::default()), 2000);
    println!("entropy {entropy:.4}, distance {distance:.4} of ideal");
    assert!(entropy >= 0.99 && (distance - 1.0).abs() < 0.02, "entropy {entropy}, distance {distance}");
    // Batches of similar length are another matter, which is why they are not the default.
    let by_length = LoaderOptions { length_buckets: true, ..LoaderOptions::default() };
    let (entropy, _) = shuffle_quality(&loader(&set, &all(&set), &by_length), 2000);
    println!("by length: entropy {entropy:.4}");
    assert!(entropy < 0.99, "{entropy}");
}

#[test]
fn expression_is_log1p_of_counts_per_ten_thousand() {
    let source = MemorySource::random(50, 60, 1);
    let folder = TempDir::new().unwrap();
    let set =
        Arc::new(write(std::slice::from_ref(&source), &folder.path().join("set"), &shard_options()).unwrap());
    let (ids, vocabulary) = (set.cell_ids().unwrap(), set.vocabulary().unwrap());
    let batches =
        loader(&set, &all(&set), &small()).expressions(0, 0).map(Result::unwrap).collect::<Vec<_>>();
    for batch in batches {
        for cell in 0..batch.n_cells() {
            let counts = &source.cells[ids[batch.rows[cell] as usize].parse::<usize>().unwrap()];
            let total: f64 = counts.iter().map(|&(_, count)| f64::from(count)).sum();
            let (genes, values) = batch.cell(cell);
            assert_eq!(genes.len(), counts.len());
            for (&gene, &value) in genes.iter().zip(values) {
                let name = vocabulary.gene(crate::GeneToken(gene)).unwrap().name().to_owned();
                let column: u32 = name[1..].parse().unwrap();
                let count = counts.iter().find(|&&(other, _)| other == column).unwrap().1;
                let expected = (f64::from(count) * 1e4 / total).ln_1p();
                assert!((f64::from(value) - expected).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn long_cells_are_sampled_the_same_in_every_epoch() {
    let (_folder, set) = shards(60);
    let set = Arc::new(set);
    let masking = Masking { max_input: 5, ..Masking::default() };
    let options = LoaderOptions { masking, shuffle: false, ..small() };
    let loader = loader(&set, &all(&set), &options);
    let epoch = |epoch| loader.expressions(epoch, 0).map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(epoch(0), epoch(1));
    let lengths: Vec<usize> = epoch(0)
        .iter()
        .flat_map(|batch| (0..batch.n_cells()).map(|cell| batch.cell(cell).0.len()).collect::<Vec<_>>())
        .collect();
    assert_eq!(lengths.iter().max(), Some(&5));
}

#[test]
fn a_damaged_row_group_ends_the_epoch_with_an_error() {
    let (_folder, set) = shards(300);
    let path = set.path().to_path_buf();
    let file = path.join(&set.manifest().files[0].name);
    let mut bytes = fs::read(&file).unwrap();
    let group = &set.manifest().files[0].row_groups[10];
    bytes[(group.start + group.bytes / 2) as usize] ^= 1;
    fs::write(&file, bytes).unwrap();
    let set = Arc::new(ShardSet::open(&path).unwrap());
    let mut results: Vec<_> = loader(&set, &all(&set), &small()).epoch(0, 0).collect();
    assert!(matches!(results.pop(), Some(Err(Error::ChecksumMismatch { .. }))));
    assert!(results.iter().all(Result::is_ok));
}

#[test]
fn a_vanished_file_ends_the_epoch_with_an_error() {
    let (_folder, set) = shards(300);
    let set = Arc::new(set);
    let loader = loader(&set, &all(&set), &small());
    fs::remove_file(set.path().join(&set.manifest().files[0].name)).unwrap();
    let results: Vec<_> = loader.epoch(0, 0).collect();
    assert!(matches!(results[..], [Err(Error::NotFound { .. })]), "{results:?}");
}

#[test]
fn an_epoch_can_be_dropped_at_any_moment() {
    let (_folder, set) = shards(400);
    let set = Arc::new(set);
    let loader = loader(&set, &all(&set), &small());
    for n_taken in 0..12 {
        let mut epoch = loader.epoch(0, 0);
        assert_eq!(epoch.by_ref().take(n_taken).count(), n_taken);
        drop(epoch);
    }
    assert_eq!(Arc::strong_count(&loader.source), 1, "no thread is left that could hold it");
}

#[test]
fn senseless_options_are_refused() {
    let (_folder, set) = shards(20);
    let set = Arc::new(set);
    let new = |selection, options| Loader::new(Arc::clone(&set), selection, options).map(|_| ());
    let refused = |result: Result<()>| matches!(result, Err(Error::BadOption { .. }));
    assert!(refused(new(all(&set), LoaderOptions { batch_size: 0, ..small() })));
    assert!(refused(new(all(&set), LoaderOptions { prefetch: 0, ..small() })));
    let masking = Masking { masked_fraction: 1.0, ..Masking::default() };
    assert!(refused(new(all(&set), LoaderOptions { masking, ..small() })));
    assert!(refused(new(RowSelection::all(21), small())));
    assert!(matches!(new(RowSelection::from_rows(20, []), small()), Err(Error::NoCells { .. })));
    assert!(matches!(
        new(all(&set), LoaderOptions { batch_size: 21, drop_last: true, ..small() }),
        Err(Error::NoCells { .. })
    ));
}

#[test]
fn a_random_split_has_the_size_asked_for_and_repeats() {
    let (_folder, set) = shards(200);
    let split = Split::random(&set, 0.1, 4).unwrap();
    assert_eq!((split.validation.len(), split.train.len()), (20, 180));
    assert!(split.train.iter().all(|row| !split.validation.contains(row)));
    assert_eq!(split, Split::random(&set, 0.1, 4).unwrap());
    assert_ne!(split, Split::random(&set, 0.1, 5).unwrap());
    assert_eq!(Split::random(&set, 0.001, 4).unwrap().validation.len(), 1);
    assert!(matches!(Split::random(&set, 0.999, 4), Err(Error::CannotSplit { .. })));
    for fraction in [0.0, 1.0, -0.5, f64::NAN] {
        assert!(matches!(Split::random(&set, fraction, 4), Err(Error::BadOption { .. })), "{fraction}");
    }
}

#[test]
fn a_split_by_donor_keeps_donors_whole_and_unknown_donors_in_training() {
    let (_folder, set) = shards(200);
    let labels = set.labels("donor_id").unwrap();
    // Four donors with 40 cells each and 40 cells without a donor.
    for (fraction, n_expected) in [(0.2, 40), (0.4, 80), (0.01, 40), (0.95, 120)] {
        let split = Split::by_column(&set, "donor_id", fraction, 1).unwrap();
        assert_eq!(split.validation.len(), n_expected, "{fraction}");
        let donors = |rows: &RowSelection| -> std::collections::BTreeSet<Option<u32>> {
            rows.iter().map(|row| labels.codes[row as usize]).collect()
        };
        assert!(donors(&split.validation).is_disjoint(&donors(&split.train)));
        assert!(!donors(&split.validation).contains(&None));
    }
    assert!(matches!(Split::by_column(&set, "source", 0.2, 1), Err(Error::CannotSplit { .. })));
    assert!(matches!(Split::by_column(&set, "tissue", 0.2, 1), Err(Error::Missing { .. })));
}
