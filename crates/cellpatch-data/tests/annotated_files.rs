//! Adding to files: what is added can be read, what was there stays as it was.
//!
//! `groups/make.py` made the files that hold their groups in each of HDF5's ways.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may"
)]

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
use cellpatch_data::{
    AnnDataFile, AnnotationSummary, ColumnValues, Error, Existing, H5adAnnotator, Labels, NewValues, Result,
    UnsValue,
};
use hdf5_pure::{AttrValue, CompoundTypeBuilder, Dataset, File, FileBuilder, Group};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const STORED: [&str; 3] = ["old.h5ad", "compact.h5ad", "dense.h5ad"];

fn stored(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/groups").join(name)
}

fn labels() -> Labels {
    Labels { categories: vec!["T".into(), "γδ".into()], codes: vec![Some(1), None, Some(0)] }
}

/// Adds a column, a matrix and a dictionary to a file of three cells.
fn annotate(input: &Path, output: &Path) -> Result<AnnotationSummary> {
    let mut annotator = H5adAnnotator::create(input, output, Existing::Keep)?;
    annotator.obs_column("label", labels())?;
    annotator.obs_column("column_001", vec![0.5f32, f32::NAN, -1.0])?;
    let matrix = annotator.obsm("X_new", 2)?;
    annotator.write_rows(matrix, 0, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])?;
    annotator.uns("model", &[("name", UnsValue::Text("m".into())), ("epochs", UnsValue::Integer(3))])?;
    annotator.finish()
}

/// Every object's attributes and values, by its full name.
fn contents(path: &Path) -> BTreeMap<String, String> {
    fn visit(group: &Group, name: &str, all: &mut BTreeMap<String, String>) {
        let attributes: BTreeMap<_, _> = group.attrs().unwrap().into_iter().collect();
        all.insert(format!("{name}/"), format!("{attributes:?}"));
        // The library cannot list an old group with a soft link, as `obsm` has.
        let members = |list: Result<Vec<String>, hdf5_pure::Error>| match list {
            Err(_) if name == "/obsm" => Vec::new(),
            list => list.unwrap(),
        };
        for member in members(group.datasets()) {
            let Ok(dataset) = group.dataset(&member) else { continue };
            all.insert(format!("{name}/{member}"), describe(&dataset));
        }
        for member in members(group.groups()) {
            visit(&group.group(&member).unwrap(), &format!("{name}/{member}"), all);
        }
    }
    fn describe(dataset: &Dataset) -> String {
        let attributes: BTreeMap<_, _> = dataset.attrs().unwrap().into_iter().collect();
        let n_rows = dataset.shape().unwrap().first().copied().unwrap_or(1);
        let values = dataset.read_raw_rows(0, n_rows).map_err(|error| error.to_string());
        format!("{attributes:?} {:?} {:?} {values:?}", dataset.shape(), dataset.datatype())
    }
    let mut all = BTreeMap::new();
    visit(&File::open(path).unwrap().root(), "", &mut all);
    all
}

#[test]
fn every_other_member_and_byte_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let synthetic = folder.path().join("synthetic.h5ad");
    write_h5ad(&SyntheticConfig { n_cells: 3, n_genes: 600, ..SyntheticConfig::default() }, &synthetic)
        .unwrap();
    for input in STORED.map(stored).into_iter().chain([synthetic]) {
        let output = folder.path().join("out.h5ad");
        let _ = fs::remove_file(&output);
        annotate(&input, &output).unwrap();
        let (before, after) = (fs::read(&input).unwrap(), fs::read(&output).unwrap());
        // No superblock is longer than 100 bytes; all else of the old file is still in its place.
        assert_eq!(before[100..], after[100..before.len()], "{}", input.display());
        let (before, after) = (contents(&input), contents(&output));
        assert!(before.len() > 10, "{before:?}");
        let changed: Vec<&str> = before
            .iter()
            .filter(|(name, content)| after.get(*name) != Some(content))
            .map(|(name, _)| name.as_str())
            .collect();
        let columns = changed.iter().all(|name| ["/obs/", "/obs/column_001"].contains(name));
        assert!(columns, "{}: {changed:?} are not the same", input.display());
    }
}

#[test]
fn attributes_of_obs_stay_but_for_the_order_of_columns() {
    let folder = tempfile::tempdir().unwrap();
    for name in STORED {
        let output = folder.path().join(name);
        annotate(&stored(name), &output).unwrap();
        let attributes =
            |path: &Path| File::open(path).unwrap().root().group("obs").unwrap().attrs().unwrap();
        let (mut before, mut after) = (attributes(&stored(name)), attributes(&output));
        let order = |attributes: &mut std::collections::HashMap<String, AttrValue>| {
            attributes.remove("column-order").unwrap().as_strings().unwrap().to_vec()
        };
        let mut expected = order(&mut before);
        expected.push("label".into());
        assert_eq!(order(&mut after), expected, "{name}");
        assert_eq!(before, after, "{name}");
    }
}

#[test]
fn what_is_added_reads_back_and_can_be_added_to_again() {
    let folder = tempfile::tempdir().unwrap();
    for name in STORED {
        let (once, twice) = (folder.path().join(name), folder.path().join(format!("twice-{name}")));
        let summary = annotate(&stored(name), &once).unwrap();
        assert_eq!(summary.added, ["obs/label", "obsm/X_new", "uns/model"]);
        assert_eq!(summary.replaced, ["obs/column_001"]);
        assert_eq!(summary.file_bytes, fs::metadata(&once).unwrap().len());
        let summary = annotate(&once, &twice).unwrap();
        assert_eq!(summary.replaced, ["obs/label", "obs/column_001", "obsm/X_new", "uns/model"]);
        for path in [once, twice] {
            let file = AnnDataFile::open(&path).unwrap();
            assert_eq!(file.obs_column("label").unwrap().values, ColumnValues::Categories(labels()));
            let ColumnValues::Numbers(numbers) = file.obs_column("column_001").unwrap().values else {
                panic!("not numbers")
            };
            assert!(numbers[0] == 0.5 && numbers[1].is_nan() && numbers[2] == -1.0);
            let columns = file.obs_columns();
            assert_eq!((columns[1].as_str(), columns.last().unwrap().as_str()), ("column_001", "label"));
            let file = File::open(&path).unwrap();
            let matrix = file.dataset("obsm/X_new").unwrap();
            assert_eq!(matrix.shape().unwrap(), [3, 2]);
            assert_eq!(matrix.read_f32().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
            assert_eq!(file.dataset("uns/model/name").unwrap().read_string().unwrap(), ["m"]);
        }
    }
}

#[test]
fn every_kind_of_column_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.h5ad");
    let some = |text: &str| Some(text.to_string());
    let long = "x".repeat(100_000);
    let columns = [
        ("category", NewValues::Categories(labels()), ColumnValues::Categories(labels())),
        (
            "text",
            NewValues::Texts(vec![some("µ"), some(""), some(&long)]),
            ColumnValues::Texts(vec![some("µ"), some(""), some(&long)]),
        ),
        (
            "text with gaps",
            NewValues::Texts(vec![some("b"), None, some("a")]),
            ColumnValues::Categories(Labels {
                categories: vec!["a".into(), "b".into()],
                codes: vec![Some(1), None, Some(0)],
            }),
        ),
        (
            "integer",
            NewValues::Integers(vec![Some(i64::MIN), Some(0), Some(7)]),
            ColumnValues::Integers(vec![Some(i64::MIN), Some(0), Some(7)]),
        ),
        (
            "integer with gaps",
            NewValues::Integers(vec![None, Some(-1), Some(7)]),
            ColumnValues::Integers(vec![None, Some(-1), Some(7)]),
        ),
        (
            "boolean",
            NewValues::Booleans(vec![Some(true), Some(false), Some(true)]),
            ColumnValues::Booleans(vec![Some(true), Some(false), Some(true)]),
        ),
        (
            "boolean with gaps",
            NewValues::Booleans(vec![Some(true), None, Some(false)]),
            ColumnValues::Booleans(vec![Some(true), None, Some(false)]),
        ),
        (
            "float32",
            NewValues::Float32(vec![0.1, -0.0, 2.0]),
            ColumnValues::Numbers(vec![0.1f32.into(), -0.0, 2.0]),
        ),
        ("float64", NewValues::Float64(vec![0.1, 1e300, 2.0]), ColumnValues::Numbers(vec![0.1, 1e300, 2.0])),
    ];
    let mut annotator = H5adAnnotator::create(&stored("old.h5ad"), &output, Existing::Keep).unwrap();
    for (name, values, _) in &columns {
        annotator.obs_column(name, values.clone()).unwrap();
    }
    annotator.finish().unwrap();
    let file = AnnDataFile::open(&output).unwrap();
    for (name, _, expected) in columns {
        assert_eq!(file.obs_column(name).unwrap().values, expected, "{name}");
    }
}

#[test]
fn codes_are_as_wide_as_their_categories_need() {
    let folder = tempfile::tempdir().unwrap();
    for (n_categories, size) in [(0, 1), (127, 1), (128, 2), (32_767, 2), (32_768, 4)] {
        let output = folder.path().join(format!("{n_categories}.h5ad"));
        let last = u32::try_from(n_categories).unwrap().checked_sub(1);
        let labels = Labels {
            categories: (0..n_categories).map(|category| format!("type {category}")).collect(),
            codes: vec![last, None, last.map(|_| 0)],
        };
        let mut annotator = H5adAnnotator::create(&stored("old.h5ad"), &output, Existing::Keep).unwrap();
        annotator.obs_column("label", labels.clone()).unwrap();
        annotator.finish().unwrap();
        let column = AnnDataFile::open(&output).unwrap().obs_column("label").unwrap();
        assert_eq!(column.values, ColumnValues::Categories(labels));
        let codes = File::open(&output).unwrap().dataset("obs/label/codes").unwrap();
        assert_eq!(codes.datatype().unwrap().type_size(), size);
    }
}

#[test]
fn rows_of_two_matrices_come_in_turn_and_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.h5ad");
    let mut annotator = H5adAnnotator::create(&stored("compact.h5ad"), &output, Existing::Keep).unwrap();
    let (cells, genes) = (annotator.obsm("cells", 2).unwrap(), annotator.varm("genes", 1).unwrap());
    annotator.write_rows(cells, 2, &[5.0, 6.0]).unwrap();
    annotator.write_rows(genes, 1, &[8.0]).unwrap();
    annotator.write_rows(cells, 0, &[1.0, 2.0, 3.0, 4.0]).unwrap();
    assert!(matches!(annotator.write_rows(cells, 2, &[0.0; 4]), Err(Error::WrongLength { .. })));
    assert!(matches!(annotator.write_rows(cells, 0, &[0.0; 3]), Err(Error::WrongLength { .. })));
    annotator.write_rows(genes, 0, &[7.0]).unwrap();
    annotator.finish().unwrap();
    let file = File::open(&output).unwrap();
    assert_eq!(file.dataset("obsm/cells").unwrap().read_f32().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(file.dataset("varm/genes").unwrap().read_f32().unwrap(), [7.0, 8.0]);
}

#[test]
fn a_matrix_with_a_row_missing_makes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.h5ad");
    let mut annotator = H5adAnnotator::create(&stored("old.h5ad"), &output, Existing::Keep).unwrap();
    let matrix = annotator.obsm("X_new", 1).unwrap();
    annotator.write_rows(matrix, 0, &[1.0, 2.0]).unwrap();
    let error = annotator.finish().unwrap_err();
    assert_eq!(error.to_string(), "obsm/X_new has 2 rows, expected 3");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn columns_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.h5ad");
    let mut annotator = H5adAnnotator::create(&stored("old.h5ad"), &output, Existing::Keep).unwrap();
    for name in ["", "a/b", ".", "_index", "__categories"] {
        let refused = annotator.obs_column(name, vec![0.0f32; 3]);
        assert!(matches!(refused, Err(Error::BadOption { .. })), "{name:?}");
    }
    let short = annotator.obs_column("short", vec![0.0f32; 2]).unwrap_err();
    assert_eq!(short.to_string(), "obs column \"short\" has 2 values, expected 3");
    let twice = Labels { categories: vec!["a".into(), "a".into()], codes: vec![None; 3] };
    assert!(matches!(annotator.obs_column("twice", twice), Err(Error::BadOption { .. })));
    let outside = Labels { categories: vec!["a".into()], codes: vec![Some(1); 3] };
    assert!(matches!(annotator.obs_column("outside", outside), Err(Error::BadOption { .. })));
    assert!(matches!(annotator.obsm("empty", 0), Err(Error::BadOption { .. })));
    let matrix = annotator.obsm("X_new", 1).unwrap();
    assert!(matches!(annotator.obsm("X_new", 1), Err(Error::BadOption { .. })));
    annotator.write_rows(matrix, 0, &[0.0; 3]).unwrap();
    let many = (0..5000)
        .map(|column| format!("many_{column}"))
        .try_for_each(|name| annotator.obs_column(&name, vec![0.0f32; 3]));
    many.unwrap();
    assert!(matches!(annotator.finish(), Err(Error::CannotAdd { .. })));
    assert!(!output.exists());
}

#[test]
fn a_table_of_anndata_0_6_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.h5ad"), folder.path().join("out.h5ad"));
    let mut builder = FileBuilder::new();
    let record = CompoundTypeBuilder::new().i32_field("index").i32_field("n").build().unwrap();
    for name in ["obs", "var"] {
        builder.create_dataset(name).with_compound_data(record.clone(), vec![0; 16], 2);
    }
    fs::write(&input, builder.finish().unwrap()).unwrap();
    let mut annotator = H5adAnnotator::create(&input, &output, Existing::Keep).unwrap();
    let error = annotator.obs_column("label", vec![0.0f32; 2]).unwrap_err();
    assert!(matches!(&error, Error::CannotAdd { member, .. } if member == "obs"), "{error}");
    assert!(error.help().unwrap().contains(".parquet"));
    // A matrix can still be added.
    let matrix = annotator.obsm("X_new", 1).unwrap();
    annotator.write_rows(matrix, 0, &[1.0, 2.0]).unwrap();
    annotator.finish().unwrap();
    assert_eq!(File::open(&output).unwrap().dataset("obsm/X_new").unwrap().read_f32().unwrap(), [1.0, 2.0]);
}

#[test]
fn the_input_changes_only_when_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::copy(stored("old.h5ad"), path("cells.h5ad")).unwrap();
    let before = fs::read(path("cells.h5ad")).unwrap();
    let refused = H5adAnnotator::create(&path("cells.h5ad"), &path("cells.h5ad"), Existing::Replace);
    assert!(matches!(refused, Err(Error::BadOption { option: "output", .. })));
    fs::write(path("other.h5ad"), "mine").unwrap();
    let refused = H5adAnnotator::create(&path("cells.h5ad"), &path("other.h5ad"), Existing::Keep);
    assert!(matches!(refused, Err(Error::FileExists { .. })));

    let mut annotator = H5adAnnotator::create_in_place(&path("cells.h5ad")).unwrap();
    annotator.obs_column("label", labels()).unwrap();
    assert_eq!(fs::read(path("cells.h5ad")).unwrap(), before);
    drop(annotator);
    assert_eq!(fs::read(path("cells.h5ad")).unwrap(), before);

    let mut annotator = H5adAnnotator::create_in_place(&path("cells.h5ad")).unwrap();
    annotator.obs_column("label", labels()).unwrap();
    annotator.finish().unwrap();
    let file = AnnDataFile::open(&path("cells.h5ad")).unwrap();
    assert_eq!(file.obs_column("label").unwrap().values, ColumnValues::Categories(labels()));
    assert_eq!(fs::read(path("other.h5ad")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[cfg(unix)]
#[test]
fn in_place_keeps_permissions_and_symbolic_links() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("cells.h5ad"), folder.path().join("link.h5ad"));
    fs::copy(stored("old.h5ad"), &file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&file, &link).unwrap();
    let mut annotator = H5adAnnotator::create_in_place(&link).unwrap();
    annotator.obs_column("label", labels()).unwrap();
    annotator.finish().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(AnnDataFile::open(&file).unwrap().obs_columns().contains(&"label".to_string()));
}

#[test]
fn no_damage_to_the_input_makes_the_annotator_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.h5ad"), folder.path().join("out.h5ad"));
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut n_refused = 0;
    for name in STORED {
        let whole = fs::read(stored(name)).unwrap();
        for round in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..20) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            fs::write(&input, &bytes).unwrap();
            let _ = fs::remove_file(&output);
            let result = catch_unwind(AssertUnwindSafe(|| annotate(&input, &output)));
            let result = result.unwrap_or_else(|_| panic!("{name} panics in round {round}"));
            n_refused += usize::from(result.is_err());
            assert_eq!(output.exists(), result.is_ok(), "{name} in round {round}");
        }
    }
    // Most damage is to padding and values; some must have been to structures.
    assert!(n_refused > 20, "{n_refused}");
}

/// The files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn real_files_are_added_to_or_refused_because_of_their_age() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let data = std::env::var_os("CELLPATCH_DATA").map_or_else(beside, PathBuf::from);
    if !data.join("cells").is_dir() {
        println!("skipped: no data in {} (set CELLPATCH_DATA)", data.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.h5ad");
    let (mut n_added, mut n_refused) = (0, 0);
    for input in files(&data).into_iter().filter(|path| path.extension().is_some_and(|end| end == "h5ad")) {
        let Ok(original) = AnnDataFile::open(&input) else { continue };
        let mut annotator = H5adAnnotator::create(&input, &output, Existing::Replace).unwrap();
        match annotator.obs_column("new label", vec![0.5f32; original.n_cells()]) {
            Err(Error::CannotAdd { member, .. }) if member == "obs" => {
                n_refused += 1;
                continue;
            }
            result => result.unwrap(),
        }
        annotator.finish().unwrap();
        let (before, after) = (fs::read(&input).unwrap(), fs::read(&output).unwrap());
        assert!(before[100..] == after[100..before.len()], "{}", input.display());
        let copy = AnnDataFile::open(&output).unwrap();
        assert_eq!(copy.cell_ids().unwrap(), original.cell_ids().unwrap());
        assert_eq!(copy.matrices(), original.matrices());
        let mut columns = original.obs_columns();
        for column in &columns {
            let values =
                |file: &AnnDataFile| format!("{:?}", file.obs_column(column).map(|column| column.values));
            // A column that cannot be read cannot be read in either, and the two errors name their own file.
            let same = values(&copy) == values(&original) || original.obs_column(column).is_err();
            assert!(same, "{column} of {}", input.display());
        }
        columns.push("new label".into());
        assert_eq!(copy.obs_columns(), columns);
        n_added += 1;
    }
    println!("{n_added} files were added to, {n_refused} refused");
    assert!(n_added >= 40 && n_refused <= 3);
}
