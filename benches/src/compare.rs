//! Every task against PyTorch in the same run.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::cells::{self, CellSize};
use crate::document::write_section;
use crate::process::Process;
use crate::turns::median;
use crate::{Result, account};

#[derive(Args)]
pub(crate) struct Options {
    /// A Python with torch and numpy.
    #[arg(long)]
    python: PathBuf,
    /// Turns that each side takes.
    #[arg(long, default_value_t = 7)]
    turns: usize,
    /// Only tasks whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Where to write the document; standard output otherwise.
    #[arg(long)]
    output: Option<PathBuf>,
}

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/pytorch/peer.py");
const N_THREADS: &str = "2";

/// One row of the table.
struct Comparison {
    name: String,
    task: &'static str,
    cells: Vec<CellSize>,
    batch: usize,
    dropout: f64,
    /// PyTorch's implementations, the best first.
    peers: &'static [&'static str],
}

fn comparisons() -> Vec<Comparison> {
    let mut rows = Vec::new();
    for dropout in [0.1, 0.0] {
        let mut pretrain = |name: &str, cells, batch| {
            let name = format!("pretrain {name}, dropout {dropout}");
            let peers: &[&str] = if dropout > 0.0 { &["best", "authors"] } else { &["best"] };
            rows.push(Comparison { name, task: "pretrain", cells, batch, dropout, peers });
        };
        pretrain("32 x (1,000, 500)", cells::equal(32, 1000, 500), 32);
        pretrain("8 x (3,000, 1,000)", cells::equal(8, 3000, 1000), 8);
        pretrain("ragged, batches of 32", cells::ragged(128), 32);
    }
    for (n_genes, n_cells) in [(500, 1000), (1000, 1000), (2000, 1000), (3000, 1000), (10_000, 250)] {
        rows.push(Comparison {
            name: format!("infer {n_genes} genes"),
            task: "infer",
            cells: cells::equal(n_cells, n_genes, 1),
            batch: 125,
            dropout: 0.0,
            peers: &["best", "table", "authors"],
        });
    }
    for dropout in [0.1, 0.0] {
        rows.push(Comparison {
            name: format!("annotate, batches of 256, dropout {dropout}"),
            task: "annotate",
            cells: cells::annotated(512),
            batch: 256,
            dropout,
            peers: if dropout > 0.0 { &["best", "authors"] } else { &["best"] },
        });
    }
    for (task, what, n_spots, peers) in [
        ("stagate", "STAGATE", 3592, &["best", "authors"][..]),
        ("cellpatch-stagate", "CellPatch+STAGATE", 3592, &["best"]),
        ("cellpatch-stagate", "CellPatch+STAGATE", 449, &["best", "authors"]),
    ] {
        rows.push(Comparison {
            name: format!("epoch of {what}, {n_spots} spots x 3,000 genes"),
            task,
            cells: cells::equal(n_spots, 3000, 1),
            batch: n_spots,
            dropout: 0.0,
            peers,
        });
    }
    rows
}

/// One side's result.
struct Measured {
    name: &'static str,
    /// Seconds of each turn.
    seconds: Vec<f64>,
    peak_bytes: f64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut rows = comparisons();
    rows.retain(|row| options.only.as_ref().is_none_or(|only| row.name.contains(only.as_str())));
    let mut table = String::from(
        "| task | side | cells/s | slowest to fastest turn | ours is faster by | peak memory, MB |\n\
         |---|---|---:|---:|---:|---:|\n",
    );
    for row in &rows {
        eprint_progress(&row.name);
        let measured = measure(row, options)?;
        write_rows(&mut table, row, &measured)?;
    }
    for (heading, text) in
        [("Speed", speed(&table, options)?), ("An account of the step", account_of_step()?)]
    {
        match &options.output {
            Some(path) => write_section(path, heading, &text)?,
            None => println!("## {heading}\n\n{text}"),
        }
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "so that whoever waits knows for what")]
pub(crate) fn eprint_progress(name: &str) {
    eprintln!("{name}");
}

/// Starts all sides, lets each do the task once to warm up, and then has them take turns.
fn measure(row: &Comparison, options: &Options) -> Result<Vec<Measured>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("cells.txt");
    cells::write(&row.cells, &file)?;
    let mut sides = vec![("ours", Process::start(&mut with_task(ours()?, row, &file))?)];
    for peer in row.peers {
        let mut command = Command::new(&options.python);
        command.args([PEERS, "--threads", N_THREADS, "--implementation", peer]);
        sides.push((peer, Process::start(&mut with_task(command, row, &file))?));
    }
    for (_, side) in &mut sides {
        side.seconds()?;
    }
    let mut seconds = vec![Vec::new(); sides.len()];
    for _ in 0..options.turns {
        for ((_, side), seconds) in sides.iter_mut().zip(&mut seconds) {
            seconds.push(side.seconds()?);
        }
    }
    sides
        .into_iter()
        .zip(seconds)
        .map(|((name, side), seconds)| Ok(Measured { name, seconds, peak_bytes: side.peak_bytes()? }))
        .collect()
}

fn ours() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("subject").env("RAYON_NUM_THREADS", N_THREADS);
    Ok(command)
}

fn with_task(mut command: Command, row: &Comparison, cells: &Path) -> Command {
    command.args(["--task", row.task, "--batch", &row.batch.to_string()]);
    command.args(["--dropout", &row.dropout.to_string(), "--cells"]).arg(cells);
    command
}

fn write_rows(table: &mut String, row: &Comparison, measured: &[Measured]) -> Result<()> {
    let n_cells = row.cells.len() as f64;
    let ours = median(measured[0].seconds.clone());
    for (index, side) in measured.iter().enumerate() {
        let seconds = median(side.seconds.clone());
        let slowest = side.seconds.iter().copied().fold(0.0, f64::max);
        let fastest = side.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let faster = if index == 0 { String::new() } else { format!("{:.1}", seconds / ours) };
        writeln!(
            table,
            "| {} | {} | {:.0} | {:.0} to {:.0} | {faster} | {:.0} |",
            if index == 0 { row.name.as_str() } else { "" },
            if index == 0 { "CellPatch in Rust".into() } else { format!("PyTorch, {}", side.name) },
            n_cells / seconds,
            n_cells / slowest,
            n_cells / fastest,
            side.peak_bytes / 1e6,
        )?;
    }
    Ok(())
}

fn speed(table: &str, options: &Options) -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, name)| name);
    let version =
        Command::new(&options.python).args(["-c", "import torch; print(torch.__version__)"]).output()?;
    Ok(format!(
        "Written by `cargo xtask bench compare --python PATH --output docs/benchmarks.md`, on {}, {N_THREADS} threads a side, \
         against PyTorch {}.\n\n\
         Both sides run as processes of their own, do each task once to warm up and then take turns, {} each; a row is the \
         median. A pretraining or annotation step is forward, backward and Adam over all weights (the gene table has \
         70,000 x 32). `best` is PyTorch as a good engineer would use it: scaled_dot_product_attention, padding masked, batches of \
         similar length, fused Adam; `table` looks keys and values up by gene; `authors` pads to the longest cell of \
         the batch and spells attention out (benches/peers/pytorch). Ours takes cells in the order they come. Ragged cells \
         have log-normal numbers of genes around a median of 1,500 non-zero ones. An epoch of a spatial model is forward, \
         backward, clipping and Adam over a hexagonal slice, where `best` aggregates by a sparse product and recomputes the patches of \
         64 spots at a time in the backward pass, and `authors` keeps all, which 3,592 spots leave no room for; cells are spots.\n\n{table}",
        cpu.map_or("an unknown processor", str::trim),
        String::from_utf8_lossy(&version.stdout).trim(),
        options.turns,
    ))
}

fn account_of_step() -> Result<String> {
    Ok(format!(
        "32 cells of 1,000 genes and 500 targets, dropout 0.1, each part alone. Operations are those of matrix products, a \
         multiply-add counted as two; exponentials, dropout, norms and GELU take time but count nothing. Bytes are those of \
         inputs and outputs, read or written once.\n\n{}",
        account::table()?,
    ))
}
