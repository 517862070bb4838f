//! 10x files and folders against what scanpy reads, and folders made here.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may")]

mod reference;

use std::io::Write;
use std::path::{Path, PathBuf};

use cellpatch_data::{
    CellFormat, CellSource, CountBlock, Error, MatrixChoice, QualityFilter, Result, ShardOptions,
    ValuePolicy, cell_inputs, describe_cells, open_cells, write_shards,
};
use reference::{data, expected_tenx, join, matrix_hash, text_hash};
use tempfile::TempDir;

/// Genes x cells, as 10x writes it: cells with genes 2 and 4, none, gene 1.
const SORTED: &str =
    "%%MatrixMarket matrix coordinate integer general\n%metadata\n4 3 3\n2 1 3\n4 1 1\n1 3 7\n";
const FEATURES: &str = "ENSG00000141510\tTP53\tGene Expression\nENSG00000153563\tCD8A\tGene Expression\n\
    CD3\tCD3_TotalSeqB\tAntibody Capture\nENSG00000105374\tNKG7\tGene Expression\n";
const BARCODES: &str = "AAA-1\nCCC-1\nGGG-1\n";

fn choose(genome: Option<&str>) -> MatrixChoice {
    MatrixChoice { genome: genome.map(str::to_string), ..MatrixChoice::default() }
}

/// Opens a folder with the given files, packed if their names end so.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let file = std::fs::File::create(folder.path().join(name)).unwrap();
        if name.ends_with(".gz") {
            let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            packed.write_all(text.as_bytes()).unwrap();
            packed.finish().unwrap();
        } else {
            (&file).write_all(text.as_bytes()).unwrap();
        }
    }
    folder
}

fn tables(matrix: &str) -> Vec<(&str, &str)> {
    vec![("matrix.mtx", matrix), ("features.tsv", FEATURES), ("barcodes.tsv", BARCODES)]
}

fn read(source: &dyn CellSource, max_bytes: usize) -> Result<CountBlock> {
    join(source.blocks(max_bytes)?)
}

/// The cells of [`SORTED`], the antibody left out.
fn expected() -> CountBlock {
    CountBlock {
        first_row: 0,
        offsets: vec![0, 2, 2, 3],
        columns: vec![1, 2, 0],
        values: vec![3.0, 1.0, 7.0],
    }
}

fn assert_reads(path: &Path) {
    let source = open_cells(path, &MatrixChoice::default()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(source.format(), CellFormat::TenxFolder);
    assert_eq!(source.cell_ids().unwrap(), ["AAA-1", "CCC-1", "GGG-1"]);
    let genes: Vec<String> = source.genes().unwrap().iter().map(|gene| gene.name().to_string()).collect();
    assert_eq!(genes, ["TP53", "CD8A", "NKG7"]);
    for max_bytes in [0, 24, 1 << 20] {
        assert_eq!(read(source.as_ref(), max_bytes).unwrap(), expected(), "{}", path.display());
    }
}

#[test]
fn every_10x_input_reads_as_scanpy_reads_it() {
    let Some(data) = data() else { return };
    for (name, expected) in expected_tenx() {
        let (path, genome) = name.split_once('|').unwrap();
        let choice = choose(Some(genome).filter(|genome| !genome.is_empty()));
        let source = open_cells(&data.join(path), &choice).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(text_hash(&source.cell_ids().unwrap()), expected.cell_ids, "{name}");
        let info = source.matrix_info().unwrap();
        assert_eq!([info.n_cells, info.n_genes], expected.matrix.shape, "{name}");
        let genes = source.genes().unwrap();
        if expected.gene_names
            == text_hash(&genes.iter().map(|gene| gene.name().to_string()).collect::<Vec<_>>())
        {
            assert_eq!(genes[0].name(), expected.first_gene[1], "{name}");
        } else {
            panic!("{name}: genes begin with {:?}, expected {:?}", genes[0], expected.first_gene);
        }
        for max_bytes in [2_000, 1 << 24] {
            let whole = read(source.as_ref(), max_bytes).unwrap();
            assert_eq!(whole.values.len(), expected.matrix.nonzero, "{name}");
            assert_eq!(matrix_hash(&whole), expected.matrix.sha256, "{name}");
        }
        assert_eq!(source.obs_columns(), Vec::<String>::new());
    }
}

#[test]
fn of_several_genomes_one_must_be_named() {
    let Some(data) = data() else { return };
    let path = data.join("formats/scanpy10x_v2/multiple_genomes.h5");
    let error = open_cells(&path, &choose(None)).err().unwrap();
    assert!(
        matches!(&error, Error::SeveralGenomes { genomes, .. } if genomes == &["another_genome", "hg19_chr21"]),
        "{error}"
    );
    assert!(error.help().unwrap().contains("--genome another_genome"));
    let error = open_cells(&path, &choose(Some("GRCh38"))).err().unwrap();
    assert!(matches!(error, Error::Missing { what: "genome", .. }), "{error}");
    // One genome, one folder in it: nothing to choose.
    let folder = data.join("formats/scanpy10x_v2/filtered_gene_bc_matrices");
    assert_eq!(open_cells(&folder, &choose(None)).unwrap().n_cells(), 12);
}

#[test]
fn a_folder_reads_the_same_packed_prefixed_and_transposed() {
    let transposed =
        "%%MatrixMarket matrix coordinate real general\n3 4 3\n1 2 3.0\n1 4 1e0\n3 1 7\n".to_string();
    let variants: Vec<Vec<(&str, &str)>> = vec![
        tables(SORTED),
        vec![("matrix.mtx.gz", SORTED), ("features.tsv.gz", FEATURES), ("barcodes.tsv.gz", BARCODES)],
        vec![
            ("GSM1_matrix.mtx.gz", SORTED),
            ("GSM1_features.tsv.gz", FEATURES),
            ("GSM1_barcodes.tsv", BARCODES),
        ],
        vec![("sample.mtx", SORTED), ("sample_features.tsv", FEATURES), ("sample_barcodes.tsv", BARCODES)],
        vec![("matrix.mtx", &transposed), ("features.tsv", FEATURES), ("barcodes.tsv", BARCODES)],
    ];
    for files in variants {
        let folder = folder(&files);
        assert_reads(folder.path());
        assert_reads(&folder.path().join(files[0].0));
    }
}

#[test]
fn entries_in_any_order_with_repeats_and_zeros_read_the_same() {
    let disordered =
        "%%MatrixMarket matrix coordinate integer general\n4 3 6\n1 3 5\n2 1 3\n3 2 9\n4 1 1\n1 3 2\n2 2 0\n";
    assert_reads(folder(&tables(disordered)).path());
    let windows = SORTED.replace('\n', "\r\n");
    assert_reads(folder(&tables(&windows)).path());
    let no_last_end = SORTED.trim_end();
    assert_reads(folder(&tables(no_last_end)).path());
}

#[test]
fn a_larger_matrix_reads_the_same_sorted_or_not() {
    let (n_genes, n_cells) = (300u64, 500u64);
    let mut entries: Vec<(u64, u64, u64)> =
        (0..40_000u64).map(|at| (at * 7919 % n_genes + 1, at * 104_729 % n_cells + 1, at % 9 + 1)).collect();
    let table = |prefix: &str, count: u64| (0..count).map(|at| format!("{prefix}{at}\n")).collect::<String>();
    let (genes, cells) = (table("GENE", n_genes), table("cell", n_cells));
    let text = |entries: &[(u64, u64, u64)]| {
        let lines = entries.iter().map(|(gene, cell, count)| format!("{gene} {cell} {count}\n"));
        let size = format!("{n_genes} {n_cells} {}\n", entries.len());
        format!("%%MatrixMarket matrix coordinate integer general\n{size}{}", lines.collect::<String>())
    };
    let unsorted = text(&entries);
    entries.sort_by_key(|&(_, cell, _)| cell);
    let sorted = text(&entries);
    let mut found = Vec::new();
    for matrix in [&unsorted, &sorted] {
        let folder = folder(&[("matrix.mtx.gz", matrix), ("genes.tsv", &genes), ("barcodes.tsv", &cells)]);
        let source = open_cells(folder.path(), &MatrixChoice::default()).unwrap();
        for max_bytes in [5_000, 1 << 22] {
            for block in source.blocks(max_bytes).unwrap() {
                let block = block.unwrap();
                assert!(block.n_cells() == 1 || block.columns.len() * 8 <= max_bytes);
            }
            found.push(read(source.as_ref(), max_bytes).unwrap());
        }
    }
    assert_eq!(
        found[0].values.iter().sum::<f32>(),
        (0..40_000u64).map(|at| (at % 9 + 1) as f32).sum::<f32>()
    );
    found.dedup();
    assert_eq!(found.len(), 1);
}

#[test]
fn what_is_wrong_with_a_folder_is_said_with_the_line() {
    let refusal = |files: &[(&str, &str)]| -> Error {
        let folder = folder(files);
        match open_cells(folder.path(), &MatrixChoice::default()) {
            Err(error) => error,
            Ok(source) => read(source.as_ref(), 1 << 20).unwrap_err(),
        }
    };
    let line = |matrix: &str| match refusal(&tables(matrix)) {
        Error::BadLine { line, reason, .. } => (line, reason),
        other => panic!("{other}"),
    };
    let (at, reason) = line(&SORTED.replace("1 3 7\n", ""));
    assert!(at == 5 && reason.contains("2 of 3 entries"), "{at} {reason}");
    let (at, reason) = line(&SORTED.replace("4 3 3", "4 3 2"));
    assert!(at == 6 && reason.contains("more entries"), "{at} {reason}");
    let (at, reason) = line(&SORTED.replace("1 3 7", "5 3 7"));
    assert!(at == 6 && reason.contains("outside 4 x 3"), "{at} {reason}");
    assert_eq!(line(&SORTED.replace("1 3 7", "0 3 7")).0, 6);
    assert_eq!(line(&SORTED.replace("1 3 7", "1 3")).0, 6);
    assert_eq!(line("%%MatrixMarket matrix array real general\n4 3\n").0, 1);
    assert_eq!(line("%%MatrixMarket matrix coordinate complex general\n4 3 0\n").0, 1);
    assert_eq!(line("4 3 3\n").0, 1);
    let (_, reason) = line("%%MatrixMarket matrix coordinate integer general\n18446744073709551615 3 3\n");
    assert!(reason.contains("too large"), "{reason}");
    let error = refusal(&tables(&SORTED.replace("1 3 7", "1 3 -7")));
    assert!(matches!(error, Error::NotCounts { .. }) && error.to_string().contains("negatives"), "{error}");
    let error = refusal(&tables(&SORTED.replace("4 3 3", "5 3 3")));
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("4 features"), "{error}");
    let error = refusal(&tables(SORTED)[..2]);
    assert!(matches!(error, Error::Missing { what: "table of cells", .. }), "{error}");
    let error = refusal(&[("a_matrix.mtx", SORTED), ("b_matrix.mtx", SORTED)]);
    assert!(matches!(error, Error::UnknownInput { .. }) && error.to_string().contains("b_matrix"), "{error}");
    assert!(matches!(refusal(&[("notes.txt", "")]), Error::UnknownInput { .. }));
}

#[test]
fn a_layer_is_not_looked_for_in_a_10x_folder() {
    let folder = folder(&tables(SORTED));
    let choice = MatrixChoice { layer: Some("counts".into()), ..MatrixChoice::default() };
    assert!(matches!(open_cells(folder.path(), &choice).err(), Some(Error::Missing { what: "layer", .. })));
}

#[test]
fn a_description_says_what_is_left_out_and_refuses_no_values() {
    let folder = folder(&tables(&SORTED.replace("1 3 7", "1 3 -7")));
    let found = describe_cells(folder.path(), None).unwrap();
    assert_eq!((found.n_cells, found.matrices[0].info.n_genes), (3, 3));
    assert_eq!(found.left_out["Antibody Capture"], 1);
    assert!(found.matrices[0].values.to_string().contains("negatives"));
    let normalized = MatrixChoice { values: ValuePolicy::Normalized, ..MatrixChoice::default() };
    assert!(open_cells(folder.path(), &normalized).is_err());
}

#[test]
fn a_folder_of_inputs_stands_for_what_is_in_it() {
    let root = TempDir::new().unwrap();
    let sample = root.path().join("sample");
    std::fs::create_dir(&sample).unwrap();
    for (name, text) in tables(SORTED) {
        std::fs::write(sample.join(name), text).unwrap();
    }
    for name in ["b.h5ad", "a.h5", "notes.txt"] {
        std::fs::write(root.path().join(name), b"").unwrap();
    }
    let found = cell_inputs(root.path()).unwrap();
    let expected: Vec<PathBuf> = ["a.h5", "b.h5ad", "sample"].map(|name| root.path().join(name)).into();
    assert_eq!(found, expected);
    assert_eq!(cell_inputs(&sample).unwrap(), [sample]);
}

#[test]
fn a_matrix_folder_and_an_h5_file_become_one_shard_set() {
    let Some(data) = data() else { return };
    let inputs = ["filtered_feature_bc_matrix", "filtered_feature_bc_matrix.h5"]
        .map(|name| data.join("formats/scanpy10x_v3").join(name));
    let out = TempDir::new().unwrap();
    let options = ShardOptions { quality: QualityFilter::OFF, ..ShardOptions::default() };
    let set = write_shards(&inputs, &out.path().join("set"), &options, &mut |_| {}).unwrap();
    let sources = &set.manifest().sources;
    let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["filtered_feature_bc_matrix", "filtered_feature_bc_matrix-2"]);
    assert_eq!((sources[0].matrix.as_str(), sources[1].matrix.as_str()), ("matrix.mtx.gz", "matrix"));
    assert_eq!(sources[0].n_cells_written, sources[1].n_cells_written);
    assert_eq!(sources[1].n_matched_by_id, 507, "the second file has the genes of the first");
}
