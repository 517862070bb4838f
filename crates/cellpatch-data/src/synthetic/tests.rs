//! What must be true of synthetic cells, whichever way they are asked for.

use hdf5_pure::{AttrValue, File};

use super::*;

fn small() -> SyntheticConfig {
    SyntheticConfig { n_cells: 300, n_genes: 800, seed: 3, ..SyntheticConfig::default() }
}

fn all(config: &SyntheticConfig) -> (SyntheticCells, SyntheticBlock) {
    let cells = SyntheticCells::generate(config).unwrap();
    let block = cells.block(0, config.n_cells);
    (cells, block)
}

/// log1p of counts per 10,000, dense, cells by genes.
fn log_normalised(block: &SyntheticBlock, n_genes: usize) -> Vec<Vec<f64>> {
    let row = |cell| {
        let (columns, values) = block.counts.cell(cell);
        let total: f32 = values.iter().sum();
        let mut row = vec![0.0; n_genes];
        for (&column, &value) in columns.iter().zip(values) {
            row[column as usize] = f64::from(value / total * 1e4).ln_1p();
        }
        row
    };
    (0..block.counts.n_cells()).map(row).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    sum / n
}

fn variance(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let center = mean(values.clone());
    mean(values.map(|value| (value - center).powi(2)))
}

fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(share * (values.len() - 1) as f64) as usize]
}

#[test]
fn cells_are_the_same_whatever_the_threads_and_the_blocks() {
    let config = small();
    let on = |threads: usize, cells_per_block: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let cells = SyntheticCells::generate(&config).unwrap();
            let blocks: Vec<SyntheticBlock> = cells.blocks(cells_per_block).collect();
            let counts = blocks.iter().flat_map(|block| {
                (0..block.counts.n_cells()).map(|cell| {
                    let (columns, values) = block.counts.cell(cell);
                    (columns.to_vec(), values.to_vec())
                })
            });
            let counts: Vec<_> = counts.collect();
            let truth: Vec<SyntheticCell> = blocks.iter().flat_map(|block| block.cells.clone()).collect();
            (counts, truth)
        })
    };
    let reference = on(1, 300);
    assert_eq!(reference.0.len(), 300);
    for (threads, cells_per_block) in [(2, 300), (4, 37), (3, 1)] {
        assert_eq!(on(threads, cells_per_block), reference, "{threads} threads, blocks of {cells_per_block}");
    }
}

#[test]
fn a_cell_does_not_depend_on_how_many_cells_follow_but_on_the_seed() {
    let (_, few) = all(&SyntheticConfig { n_cells: 20, ..small() });
    let (_, many) = all(&small());
    let (_, other) = all(&SyntheticConfig { seed: 4, ..small() });
    assert_eq!(few.counts.cell(19), many.counts.cell(19));
    assert_ne!(many.counts.cell(19), other.counts.cell(19));
}

#[test]
fn blocks_keep_the_rules_of_a_count_block() {
    let (cells, _) = all(&small());
    let block = cells.block(250, 1_000);
    assert_eq!((block.counts.first_row, block.counts.n_cells(), block.cells.len()), (250, 50, 50));
    for cell in 0..50 {
        let (columns, values) = block.counts.cell(cell);
        assert!(columns.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(columns.iter().all(|&column| (column as usize) < cells.genes().len()));
        assert!(values.iter().all(|value| *value >= 1.0 && value.fract() == 0.0));
    }
    assert_eq!(cells.block(300, 10).counts.n_cells(), 0);
}

#[test]
fn default_cells_have_the_sparsity_and_depth_of_real_ones() {
    let (_, block) = all(&SyntheticConfig { n_cells: 1_500, ..SyntheticConfig::default() });
    let genes: Vec<f64> = block.counts.offsets.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
    let totals: Vec<f64> =
        (0..1_500).map(|cell| f64::from(block.counts.cell(cell).1.iter().sum::<f32>())).collect();
    let sparsity = 1.0 - block.counts.columns.len() as f64 / (1_500.0 * 2_000.0);
    assert!((0.68..0.82).contains(&sparsity), "{sparsity}");
    assert!((400.0..600.0).contains(&quantile(genes.clone(), 0.5)));
    assert!(quantile(genes, 0.005) >= 200.0);
    // Library sizes are log-normal: within a type the configured spread; over all, a little more, and no skew.
    let logs: Vec<f64> = totals.iter().map(|total| total.ln()).collect();
    let (center, spread) = (mean(logs.iter().copied()), variance(logs.iter().copied()).sqrt());
    assert!((0.35..0.55).contains(&spread), "{spread}");
    let skew = mean(logs.iter().map(|log| ((log - center) / spread).powi(3)));
    assert!(skew.abs() < 0.4, "{skew}");
}

#[test]
fn every_type_is_present_in_about_its_proportion() {
    let (_, block) = all(&SyntheticConfig { n_cells: 6_000, n_genes: 460, ..SyntheticConfig::default() });
    for (index, cell_type) in CELL_TYPES.iter().enumerate() {
        let share = block.cells.iter().filter(|cell| cell.cell_type == index).count() as f64 / 6_000.0;
        // Donors differ, with a factor of about exp(0.3); 6 donors leave a standard error of 12 %.
        assert!((0.5..1.7).contains(&(share / cell_type.proportion)), "{}: {share}", cell_type.name);
    }
}

#[test]
fn markers_are_higher_in_the_types_they_mark() {
    let (cells, block) = all(&SyntheticConfig { n_cells: 2_400, n_genes: 700, ..SyntheticConfig::default() });
    let rows = log_normalised(&block, 700);
    let mut checked = 0;
    for (column, gene) in cells.genes().iter().enumerate() {
        let marks =
            |cell: &SyntheticCell| CELL_TYPES[cell.cell_type].roles.iter().any(|&role| gene.has_role(role));
        if gene.is_background() || !block.cells.iter().any(marks) {
            continue;
        }
        let of = |inside: bool| {
            let chosen = rows.iter().zip(&block.cells).filter(move |(_, cell)| marks(cell) == inside);
            mean(chosen.map(|(row, _)| row[column]))
        };
        let (inside, outside) = (of(true), of(false));
        assert!(inside > 2.0 * outside + 0.1, "{}: {inside} inside, {outside} outside", gene.symbol);
        checked += 1;
    }
    assert!(checked > 200, "{checked}");
}

#[test]
fn expressed_genes_vary_more_than_poisson_counts() {
    let (_, block) = all(&SyntheticConfig { n_cells: 800, n_genes: 1_000, ..SyntheticConfig::default() });
    let mut sums = vec![(0.0f64, 0.0f64); 1_000];
    for (&column, &value) in block.counts.columns.iter().zip(&block.counts.values) {
        let value = f64::from(value);
        sums[column as usize].0 += value;
        sums[column as usize].1 += value * value;
    }
    let moments = sums.iter().map(|(sum, squares)| (sum / 800.0, squares / 800.0 - (sum / 800.0).powi(2)));
    let expressed: Vec<(f64, f64)> = moments.filter(|(mean, _)| *mean > 0.5).collect();
    let over = expressed.iter().filter(|(mean, variance)| variance > mean).count();
    assert!(
        expressed.len() > 200 && over as f64 > 0.98 * expressed.len() as f64,
        "{over} of {}",
        expressed.len()
    );
}

#[test]
fn genes_of_a_programme_covary_within_a_cell_type() {
    let config = SyntheticConfig { n_cells: 2_400, n_genes: 700, ..SyntheticConfig::default() };
    let (cells, block) = all(&config);
    let rows = log_normalised(&block, 700);
    let stress: Vec<usize> = (0..700).filter(|&column| cells.genes()[column].has_role("stress")).collect();
    let t_cells: Vec<usize> =
        (0..2_400).filter(|&row| block.cells[row].cell_type == 0 && block.cells[row].batch == 0).collect();
    let half = |row: usize, first: bool| {
        let half = if first { &stress[..10] } else { &stress[10..] };
        mean(half.iter().map(|&column| rows[row][column]))
    };
    let (a, b): (Vec<f64>, Vec<f64>) = t_cells.iter().map(|&row| (half(row, true), half(row, false))).unzip();
    let (mean_a, mean_b) = (mean(a.iter().copied()), mean(b.iter().copied()));
    let covariance = mean(a.iter().zip(&b).map(|(a, b)| (a - mean_a) * (b - mean_b)));
    let correlation = covariance / (variance(a.iter().copied()) * variance(b.iter().copied())).sqrt();
    assert!(correlation > 0.5, "{correlation}");
}

#[test]
fn donors_and_batches_differ_where_their_effects_are_on_and_not_where_they_are_off() {
    // The largest z score over background genes between two donors' cells of one type.
    let contrast = |donor_effect: f64, batch_effect: f64, others: [usize; 2]| {
        let config = SyntheticConfig {
            n_cells: 2_400,
            n_genes: 600,
            donor_effect,
            batch_effect,
            ..SyntheticConfig::default()
        };
        let (cells, block) = all(&config);
        let rows = log_normalised(&block, 600);
        let of = |donor: usize| -> Vec<usize> {
            (0..2_400)
                .filter(|&row| block.cells[row].donor == donor && block.cells[row].cell_type == 0)
                .collect()
        };
        let (one, two) = (of(others[0]), of(others[1]));
        let z = (0..600).filter(|&column| cells.genes()[column].is_background()).map(|column| {
            let value = |row: &usize| rows[*row][column];
            let error = variance(one.iter().map(value)) / one.len() as f64
                + variance(two.iter().map(value)) / two.len() as f64;
            (mean(one.iter().map(value)) - mean(two.iter().map(value))).abs() / error.sqrt().max(1e-9)
        });
        z.filter(|z| z.is_finite()).fold(0.0, f64::max)
    };
    assert!(contrast(0.0, 0.0, [0, 4]) < 4.5);
    assert!(contrast(0.8, 0.0, [0, 4]) > 6.0);
    assert!(contrast(0.0, 0.8, [0, 1]) > 6.0);
}

#[test]
fn a_file_reads_back_as_the_cells_it_was_written_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cells.h5ad");
    let config = SyntheticConfig { n_cells: 600, n_donors: 4, ..small() };
    let summary = write_h5ad(&config, &path).unwrap();
    let (cells, block) = all(&config);

    let file = File::open_streaming(&path).unwrap();
    let offsets: Vec<usize> =
        file.dataset("X/indptr").unwrap().read_i32().unwrap().iter().map(|&offset| offset as usize).collect();
    let columns: Vec<u32> =
        file.dataset("X/indices").unwrap().read_i32().unwrap().iter().map(|&column| column as u32).collect();
    assert_eq!(offsets, block.counts.offsets);
    assert_eq!(columns, block.counts.columns);
    assert_eq!(file.dataset("X/data").unwrap().read_f32().unwrap(), block.counts.values);
    let attributes = file.group("X").unwrap().attrs().unwrap();
    assert_eq!(attributes["encoding-type"].as_str(), Some("csr_matrix"));
    assert_eq!(attributes["shape"], AttrValue::I64Array(vec![600, 800]));

    let categories = file.dataset("obs/cell_type/categories").unwrap().read_string().unwrap();
    let codes = file.dataset("obs/cell_type/codes").unwrap().read_i8().unwrap();
    for (code, cell) in codes.iter().zip(&block.cells) {
        assert_eq!(categories[*code as usize], CELL_TYPES[cell.cell_type].name);
    }
    let mut barcodes = file.dataset("obs/barcode").unwrap().read_string().unwrap();
    barcodes.sort();
    barcodes.dedup();
    assert_eq!(barcodes.len(), 600);
    let ids = file.dataset("var/ensembl_id").unwrap().read_string().unwrap();
    assert!(ids.iter().eq(cells.genes().iter().map(|gene| &gene.ensembl_id)));

    assert_eq!((summary.n_cells, summary.n_genes, summary.n_nonzero), (600, 800, columns.len()));
    assert_eq!(summary.cells_per_type.iter().sum::<usize>(), 600);
    assert_eq!(summary.total_counts, block.counts.values.iter().map(|&value| f64::from(value)).sum::<f64>());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");
}

#[test]
fn a_folder_that_does_not_exist_is_an_error_with_the_path() {
    let path = std::path::Path::new("no-such-folder").join("cells.h5ad");
    let error = write_h5ad(&small(), &path).unwrap_err();
    assert!(matches!(&error, crate::Error::Io { path: at, .. } if *at == path), "{error}");
}
