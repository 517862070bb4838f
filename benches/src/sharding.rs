//! Sharding: against scanpy's pipeline on the same file, and its memory from few cells to many.

use std::fmt::Write;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
use cellpatch_data::{ShardOptions, write_shards};
use clap::Args;

use crate::Result;
use crate::compare::median;
use crate::document::write_section;
use crate::process::Process;

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/scanpy/shard.py");
const N_THREADS: &str = "2";

#[derive(Args)]
pub(crate) struct Options {
    /// A Python with scanpy.
    #[arg(long)]
    python: PathBuf,
    /// Turns that each side takes on the file that both shard.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Cells of the file that both shard; it has 30,000 genes, about 1,500 of them seen in a cell.
    #[arg(long, default_value_t = 20_000)]
    cells: usize,
    /// Cells of the files, of 2,000 genes, on which memory is compared.
    #[arg(long, value_delimiter = ',', default_values_t = [20_000, 100_000, 500_000])]
    memory_cells: Vec<usize>,
    /// Where to write the section; standard output otherwise.
    #[arg(long)]
    output: Option<PathBuf>,
}

/// Synthetic cells, made by a process of its own so that their memory is not counted.
#[derive(Args)]
pub(crate) struct Cells {
    #[arg(long)]
    cells: usize,
    #[arg(long)]
    genes: usize,
    #[arg(long)]
    out: PathBuf,
}

/// Sharding one file once for each line of standard input.
#[derive(Args)]
pub(crate) struct Subject {
    #[arg(long)]
    cells: PathBuf,
    #[arg(long)]
    out: PathBuf,
    /// MiB of cells held.
    #[arg(long, default_value_t = 256)]
    max_memory: usize,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut text = against_scanpy(options, folder.path())?;
    text.push_str(&memory(options, folder.path())?);
    match &options.output {
        Some(path) => write_section(path, "Sharding", &text)?,
        None => println!("## Sharding\n\n{text}"),
    }
    Ok(())
}

pub(crate) fn write_cells(options: &Cells) -> Result<()> {
    let mut config = SyntheticConfig::with_size(options.cells, options.genes);
    if options.genes > 10_000 {
        // Whole transcriptomes get libraries of deep sequencing; these are of usual 10x experiments.
        config.median_library_size /= LIBRARY_RATIO;
    }
    let summary = write_h5ad(&config, &options.out)?;
    println!("{}", summary.median_genes_per_cell);
    Ok(())
}

/// Leaves a median of about 1,500 genes of 30,000 in a cell.
const LIBRARY_RATIO: f64 = 4.0;

pub(crate) fn shard(options: &Subject) -> Result<()> {
    let shard_options = ShardOptions { max_memory: options.max_memory << 20, ..ShardOptions::default() };
    for (turn, line) in std::io::stdin().lock().lines().enumerate() {
        line?;
        let out = options.out.join(turn.to_string());
        let start = Instant::now();
        write_shards(std::slice::from_ref(&options.cells), &out, &shard_options, &mut |_| {})?;
        println!("{{\"seconds\": {}}}", start.elapsed().as_secs_f64());
        std::fs::remove_dir_all(out)?;
    }
    println!("{{\"peak_bytes\": {}}}", peak_bytes()?);
    Ok(())
}

/// The most memory this program had: unlike `ru_maxrss`, without that of the process that started it.
fn peak_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Makes a file of cells and says how many genes are seen in a cell, at the median.
fn make(folder: &Path, n_cells: usize, n_genes: usize) -> Result<(PathBuf, String)> {
    let path = folder.join(format!("cells-{n_cells}-{n_genes}.h5ad"));
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["synthetic-cells", "--cells", &n_cells.to_string(), "--genes", &n_genes.to_string()]);
    let made = command.arg("--out").arg(&path).output()?;
    if !made.status.success() {
        return Err(format!("no cells: {}", String::from_utf8_lossy(&made.stderr)).into());
    }
    Ok((path, String::from_utf8_lossy(&made.stdout).trim().to_owned()))
}

fn with_paths(mut command: Command, cells: &Path, folder: &Path) -> Result<Process> {
    command.arg("--cells").arg(cells).arg("--out").arg(folder);
    Process::start(&mut command)
}

fn ours() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("shard-subject").env("RAYON_NUM_THREADS", N_THREADS);
    Ok(command)
}

fn against_scanpy(options: &Options, folder: &Path) -> Result<String> {
    let (cells, n_seen) = make(folder, options.cells, 30_000)?;
    let mut scanpy = Command::new(&options.python);
    scanpy.arg(PEER).env("OMP_NUM_THREADS", N_THREADS).env("NUMBA_NUM_THREADS", N_THREADS);
    let mut sides = [with_paths(ours()?, &cells, folder)?, with_paths(scanpy, &cells, folder)?];
    for side in &mut sides {
        side.seconds()?;
    }
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..options.turns {
        for (side, seconds) in sides.iter_mut().zip(&mut seconds) {
            seconds.push(side.seconds()?);
        }
    }
    let [ours, scanpy] = seconds.map(median);
    let [our_peak, scanpy_peak] = sides.map(Process::peak_bytes);
    let (our_peak, scanpy_peak) = (our_peak?, scanpy_peak?);
    std::fs::remove_file(&cells)?;
    Ok(format!(
        "Written by `cargo xtask bench sharding --python PATH --output docs/benchmarks.md`: {} synthetic cells of 30,000 genes, \
         of which a cell has a median of {n_seen}, gzipped as AnnData does. Scanpy reads, filters cells and genes, normalises, \
         takes logarithms and writes without compression; ours reads, filters, permutes and writes zstd. Medians of {} turns.\n\n\
         | | seconds | peak memory, MB |\n|---|---:|---:|\n\
         | `shard`, 256 MiB, {N_THREADS} threads | {ours:.1} | {:.0} |\n\
         | scanpy | {scanpy:.1} | {:.0} |\n\
         | scanpy to ours | {:.1} | {:.1} |\n\n",
        options.cells,
        options.turns,
        our_peak / 1e6,
        scanpy_peak / 1e6,
        scanpy / ours,
        scanpy_peak / our_peak,
    ))
}

fn memory(options: &Options, folder: &Path) -> Result<String> {
    let mut table = String::from(
        "Peak memory of `shard`, MB, on cells of 2,000 genes:\n\n\
         | cells | `--max-memory 64M` | `--max-memory 256M` |\n|---:|---:|---:|\n",
    );
    for &n_cells in &options.memory_cells {
        let (cells, _) = make(folder, n_cells, 2_000)?;
        let peak = |max_memory: &str| -> Result<f64> {
            let mut command = ours()?;
            command.args(["--max-memory", max_memory]);
            let mut process = with_paths(command, &cells, folder)?;
            process.seconds()?;
            Ok(process.peak_bytes()? / 1e6)
        };
        writeln!(table, "| {n_cells} | {:.0} | {:.0} |", peak("64")?, peak("256")?)?;
        std::fs::remove_file(&cells)?;
    }
    Ok(table)
}
