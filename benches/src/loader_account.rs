//! Where the loader's time goes: the same cells through more and more of its stages, on one thread, by processor time.

use std::fmt::Write;
use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cellpatch_data::{Loader, LoaderOptions, RowSelection, ShardSet};
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::Result;
use crate::process::processor_seconds;
use crate::turns::median;

const RUNS: usize = 5;
/// What a run takes at least; short work is done several times.
const LEAST_SECONDS: f64 = 0.3;
/// Columns of lists, which are nearly all bytes: genes and counts.
const LISTS: std::ops::Range<usize> = 0..2;
/// Bytes of a decoded gene: its token and its count.
const GENE_BYTES: f64 = 6.0;

/// Processor seconds of an epoch, and what it moved.
struct Stage {
    name: &'static str,
    seconds: f64,
    /// Bytes that come out.
    bytes: f64,
}

/// A table of the stages.
///
/// - batch: cells of a batch
/// - `pad_to`: what widths are padded to a multiple of
pub(crate) fn table(shards: &Path, batch: usize, pad_to: usize) -> Result<String> {
    let set = Arc::new(ShardSet::open(shards)?);
    let n_cells = set.n_cells() as f64;
    let options = LoaderOptions { batch_size: batch, threads: 1, ..LoaderOptions::default() };
    let loader = Loader::new(Arc::clone(&set), RowSelection::all(set.n_cells() as u64), options)?;
    let files: Vec<_> = set.manifest().files.iter().map(|file| shards.join(&file.name)).collect();
    let read = timed(|| files.iter().map(|file| Ok(std::fs::read(file)?.len() as f64)).sum())?;
    let unpacked = timed(|| files.iter().map(|file| unpacked_bytes(file)).sum())?;
    let decoded = timed(|| {
        let genes = loader.expressions(1, 0).map(|batch| Ok(batch?.genes.len() as f64 * GENE_BYTES));
        genes.sum()
    })?;
    let masked = timed(|| {
        let bytes = |batch: cellpatch_data::Result<cellpatch_data::MaskedBatch>| {
            let batch = batch?;
            Ok((batch.input_genes.len() + batch.target_genes.len()) as f64 * 8.0)
        };
        loader.epoch(1, 0).map(bytes).sum()
    })?;
    let padded = timed(|| {
        let bytes = |batch: cellpatch_data::Result<cellpatch_data::MaskedBatch>| {
            let batch = batch?;
            let (inputs, targets) = (batch.pad_inputs(pad_to), batch.pad_targets(pad_to));
            Ok((black_box(inputs).genes.len() + black_box(targets).genes.len()) as f64 * 8.0)
        };
        loader.epoch(1, 0).map(bytes).sum()
    })?;
    let after = |(seconds, bytes): (f64, f64), before: (f64, f64)| (seconds - before.0, bytes);
    let stages = [
        ("read files that are in memory", read),
        ("undo zstd of genes and counts", after(unpacked, read)),
        ("unpack numbers, order cells, normalise", after(decoded, unpacked)),
        ("mask", after(masked, decoded)),
        ("pad", after(padded, masked)),
    ]
    .map(|(name, (seconds, bytes))| Stage { name, seconds, bytes });
    let (whole, copied) = (padded.0, copied_bytes_a_second());
    let mut text = format!(
        "On one thread, each stage as what an epoch takes longer with it, by processor time (medians of {RUNS}); bytes are those that \
         come out of it. For comparison, this thread copies {:.1} GB/s from memory to memory.\n\n\
         | stage | µs a cell | of all | bytes a cell | GB/s |\n|---|---:|---:|---:|---:|\n",
        copied / 1e9
    );
    for Stage { name, seconds, bytes } in stages {
        writeln!(
            text,
            "| {name} | {:.1} | {:.0} % | {:.0} | {:.2} |",
            seconds / n_cells * 1e6,
            100.0 * seconds / whole,
            bytes / n_cells,
            bytes / seconds / 1e9
        )?;
    }
    writeln!(text, "| all | {:.1} | | | |", whole / n_cells * 1e6)?;
    Ok(text)
}

/// Bytes of the pages of lists of a file without their compression.
fn unpacked_bytes(file: &Path) -> Result<f64> {
    let reader = SerializedFileReader::new(File::open(file)?)?;
    let mut n_bytes = 0.0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        for column in LISTS {
            let mut pages = group.get_column_page_reader(column)?;
            while let Some(page) = pages.get_next_page()? {
                n_bytes += page.buffer().len() as f64;
            }
        }
    }
    Ok(n_bytes)
}

/// Processor seconds, at the median of several runs after one to warm up, and what the work says.
fn timed(mut work: impl FnMut() -> Result<f64>) -> Result<(f64, f64)> {
    let (mut seconds, mut bytes) = (Vec::new(), work()?);
    for _ in 0..RUNS {
        let (before, mut n_times) = (processor_seconds()?, 0.0);
        // The clock ticks a hundred times a second.
        while processor_seconds()? - before < LEAST_SECONDS {
            bytes = work()?;
            n_times += 1.0;
        }
        seconds.push((processor_seconds()? - before) / n_times);
    }
    Ok((median(seconds), bytes))
}

/// Bytes that are read, and as many written.
fn copied_bytes_a_second() -> f64 {
    /// Larger than any cache.
    const N_BYTES: usize = 256 << 20;
    let (from, mut to) = (vec![1u8; N_BYTES], vec![0u8; N_BYTES]);
    let rates = (0..RUNS).map(|_| {
        let start = Instant::now();
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        N_BYTES as f64 / start.elapsed().as_secs_f64()
    });
    median(rates.collect())
}
