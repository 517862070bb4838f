//! Inputs with random damage: whatever they hold, reading them ends, with cells or with an error.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may")]

mod damage;

use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
use cellpatch_data::{
    AnnDataFile, GeneVocabulary, Loader, LoaderOptions, MatrixChoice, MergeOptions, QualityFilter, Result,
    RowSelection, ShardOptions, ShardPart, ShardSet, ValuePolicy, describe_cells, merge_shards, open_cells,
    write_shards,
};
use damage::Files;
use hdf5_pure::FileBuilder;
use rand::RngExt;
use tempfile::TempDir;

/// The most memory reading any of them may take, in KiB.
const MOST_MEMORY: u64 = 1 << 20;
/// A reader that takes longer is worth a look.
const SLOW: Duration = Duration::from_secs(2);
/// A reader that takes longer hangs.
const HANGS: Duration = Duration::from_secs(10);

/// An input of some kind: the files it has, damaged or not, are read from a folder.
struct Kind {
    name: String,
    whole: Files,
    damage: fn(&mut Files, u64),
    read: fn(&Path) -> Result<()>,
}

fn damage_one_binary(files: &mut Files, seed: u64) {
    files.values_mut().for_each(|bytes| damage::binary(bytes, &mut damage::random(seed)));
}

fn damage_a_text(files: &mut Files, seed: u64) {
    let mut random = damage::random(seed);
    // Most often the matrix; it is the first by name after the barcodes and features.
    let nth = [0, 1, 2, 2, 2, 2][random.random_range(0..6)];
    let bytes = files.values_mut().nth(nth).unwrap();
    damage::text(bytes, &mut random);
}

fn damage_shards(files: &mut Files, seed: u64) {
    damage::shards(files, &mut damage::random(seed));
}

/// Does everything a reader can do with an input of cells; the error is one of reading all of it.
fn read_cells(folder: &Path) -> Result<()> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let path = if paths.len() == 1 { paths.remove(0) } else { folder.to_path_buf() };
    let _ = describe_cells(&path, None);
    if path.extension().is_some_and(|end| end == "h5ad")
        && let Ok(file) = AnnDataFile::open(&path)
    {
        for column in file.obs_columns() {
            let _ = file.obs_column(&column).map(|column| column.labels());
        }
        for matrix in file.matrices() {
            let _ = file.genes(&matrix);
            let _ =
                file.blocks(&matrix, 1 << 16).map(|mut blocks| blocks.try_for_each(|block| block.map(drop)));
        }
    }
    let choice = MatrixChoice { values: ValuePolicy::Normalized, ..MatrixChoice::default() };
    let source = open_cells(&path, &choice)?;
    for column in source.obs_columns() {
        let _ = source.labels(&column);
    }
    source.genes()?;
    source.cell_ids()?;
    // As sharding does: no more than a block is held.
    source.blocks(1 << 16)?.try_for_each(|block| block.map(drop))
}

/// The same for a shard set, which is a part of one, so that it can be merged too.
fn read_shards(folder: &Path) -> Result<()> {
    let set = Arc::new(ShardSet::open(folder)?);
    let _ = (set.verify(), set.vocabulary(), set.rows(), set.cell_ids());
    for column in ["source", "donor_id"] {
        let _ = set.labels(column);
    }
    let _ = set.shared_cells(1 << 20);
    let out = TempDir::new().unwrap();
    let _ = merge_shards(&[folder.to_path_buf()], out.path(), &MergeOptions::default(), &mut |_| {});
    let options = LoaderOptions { batch_size: 16, threads: 1, ..LoaderOptions::default() };
    let loader = Loader::new(Arc::clone(&set), RowSelection::all(set.n_cells() as u64), options)?;
    loader.epoch(1, 0).try_for_each(|batch| batch.map(drop))
}

fn binary_kind(name: &str, bytes: Vec<u8>) -> Kind {
    let whole = Files::from([(Path::new(name).file_name().unwrap().to_string_lossy().into(), bytes)]);
    Kind { name: name.into(), whole, damage: damage_one_binary, read: read_cells }
}

/// A matrix as Cell Ranger 3 writes it: 40 genes, 30 cells.
fn tenx() -> Vec<u8> {
    let (n_genes, n_cells) = (40i64, 30i64);
    let genes: Vec<i64> = (0..n_cells * 7).map(|at| at % 7 * 5 + at / 7 % 5).collect();
    let counts: Vec<i32> = (0..genes.len() as i32).map(|at| 1 + at % 9).collect();
    let ids: Vec<String> = (0..n_genes).map(|gene| format!("ENSG{gene:011}")).collect();
    let barcodes: Vec<String> = (0..n_cells).map(|cell| format!("ACGTACGTACGT{cell:04}-1")).collect();
    let texts = |texts: &[String]| texts.iter().map(String::clone).collect::<Vec<_>>();
    let mut builder = FileBuilder::new();
    let mut matrix = builder.create_group("matrix");
    matrix.create_dataset("shape").with_i64_data(&[n_genes, n_cells]);
    matrix.create_dataset("indptr").with_i64_data(&(0..=n_cells).map(|cell| cell * 7).collect::<Vec<_>>());
    matrix.create_dataset("indices").with_i64_data(&genes).with_chunks(&[64]).with_deflate(4);
    matrix.create_dataset("data").with_i32_data(&counts).with_chunks(&[64]).with_shuffle().with_deflate(4);
    let barcodes = texts(&barcodes);
    matrix
        .create_dataset("barcodes")
        .with_vlen_strings(&barcodes.iter().map(String::as_str).collect::<Vec<_>>());
    let ids = texts(&ids);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut features = matrix.create_group("features");
    features.create_dataset("id").with_vlen_strings(&ids);
    features.create_dataset("name").with_vlen_strings(&ids);
    features.create_dataset("feature_type").with_vlen_strings(&vec!["Gene Expression"; ids.len()]);
    features.create_dataset("genome").with_vlen_strings(&vec!["GRCh38"; ids.len()]);
    let features = features.finish();
    matrix.add_group(features);
    let matrix = matrix.finish();
    builder.add_group(matrix);
    builder.finish().unwrap()
}

/// A 10x folder of 20 genes and 12 cells.
fn market(field: &str) -> Files {
    let features: String =
        (0..20).map(|gene| format!("ENSG{gene:011}\tG{gene}\tGene Expression\n")).collect();
    let barcodes: String = (0..12).map(|cell| format!("ACGTACGTACGT{cell:04}-1\n")).collect();
    let entries: Vec<(usize, usize)> =
        (1..=12).flat_map(|cell| (1..=5).map(move |gene| (gene * 4 - cell % 4, cell))).collect();
    let mut matrix = format!("%%MatrixMarket matrix coordinate {field} general\n%made here\n20 12 60\n");
    for (gene, cell) in entries {
        matrix.push_str(&format!("{gene} {cell} {}\n", 1 + gene * cell % 7));
    }
    let files = [("barcodes.tsv", barcodes), ("features.tsv", features), ("matrix.mtx", matrix)];
    files.map(|(name, text)| (name.to_owned(), text.into_bytes())).into()
}

fn kinds() -> Vec<Kind> {
    let folder = TempDir::new().unwrap();
    let h5ad = folder.path().join("cells.h5ad");
    write_h5ad(&SyntheticConfig::with_size(60, 500), &h5ad).unwrap();
    let mut kinds = vec![
        binary_kind("synthetic.h5ad", fs::read(&h5ad).unwrap()),
        binary_kind("tenx.h5", tenx()),
        Kind { name: "mtx".into(), whole: market("integer"), damage: damage_a_text, read: read_cells },
        Kind { name: "mtx, real".into(), whole: market("real"), damage: damage_a_text, read: read_cells },
    ];
    for stored in ["groups/compact", "groups/dense", "groups/old", "storage/links-new", "storage/links-old"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(stored).with_extension("h5ad");
        kinds.push(binary_kind(&format!("{stored}.h5ad"), fs::read(path).unwrap()));
    }
    for real in [
        "scanpy10x_v2/filtered_gene_bc_matrices_h5.h5",
        "scanpy10x_v3/filtered_feature_bc_matrix.h5",
        "anndata_v0.7.8/adata.h5ad",
        "variants/csr_zstd.h5ad",
        "variants/csc_gzip.h5ad",
    ] {
        let data = std::env::var_os("CELLPATCH_DATA").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
            PathBuf::from,
        );
        if let Ok(bytes) = fs::read(data.join("formats").join(real)) {
            kinds.push(binary_kind(real, bytes));
        }
    }
    let set = folder.path().join("set");
    let mut vocabulary = GeneVocabulary::new(1000);
    let genes = open_cells(&h5ad, &MatrixChoice::default()).unwrap().genes().unwrap();
    vocabulary.extend(&genes, &h5ad).unwrap();
    let options = ShardOptions {
        quality: QualityFilter::OFF,
        obs_columns: vec!["donor_id".into()],
        row_group_cells: 16,
        vocabulary: Some(vocabulary),
        extend_vocabulary: false,
        part: Some(ShardPart { index: 1, count: 1 }),
        ..ShardOptions::default()
    };
    write_shards(&[h5ad], &set, &options, &mut |_| {}).unwrap();
    let files = fs::read_dir(&set).unwrap().map(|entry| entry.unwrap());
    let whole =
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect();
    kinds.push(Kind { name: "shards".into(), whole, damage: damage_shards, read: read_shards });
    kinds
}

/// Peak memory of this process so far, in KiB; nothing where the system does not say.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Damages every kind of input with each of the seeds and reads what comes out.
fn read_damaged(seeds: Range<u64>) {
    // To look at a failure alone: CELLPATCH_DAMAGE=tenx.h5:17
    let only = std::env::var("CELLPATCH_DAMAGE").unwrap_or_default();
    let (only, seed) = only.rsplit_once(':').unwrap_or_default();
    let seeds = seed.parse().map_or(seeds, |seed| seed..seed + 1);
    let n_each = seeds.end - seeds.start;
    let mut kinds = kinds();
    kinds.retain(|kind| kind.name.contains(only));
    kinds.iter().for_each(|kind| {
        let folder = TempDir::new().unwrap();
        write(&kind.whole, folder.path());
        (kind.read)(folder.path()).unwrap_or_else(|error| panic!("{} is whole: {error}", kind.name));
    });
    let (report, reports) = mpsc::channel();
    let n_kinds = kinds.len() as u64;
    let worker = std::thread::spawn(move || {
        for kind in kinds {
            let (mut n_read, mut slowest, mut total) = (0, Duration::ZERO, Duration::ZERO);
            for seed in seeds.clone() {
                let mut files = kind.whole.clone();
                (kind.damage)(&mut files, seed);
                let folder = TempDir::new().unwrap();
                write(&files, folder.path());
                let start = Instant::now();
                let outcome = catch_unwind(AssertUnwindSafe(|| (kind.read)(folder.path())));
                let took = start.elapsed();
                if took > SLOW || peak_memory() > Some(MOST_MEMORY) {
                    println!(
                        "{} with damage {seed}: {took:.1?}, peak so far {:?} KiB",
                        kind.name,
                        peak_memory()
                    );
                }
                (slowest, total) = (slowest.max(took), total + took);
                n_read += u64::from(matches!(outcome, Ok(Ok(()))));
                report.send((kind.name.clone(), seed, outcome.is_ok())).unwrap();
            }
            let peak = peak_memory().unwrap_or_default() >> 10;
            println!(
                "{:44} {n_each} damaged, {n_read} read, {total:.1?} in all, slowest {slowest:.1?}, peak {peak} MB",
                kind.name
            );
        }
    });
    let (mut n_damaged, mut panicked) = (0, Vec::new());
    loop {
        match reports.recv_timeout(HANGS) {
            Ok((name, seed, fine)) => {
                n_damaged += 1;
                if !fine {
                    panicked.push(format!("{name} with damage {seed}"));
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the reader hangs after {n_damaged} inputs"),
        }
    }
    worker.join().unwrap();
    assert!(panicked.is_empty(), "panics: {panicked:?}");
    assert_eq!(n_damaged, n_kinds * n_each);
    if let Some(peak) = peak_memory() {
        assert!(peak < MOST_MEMORY, "reading took {peak} KiB");
    }
}

fn write(files: &Files, folder: &Path) {
    files.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
}

#[test]
fn damaged_inputs_are_read_or_refused() {
    read_damaged(0..20);
}

#[test]
#[ignore = "takes minutes: 10,000 inputs and more"]
fn ten_thousand_damaged_inputs_are_read_or_refused() {
    read_damaged(0..700);
}
