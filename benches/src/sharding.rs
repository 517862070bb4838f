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
use crate::document::write_section;
use crate::process::{Process, own_peak_bytes, processor_seconds};
use crate::turns::{Side, take_turns};

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/scanpy/shard.py");
const N_THREADS: &str = "2";
/// Of a whole transcriptome.
const N_GENES: usize = 30_000;

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
    /// Cells of the files, as those that both shard, on which memory is compared.
    #[arg(long, value_delimiter = ',', default_values_t = [20_000, 100_000, 500_000])]
    memory_cells: Vec<usize>,
    /// Where synthetic files are left for the next time; half a million cells take minutes to make.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// A folder with `.h5ad` files that both shard, one after the other.
    #[arg(long)]
    real: Option<PathBuf>,
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
    /// Files that become a set each.
    #[arg(long)]
    cells: Vec<PathBuf>,
    #[arg(long)]
    out: PathBuf,
    /// MiB of cells held.
    #[arg(long, default_value_t = 256)]
    max_memory: usize,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut text = format!(
        "Written by `cargo xtask bench sharding --python PATH --output docs/benchmarks.md`. Scanpy reads, filters cells and \
         genes, normalises, takes logarithms and writes, without compression (AnnData's default) or by gzip (as CELLxGENE has \
         files); ours reads, filters, permutes, writes zstd, takes checksums of input and output, and waits for the disk, which \
         scanpy does not. Both read the same gzipped files. Medians of {} turns, taken in turn; processor seconds are those of \
         all threads, and tell where other work keeps the machine busy.\n\n",
        options.turns
    );
    if let Some(keep) = &options.keep {
        std::fs::create_dir_all(keep)?;
    }
    text.push_str(&synthetic(options, folder.path())?);
    if let Some(real) = &options.real {
        text.push_str(&real_files(options, real, folder.path())?);
    }
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
const LIBRARY_RATIO: f64 = 2.5;

pub(crate) fn shard(options: &Subject) -> Result<()> {
    let shard_options = ShardOptions { max_memory: options.max_memory << 20, ..ShardOptions::default() };
    // Removed when the clock has stopped.
    let out = options.out.join("shards");
    for line in std::io::stdin().lock().lines() {
        line?;
        let (start, before, mut n_bytes) = (Instant::now(), processor_seconds()?, 0);
        for (index, cells) in options.cells.iter().enumerate() {
            let out = out.join(index.to_string());
            let set = write_shards(std::slice::from_ref(cells), &out, &shard_options, &mut |_| {})?;
            n_bytes += set.manifest().files.iter().map(|file| file.bytes).sum::<u64>();
        }
        let (seconds, busy) = (start.elapsed().as_secs_f64(), processor_seconds()? - before);
        std::fs::remove_dir_all(&out)?;
        println!("{{\"seconds\": {seconds}, \"cpu_seconds\": {busy}, \"bytes\": {n_bytes}}}");
    }
    println!("{{\"peak_bytes\": {}}}", own_peak_bytes()?);
    Ok(())
}

/// Makes a file of cells, if it is not there, and says how many genes are seen in a cell, at the median.
pub(crate) fn make(folder: &Path, n_cells: usize, n_genes: usize) -> Result<(PathBuf, String)> {
    let path = folder.join(format!("cells-{n_cells}-{n_genes}.h5ad"));
    let note = path.with_extension("txt");
    if path.is_file() && note.is_file() {
        return Ok((path, std::fs::read_to_string(note)?));
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["synthetic-cells", "--cells", &n_cells.to_string(), "--genes", &n_genes.to_string()]);
    let made = command.arg("--out").arg(&path).output()?;
    if !made.status.success() {
        return Err(format!("no cells: {}", String::from_utf8_lossy(&made.stderr)).into());
    }
    let n_seen = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    std::fs::write(note, &n_seen)?;
    Ok((path, n_seen))
}

fn with_paths(mut command: Command, cells: &[PathBuf], folder: &Path) -> Result<Process> {
    for cells in cells {
        command.arg("--cells").arg(cells);
    }
    command.arg("--out").arg(folder);
    Process::start(&mut command)
}

fn ours() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("shard-subject").env("RAYON_NUM_THREADS", N_THREADS);
    Ok(command)
}

fn synthetic(options: &Options, folder: &Path) -> Result<String> {
    let (cells, n_seen) = make(options.keep.as_deref().unwrap_or(folder), options.cells, N_GENES)?;
    let title = format!(
        "{} synthetic cells of 30,000 genes, a median of {n_seen} of them seen in a cell, a file of {:.0} MB:\n\n",
        options.cells,
        std::fs::metadata(&cells)?.len() as f64 / 1e6,
    );
    let table = against_scanpy(options, std::slice::from_ref(&cells), folder)?;
    std::fs::remove_file(&cells)?;
    Ok(title + &table)
}

fn real_files(options: &Options, real: &Path, folder: &Path) -> Result<String> {
    let entries = std::fs::read_dir(real)?.map(|entry| Ok(entry?.path()));
    let mut cells: Vec<PathBuf> = entries.collect::<std::io::Result<_>>()?;
    cells.retain(|path| path.extension().is_some_and(|extension| extension == "h5ad"));
    cells.sort();
    let sizes: u64 =
        cells.iter().map(|path| Ok(std::fs::metadata(path)?.len())).sum::<std::io::Result<u64>>()?;
    let title = format!(
        "{} small files of CELLxGENE one after the other, {:.0} MB together:\n\n",
        cells.len(),
        sizes as f64 / 1e6
    );
    Ok(title + &against_scanpy(options, &cells, folder)?)
}

fn against_scanpy(options: &Options, cells: &[PathBuf], folder: &Path) -> Result<String> {
    let scanpy = |compression: &[&str]| {
        let mut scanpy = Command::new(&options.python);
        scanpy
            .arg(PEER)
            .args(compression)
            .env("OMP_NUM_THREADS", N_THREADS)
            .env("NUMBA_NUM_THREADS", N_THREADS);
        scanpy
    };
    let side = |name, command| Ok(Side::new(name, with_paths(command, cells, folder)?));
    let sides: Result<Vec<Side>> = [
        side("`shard`, 256 MiB, 2 threads", ours()?),
        side("scanpy, no compression", scanpy(&[])),
        side("scanpy, gzip", scanpy(&["--compression", "gzip"])),
    ]
    .into_iter()
    .collect();
    let mut table = String::from(
        "| | seconds | to ours | processor seconds | to ours | peak memory, MB | to ours | written, MB |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let mut of_ours: Option<[f64; 3]> = None;
    for side in take_turns(sides?, options.turns)? {
        let [seconds, busy, peak] = [side.median("seconds")?, side.median("cpu_seconds")?, side.peak_bytes];
        let ours = *of_ours.get_or_insert([seconds, busy, peak]);
        let ratio = |value: f64, ours: f64| match side.name.starts_with("scanpy") {
            true => format!("{:.1}", value / ours),
            false => String::new(),
        };
        writeln!(
            table,
            "| {} | {seconds:.2} | {} | {busy:.2} | {} | {:.0} | {} | {:.1} |",
            side.name,
            ratio(seconds, ours[0]),
            ratio(busy, ours[1]),
            peak / 1e6,
            ratio(peak, ours[2]),
            side.median("bytes")? / 1e6
        )?;
    }
    table.push('\n');
    Ok(table)
}

fn memory(options: &Options, folder: &Path) -> Result<String> {
    let mut rows = String::new();
    let mut seen = String::new();
    for &n_cells in &options.memory_cells {
        let cells;
        (cells, seen) = make(options.keep.as_deref().unwrap_or(folder), n_cells, N_GENES)?;
        let peak = |max_memory: &str| -> Result<String> {
            let mut command = ours()?;
            command.args(["--max-memory", max_memory]);
            let mut process = with_paths(command, std::slice::from_ref(&cells), folder)?;
            let seconds = process.seconds()?;
            Ok(format!("{:.0} | {seconds:.1}", process.peak_bytes()? / 1e6))
        };
        writeln!(rows, "| {n_cells} | {} | {} | {} |", peak("32")?, peak("64")?, peak("256")?)?;
        if options.keep.is_none() {
            std::fs::remove_file(&cells)?;
        }
    }
    Ok(format!(
        "Peak memory of `shard`, MB, on cells of {N_GENES} genes (of which {seen} are seen in a cell), and its seconds:\n\n\
         | cells | `--max-memory 32M` | seconds | `--max-memory 64M` | seconds | `--max-memory 256M` | seconds |\n\
         |---:|---:|---:|---:|---:|---:|---:|\n{rows}"
    ))
}
