//! Which cells a set has: samples, copies, cells that sources share; and how they are divided among files.

use super::*;
use crate::Labels;

/// A column of `obs` from a text for each cell.
fn column<'a>(name: &str, texts: impl Iterator<Item = &'a str>) -> (String, Labels) {
    let mut categories: Vec<String> = Vec::new();
    let codes = texts.map(|text| {
        let known = categories.iter().position(|category| category == text);
        let code = known.unwrap_or_else(|| {
            categories.push(text.to_owned());
            categories.len() - 1
        });
        Some(code as u32)
    });
    let codes = codes.collect();
    (name.to_owned(), Labels { categories, codes })
}

#[test]
fn a_sample_has_every_label_in_its_proportion() {
    let mut first = MemorySource::random(900, 20, 1);
    let mut second = MemorySource::random(100, 20, 2);
    let tissue = |cell: usize| if cell < 3 { "retina" } else { ["blood", "blood", "lung"][cell % 3] };
    first.obs.push(column("tissue", (0..900).map(tissue)));
    second.obs.push(column("tissue", (0..100).map(|_| "blood")));
    let all: Vec<&str> = (0..900).map(tissue).chain((0..100).map(|_| "blood")).collect();
    let n_all = |label: &str| all.iter().filter(|&&tissue| tissue == label).count();
    let options = ShardOptions { max_cells: Some(100), stratify: Some("tissue".into()), ..options() };
    let (_folder, set) = write_set(&[first.clone(), second.clone()], &options);
    assert_eq!(set.n_cells(), 100);
    assert_eq!(set.manifest().obs_columns, ["donor_id", "tissue"]);
    assert_eq!(set.manifest().quality.stratify.as_deref(), Some("tissue"));
    let labels = set.labels("tissue").unwrap();
    let n_kept = |label: &str| {
        let is_label =
            |code: &&Option<u32>| code.is_some_and(|code| labels.categories[code as usize] == label);
        labels.codes.iter().filter(is_label).count()
    };
    assert_eq!(n_kept("retina"), 1, "three of a thousand are one of a hundred");
    for label in ["blood", "lung"] {
        let exact = n_all(label) as f64 / 10.0;
        assert!((n_kept(label) as f64 - exact).abs() <= 1.0, "{} of {label}, not {exact}", n_kept(label));
    }
    let everything = expected(&[first.clone(), second]);
    assert!(contents(&set).iter().all(|(key, cell)| everything[key] == *cell));

    let unknown = ShardOptions { stratify: Some("organ".into()), ..options.clone() };
    let folder = TempDir::new().unwrap();
    let error = write(std::slice::from_ref(&first), folder.path(), &unknown).unwrap_err();
    assert!(matches!(error, Error::Missing { what: "label column", .. }), "{error}");
    let no_size = ShardOptions { max_cells: None, ..options };
    assert!(matches!(write(&[first], folder.path(), &no_size), Err(Error::BadOption { .. })));
}

#[test]
fn cells_that_are_copies_are_left_out_before_quality_control() {
    // Gene 2 is in three cells, of which two are copies; 3 cells must have a gene for it to stay.
    let source = MemorySource {
        genes: ["A", "B", "C"].map(symbol).to_vec(),
        cells: vec![
            vec![(0, 1.0), (1, 1.0), (2, 5.0)],
            vec![(0, 1.0), (1, 1.0), (2, 5.0)],
            vec![(0, 1.0), (1, 1.0), (2, 5.0)],
            vec![(0, 1.0), (1, 1.0)],
            vec![(0, 1.0), (1, 1.0)],
        ],
        obs: vec![column("is_primary_data", ["True", "False", "False", "True", "True"].into_iter())],
        ..Default::default()
    };
    let quality = QualityFilter { min_genes: 1, min_cells: 3 };
    let options = ShardOptions { quality, obs_columns: Vec::new(), ..options() };
    let (_folder, set) = write_set(std::slice::from_ref(&source), &options);
    let mut ids = set.cell_ids().unwrap();
    ids.sort();
    assert_eq!(ids, ["0", "3", "4"]);
    assert_eq!(set.measured_genes(0).len(), 2, "gene C is seen in one cell only");
    let entry = &set.manifest().sources[0];
    assert_eq!((entry.n_cells, entry.n_cells_secondary, entry.n_cells_kept), (5, 2, 3));
    assert_eq!(set.manifest().quality.n_cells_secondary, 2);

    let all = ShardOptions { keep_secondary: true, ..options.clone() };
    let (_folder, set) = write_set(std::slice::from_ref(&source), &all);
    assert_eq!((set.n_cells(), set.measured_genes(0).len()), (5, 3));
    assert_eq!(set.manifest().sources[0].n_cells_secondary, 0);

    let obs = vec![column("is_primary_data", ["False"; 5].into_iter())];
    let folder = TempDir::new().unwrap();
    let error = write(&[MemorySource { obs, ..source }], folder.path(), &options).unwrap_err();
    assert!(matches!(error, Error::NoCells { filtered: true, .. }), "{error}");
    assert!(error.help().unwrap().contains("--keep-secondary"), "{error}");
}

#[test]
fn sources_with_the_same_cells_are_told() {
    let first = MemorySource::random(64, 20, 1);
    let barcode = |cell: usize| -> String {
        (0..8).map(|digit| ['A', 'C', 'G', 'T'][cell >> (2 * digit) & 3]).collect::<String>() + "ACGTACGT"
    };
    let name = |prefix: &str, cells: std::ops::Range<usize>, suffix: &str| -> Vec<String> {
        cells.map(|cell| format!("{prefix}{}{suffix}", barcode(cell))).collect()
    };
    let named = |source: &MemorySource, ids: Vec<String>| MemorySource { ids, ..source.clone() };
    let other = MemorySource::random(64, 20, 2);
    let copy = MemorySource { cells: first.cells[32..].to_vec(), ..MemorySource::random(32, 20, 1) };
    let sources = [
        named(&first, name("", 0..64, "-1")),
        named(&copy, name("GSM1_", 32..64, "-1-0")),
        named(&other, name("", 1000..1064, "-1")),
        named(&other, name("", 0..64, "-1")),
    ];
    let options = ShardOptions { obs_columns: Vec::new(), ..options() };
    let (_folder, set) = write_set(&sources, &options);
    let found: Vec<_> = set
        .manifest()
        .shared_cells
        .iter()
        .map(|pair| (pair.first.as_str(), pair.second.as_str(), pair.n_barcodes))
        .collect();
    // The fourth has the barcodes of the first, with other cells behind them.
    assert_eq!(found[0], ("s0", "s1", 32));
    assert!(found.contains(&("s0", "s3", 64)) && found.contains(&("s1", "s3", 32)), "{found:?}");
    assert!(found.iter().all(|pair| pair.0 != "s2" && pair.1 != "s2"), "{found:?}");
    let alike: Vec<_> = set.manifest().shared_cells.iter().map(|pair| pair.n_alike).collect();
    assert_eq!(alike[0], 32);
    assert!(alike[1..].iter().all(|&n_alike| n_alike < 32), "{alike:?}");
    for max_memory in [600, 1 << 20] {
        assert_eq!(set.shared_cells(max_memory).unwrap(), set.manifest().shared_cells);
    }
}

#[test]
fn files_have_the_same_number_of_cells_but_for_a_few() {
    // One input is ten times the other.
    let sources = [MemorySource::random(4000, 2000, 1), MemorySource::random(400, 2000, 2)];
    let (_folder, set) = write_set(&sources, &ShardOptions { max_memory: 16 << 20, ..options() });
    let sizes: Vec<u64> = set.manifest().files.iter().map(CellFile::n_cells).collect();
    assert!(sizes.len() > 2, "{sizes:?}");
    let mean = set.n_cells() as f64 / sizes.len() as f64;
    assert!(sizes.iter().all(|&size| (size as f64 - mean).abs() <= 2.0 + mean / 50.0), "{sizes:?}");
}
