//! Variable genes of real files against scanpy's; `expected/make_variable_genes.py` made the numbers.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
use cellpatch_data::{Error, MatrixChoice, VariableGeneOptions, VariableGenes, open_cells};
use serde::Deserialize;

/// The folder of real data, or `None` after saying that the test is skipped.
fn data() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("CELLPATCH_DATA").map_or_else(beside, PathBuf::from);
    if folder.join("cells").is_dir() {
        return Some(folder);
    }
    println!("skipped: no data in {} (set CELLPATCH_DATA)", folder.display());
    None
}

#[derive(Deserialize)]
struct Expected {
    n_top: usize,
    selected: Vec<usize>,
    first: Vec<usize>,
    standardized_variances: Vec<f64>,
    means: Vec<f64>,
    variances: Vec<f64>,
}

fn of(path: &Path, kept: Option<&[bool]>, options: &VariableGeneOptions) -> Result<VariableGenes, Error> {
    let source = open_cells(path, &MatrixChoice::default()).unwrap();
    VariableGenes::of(source.as_ref(), kept, options)
}

fn assert_close(found: f64, expected: f64, tolerance: f64) {
    let allowed = tolerance * expected.abs().max(1e-3);
    assert!((found - expected).abs() <= allowed, "{found} is not {expected}");
}

#[test]
fn real_files_have_the_variable_genes_that_scanpy_finds() {
    let Some(data) = data() else { return };
    let expected: BTreeMap<String, Expected> =
        serde_json::from_str(include_str!("expected/variable_genes.json")).unwrap();
    for (name, expected) in expected {
        let options = VariableGeneOptions { n_top: expected.n_top, ..VariableGeneOptions::default() };
        let found = of(&data.join(&name), None, &options).unwrap();
        for (at, gene) in found.genes().iter().step_by(97).enumerate() {
            assert_close(gene.mean, expected.means[at], 1e-10);
            assert_close(gene.variance, expected.variances[at], 1e-9);
            assert_close(gene.standardized_variance, expected.standardized_variances[at], 1e-8);
        }
        assert_eq!(found.ranked()[..20], expected.first, "{name}");
        let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) =
            (found.columns().into_iter().collect(), expected.selected.into_iter().collect());
        let least = found.genes()[found.ranked()[expected.n_top - 1]].standardized_variance;
        println!("{name}: {} of {} genes the same", ours.intersection(&theirs).count(), expected.n_top);
        // Genes that vary as much as the last that is chosen are all as good, and which come first is left to chance.
        for gene in ours.symmetric_difference(&theirs) {
            assert_close(found.genes()[*gene].standardized_variance, least, 1e-12);
        }
    }
}

#[test]
fn left_out_cells_are_as_good_as_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cells.h5ad");
    write_h5ad(&SyntheticConfig { n_cells: 120, ..SyntheticConfig::default() }, &path).unwrap();
    let options = VariableGeneOptions { n_top: 50, ..VariableGeneOptions::default() };
    let all = of(&path, None, &options).unwrap();
    assert_eq!(all, of(&path, Some(&[true; 120]), &options).unwrap());
    let kept: Vec<bool> = (0..120).map(|cell| cell % 3 != 0).collect();
    let some = of(&path, Some(&kept), &options).unwrap();
    assert_eq!((all.n_cells(), some.n_cells(), some.ranked().len()), (120, 80, 50));
    assert_ne!(all.ranked(), some.ranked());

    let few = of(&path, Some(&[true; 119]), &options);
    assert!(matches!(few, Err(Error::WrongLength { found: 119, expected: 120, .. })));
    for kept in [[false; 120], std::array::from_fn(|cell| cell == 5)] {
        let none = of(&path, Some(&kept), &options);
        assert!(matches!(none, Err(Error::FewVariableGenes { n_varying: 0, needed: 3, .. })), "{none:?}");
    }
    for options in [
        VariableGeneOptions { n_top: 0, ..options },
        VariableGeneOptions { span: 0.0, ..options },
        VariableGeneOptions { span: f64::NAN, ..options },
        VariableGeneOptions { span: 1.5, ..options },
    ] {
        assert!(matches!(of(&path, None, &options), Err(Error::BadOption { .. })), "{options:?}");
    }
}

#[test]
fn a_file_whose_local_fits_are_close_to_singular_has_variable_genes_too() {
    let Some(data) = data() else { return };
    let found = of(&data.join("cells/zheng_facs800.h5ad"), None, &VariableGeneOptions::default()).unwrap();
    assert_eq!(found.ranked().len(), 3_000);
    assert!(found.genes().iter().all(|gene| gene.standardized_variance.is_finite()));
}
