//! The table of docs/formats.md that says what becomes of each real file; set CELLPATCH_UPDATE_COVERAGE to write it anew.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may")]

mod reference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cellpatch_data::{AnnDataFile, CellFormat, MatrixChoice, Result, describe_cells, open_cells};
use reference::{ExpectedFile, ExpectedTenx, data, expected_files, expected_tenx, join, matrix_hash};

const BEGIN: &str = "<!-- coverage: made by tests/coverage.rs -->\n";
const END: &str = "<!-- end of coverage -->\n";
const UPDATE: &str = "CELLPATCH_UPDATE_COVERAGE";
/// Matrix folders among the data; their files are not inputs by themselves.
const FOLDERS: [&str; 3] = [
    "formats/scanpy10x_intids",
    "formats/scanpy10x_v2/filtered_gene_bc_matrices/hg19_chr21",
    "formats/scanpy10x_v3/filtered_feature_bc_matrix",
];

/// What anndata and scanpy read.
struct Expected {
    files: BTreeMap<String, ExpectedFile>,
    tenx: BTreeMap<String, ExpectedTenx>,
}

/// Every input with its genome, by name.
fn inputs(data: &Path) -> Vec<(String, Option<String>)> {
    let mut names: Vec<String> = FOLDERS.map(String::from).into();
    let mut folders: Vec<PathBuf> =
        ["cells", "cellxgene", "formats", "spatial"].map(|name| data.join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "h5ad" || extension == "h5") {
                names.push(path.strip_prefix(data).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    let several = |name: &String| match name.ends_with("multiple_genomes.h5") {
        true => vec![None, Some("another_genome".into()), Some("hg19_chr21".into())],
        false => vec![None],
    };
    names.iter().flat_map(|name| several(name).into_iter().map(|genome| (name.clone(), genome))).collect()
}

/// Reads every matrix of an AnnData file, and counts those that equal what anndata reads.
fn equal_matrices(path: &Path, expected: Option<&ExpectedFile>) -> Result<(usize, usize)> {
    let file = AnnDataFile::open(path)?;
    let mut counted = (0, 0);
    for location in file.matrices() {
        let whole = join(file.blocks(&location, 1 << 20)?)?;
        let wanted = expected.and_then(|expected| expected.matrices.get(&location.to_string()));
        counted.0 += usize::from(wanted.is_some_and(|wanted| wanted.sha256 == matrix_hash(&whole)));
        counted.1 += 1;
    }
    Ok(counted)
}

/// The cells of a row: kind, matrices, which equal the reference, where counts come from.
fn describe(path: &Path, genome: Option<&str>, key: &str, expected: &Expected) -> Result<[String; 4]> {
    let found = describe_cells(path, genome)?;
    let matrices: Vec<String> = found
        .matrices
        .iter()
        .map(|matrix| {
            let info = &matrix.info;
            let (cells, genes) = (info.n_cells, info.n_genes);
            format!("{} {cells} x {genes} {} {}", matrix.name, info.storage, info.dtype)
        })
        .collect();
    let equal = match found.format {
        CellFormat::AnnData => {
            let (equal, all) = equal_matrices(path, expected.files.get(key))?;
            format!("{equal} of {all}")
        }
        _ => {
            let choice = MatrixChoice { genome: genome.map(str::to_string), ..MatrixChoice::default() };
            let whole = join(open_cells(path, &choice)?.blocks(1 << 20)?)?;
            let wanted = &expected.tenx[&format!("{key}|{}", genome.unwrap_or_default())];
            format!("{} of 1", usize::from(wanted.matrix.sha256 == matrix_hash(&whole)))
        }
    };
    let choice = MatrixChoice { genome: genome.map(str::to_string), ..MatrixChoice::default() };
    let counts = match open_cells(path, &choice) {
        Ok(source) => source.matrix(),
        Err(error) => format!("none: {error}"),
    };
    let listed = if matrices.is_empty() { "none".into() } else { matrices.join("; ") };
    Ok([found.format.to_string(), listed, equal, counts])
}

fn table(data: &Path) -> String {
    let expected = Expected { files: expected_files(), tenx: expected_tenx() };
    let mut table = String::from(
        "| input | kind | matrices | equal to anndata's or scanpy's | counts from |\n|---|---|---|---|---|\n",
    );
    let root = format!("{}/", data.display());
    for (name, genome) in inputs(data) {
        let row = describe(&data.join(&name), genome.as_deref(), &name, &expected);
        let title = genome.map_or(name.clone(), |genome| format!("{name}, genome {genome}"));
        let cells = match row {
            Ok([kind, matrices, equal, counts]) => format!("{kind} | {matrices} | {equal} | {counts}"),
            Err(error) => format!("refused | {error} | | "),
        };
        let line = format!("| `{title}` | {cells} |\n");
        table.push_str(
            &line
                .replace(&root, "")
                .replace(&format!("{name} "), "it ")
                .replace("| `it ", &format!("| `{name} ")),
        );
    }
    table
}

#[test]
fn the_table_of_formats_is_up_to_date() {
    let Some(data) = data() else { return };
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats.md");
    let text = std::fs::read_to_string(&document).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (old, after) = rest.split_once(END).unwrap();
    let new = format!("\n{}\n", table(&data));
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&document, format!("{before}{BEGIN}{new}{END}{after}")).unwrap();
        println!("written: {}", document.display());
        return;
    }
    assert!(
        old == new,
        "docs/formats.md is out of date; set {UPDATE}=1 and run this test again. It should be:\n{new}"
    );
}
