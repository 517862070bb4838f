//! The loader: batches that are decoded, masked and padded, against datasets in Python.

use std::fmt::Write;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use cellpatch_data::{Loader, LoaderOptions, RowSelection, ShardOptions, ShardSet, write_shards};
use clap::Args;

use crate::Result;
use crate::document::write_section;
use crate::loader_account;
use crate::process::{Process, own_peak_bytes, processor_seconds};
use crate::sharding::make;
use crate::turns::{Side, take_turns};

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/pytorch/loader.py");
const BATCH: usize = 32;
/// What widths are padded to a multiple of.
const PAD_TO: usize = 8;

#[derive(Args)]
pub(crate) struct Options {
    /// A Python with torch, scipy and h5py.
    #[arg(long)]
    python: PathBuf,
    /// Turns that each side takes.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Cells, of 30,000 genes, about 1,500 of them seen in a cell.
    #[arg(long, default_value_t = 20_000)]
    cells: usize,
    /// Where to write the section; standard output otherwise.
    #[arg(long)]
    output: Option<PathBuf>,
}

/// An epoch for each line of standard input.
#[derive(Args)]
pub(crate) struct Subject {
    #[arg(long)]
    shards: PathBuf,
    /// Whether cells are decoded and no more.
    #[arg(long)]
    unmasked: bool,
    #[arg(long)]
    length_buckets: bool,
}

pub(crate) fn load(subject: &Subject) -> Result<()> {
    let shards = Arc::new(ShardSet::open(&subject.shards)?);
    let options = LoaderOptions {
        batch_size: BATCH,
        threads: 2,
        length_buckets: subject.length_buckets,
        ..LoaderOptions::default()
    };
    let loader = Loader::new(Arc::clone(&shards), RowSelection::all(shards.n_cells() as u64), options)?;
    for (epoch, line) in (0..).zip(std::io::stdin().lock().lines()) {
        line?;
        let (start, before) = (Instant::now(), processor_seconds()?);
        let (mut n_cells, mut n_genes) = (0, 0);
        if subject.unmasked {
            for batch in loader.expressions(epoch, 0) {
                let batch = batch?;
                n_cells += batch.n_cells();
                n_genes += batch.genes.len();
            }
        } else {
            for batch in loader.epoch(epoch, 0) {
                let batch = batch?;
                n_cells += batch.n_cells();
                n_genes += batch.pad_inputs(PAD_TO).genes.len() + batch.pad_targets(PAD_TO).genes.len();
            }
        }
        let (seconds, busy) = (start.elapsed().as_secs_f64(), processor_seconds()? - before);
        println!(
            "{{\"seconds\": {seconds}, \"cpu_seconds\": {busy}, \"cells\": {n_cells}, \"genes\": {n_genes}}}"
        );
    }
    println!("{{\"peak_bytes\": {}}}", own_peak_bytes()?);
    Ok(())
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (cells, n_seen) = make(folder.path(), options.cells, 30_000)?;
    let shards = folder.path().join("shards");
    let set = write_shards(std::slice::from_ref(&cells), &shards, &ShardOptions::default(), &mut |_| {})?;
    let n_bytes: u64 = set.manifest().files.iter().map(|file| file.bytes).sum();
    let n_values = set.manifest().sources[0].n_values;
    let ours = |arguments: &[&str]| -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        Process::start(command.arg("loader-subject").arg("--shards").arg(&shards).args(arguments))
    };
    let peer = |way: &str, n_cells: usize| -> Result<Process> { python(options, &cells, way, n_cells) };
    let sides = vec![
        Side::new("loader, 2 threads", ours(&[])?),
        Side::new("loader, cells of similar length together", ours(&["--length-buckets"])?),
        Side::new("loader, without masks and padding", ours(&["--unmasked"])?),
        // A tenth of the cells: they take as long as all of ours.
        Side::new("a dataset the authors' way", peer("authors", options.cells / 10)?),
        Side::new("vectorised numpy, all in memory", peer("numpy", options.cells / 2)?),
    ];
    let mut text = format!(
        "Written by `cargo xtask bench loader --python PATH --output docs/benchmarks.md`: {} synthetic cells of 30,000 genes, a \
         median of {n_seen} of them seen in a cell; a shard set of {:.0} MB, {:.2} bytes a count. Batches of {BATCH}, masked as \
         in pretraining and padded. The peers have the matrix in memory, normalised before the clock starts; ours reads files, \
         and normalises as it goes. Medians of {} turns, taken in turn; processor seconds are those of all threads.\n\n\
         | | cells/s | ours is faster by | cells a processor second | ours is better by | peak memory, MB |\n\
         |---|---:|---:|---:|---:|---:|\n",
        options.cells,
        n_bytes as f64 / 1e6,
        n_bytes as f64 / n_values as f64,
        options.turns
    );
    let mut of_ours: Option<(f64, f64)> = None;
    for side in take_turns(sides, options.turns)? {
        let (rate, busy_rate) =
            (side.median_ratio("cells", "seconds")?, side.median_ratio("cells", "cpu_seconds")?);
        let (our_rate, our_busy_rate) = *of_ours.get_or_insert((rate, busy_rate));
        let ratio = |ours: f64, theirs: f64| match side.name.starts_with("loader") {
            true => String::new(),
            false => format!("{:.1}", ours / theirs),
        };
        writeln!(
            text,
            "| {} | {rate:.0} | {} | {busy_rate:.0} | {} | {:.0} |",
            side.name,
            ratio(our_rate, rate),
            ratio(our_busy_rate, busy_rate),
            side.peak_bytes / 1e6
        )?;
    }
    text.push('\n');
    text.push_str(&loader_account::table(&shards, BATCH, PAD_TO)?);
    match &options.output {
        Some(path) => write_section(path, "Loader", &text)?,
        None => println!("## Loader\n\n{text}"),
    }
    Ok(())
}

fn python(options: &Options, cells: &Path, way: &str, n_cells: usize) -> Result<Process> {
    let mut command = Command::new(&options.python);
    command.arg(PEER).arg("--cells").arg(cells).args(["--way", way, "--batch", &BATCH.to_string()]);
    Process::start(command.args(["--n-cells", &n_cells.to_string()]))
}
