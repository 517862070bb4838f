//! A GPU: pretraining and inference against PyTorch on the same card in the same call, and against the card's own limits.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cellpatch_model::Precision;
use clap::Args;
use serde_json::Value;

use crate::Result;
use crate::arithmetic::Arithmetic;
use crate::cells::{self, CellSize};
use crate::compare::eprint_progress;
use crate::device::Device;
use crate::document::write_section;
use crate::loading;
use crate::process::Process;
use crate::turns::median;

#[derive(Args)]
pub(crate) struct Options {
    /// A Python with torch for the card, numpy and scipy.
    #[arg(long)]
    python: PathBuf,
    /// cuda; cpu tries the benchmark where there is no card.
    #[arg(long, default_value = "cuda")]
    device: Device,
    /// Turns that each side takes.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Cells of a pretraining batch.
    #[arg(long, default_value_t = 512)]
    batch: usize,
    /// Where the peers are, if not where they were when this was built.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/pytorch"))]
    peers: PathBuf,
    /// Where to write the tables; standard output otherwise.
    #[arg(long)]
    output: Option<PathBuf>,
}

const OURS: &str = "CellPatch in Rust";
const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Batches that are loaded, beside those that are made up.
const FED_BATCHES: usize = 40;

/// One way PyTorch does a task.
struct Peer {
    name: &'static str,
    arguments: &'static [&'static str],
}

/// Of attention by score functions (`flex_attention`) there is none: it has no dropout.
const TRAINING: [Peer; 5] = [
    Peer {
        name: "bf16, compiled, CUDA graphs",
        arguments: &["--precision", "bf16", "--compile", "--graphs"],
    },
    Peer { name: "bf16, compiled", arguments: &["--precision", "bf16", "--compile"] },
    Peer { name: "bf16", arguments: &["--precision", "bf16"] },
    Peer { name: "tf32, compiled", arguments: &["--precision", "tf32", "--compile"] },
    Peer { name: "f32", arguments: &["--precision", "f32"] },
];
const INFERENCE: [Peer; 3] = [
    Peer {
        name: "bf16, compiled, CUDA graphs",
        arguments: &["--precision", "bf16", "--compile", "--graphs"],
    },
    Peer { name: "bf16, compiled", arguments: &["--precision", "bf16", "--compile"] },
    Peer { name: "f32", arguments: &["--precision", "f32"] },
];

/// One side's result.
struct Measured {
    name: String,
    seconds: f64,
    peak_bytes: f64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let limits = limits(options)?;
    let card = limits["name"].as_str().unwrap_or("an unknown card");
    let mut text = format!(
        "Written by `cargo xtask bench card --python PATH --output docs/benchmarks.md`, on {card}. Both sides run as processes of their \
         own, do each task once to warm up and then take turns, {} each; a row is the median. PyTorch masks padding, takes cells of \
         similar length together, and uses scaled_dot_product_attention and fused Adam; memory is what either side took from the card.\n\n\
         | task | side | cells/s | ours in f32 is faster by | in bf16 | memory, MB |\n|---|---|---:|---:|---:|---:|\n",
        options.turns
    );
    let batches = cells::ragged(4 * options.batch);
    let pretraining = measure(options, "pretrain", &batches, options.batch, 0.1, &TRAINING)?;
    let name = format!("pretrain, ragged, batches of {}, dropout 0.1", options.batch);
    write_rows(&mut text, &name, batches.len(), &pretraining)?;
    for n_genes in [500, 1000, 2000, 3000, 10_000] {
        let batch = (options.batch * 1000 / n_genes).max(1);
        let cells = cells::equal(4 * batch, n_genes, 1);
        let measured = measure(options, "infer", &cells, batch, 0.0, &INFERENCE)?;
        write_rows(&mut text, &format!("infer {n_genes} genes"), cells.len(), &measured)?;
    }
    text.push('\n');
    let work = Arithmetic::of_steps(&batches, batches.len().div_ceil(options.batch));
    write_account(&mut text, &limits, work, pretraining.first().map_or(f64::NAN, |ours| ours.seconds))?;
    eprint_progress("loading");
    let feeding = loading::measure(options.device, FED_BATCHES * options.batch, options.batch)?;
    write!(
        text,
        "\nIts loader, on as many cells as have {FED_BATCHES} batches:\n\n{}",
        feeding.table(options.device)?
    )?;
    match &options.output {
        Some(path) => write_section(path, "On a card", &text),
        None => {
            println!("## On a card\n\n{text}");
            Ok(())
        }
    }
}

fn limits(options: &Options) -> Result<Value> {
    eprint_progress("the card's limits");
    let output = Command::new(&options.python)
        .arg(options.peers.join("limits.py"))
        .args(["--device", &options.device.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn measure(
    options: &Options,
    task: &str,
    cells: &[CellSize],
    batch: usize,
    dropout: f64,
    peers: &[Peer],
) -> Result<Vec<Measured>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("cells.txt");
    cells::write(cells, &file)?;
    let with_task = |mut command: Command, file: &Path| -> Command {
        command.args(["--task", task, "--batch", &batch.to_string(), "--dropout", &dropout.to_string()]);
        command.args(["--device", &options.device.to_string(), "--cells"]).arg(file);
        command
    };
    let mut sides = Vec::new();
    // The CPU, where the benchmark is tried, has no such kernels.
    let precisions = if options.device == Device::Cpu { &PRECISIONS[..1] } else { &PRECISIONS[..] };
    for precision in precisions {
        let mut ours = Command::new(std::env::current_exe()?);
        ours.args(["subject", "--precision", precision.name()]);
        sides.push((format!("{OURS}, {precision}"), with_task(ours, &file)));
    }
    for peer in peers {
        let mut command = Command::new(&options.python);
        command.arg(options.peers.join("peer.py")).args(["--implementation", "best"]).args(peer.arguments);
        sides.push((format!("PyTorch, {}", peer.name), with_task(command, &file)));
    }
    let mut processes = Vec::new();
    for (name, mut command) in sides {
        eprint_progress(&format!("{task}, {} cells: {name}", cells.len()));
        let mut process = Process::start(&mut command)?;
        match process.seconds() {
            Ok(_) => processes.push((name, process, Vec::new())),
            // What PyTorch cannot do on this card leaves the rest to be compared.
            Err(error) if !name.starts_with(OURS) => {
                eprint_progress(&format!("{name} does not run: {error}"))
            }
            Err(error) => return Err(error),
        }
    }
    for _ in 0..options.turns {
        for (_, process, seconds) in &mut processes {
            seconds.push(process.seconds()?);
        }
    }
    processes
        .into_iter()
        .map(|(name, process, seconds)| {
            Ok(Measured { name, seconds: median(seconds), peak_bytes: process.peak_bytes()? })
        })
        .collect()
}

fn write_rows(text: &mut String, name: &str, n_cells: usize, measured: &[Measured]) -> Result<()> {
    let (ours, theirs): (Vec<_>, Vec<_>) = measured.iter().partition(|side| side.name.starts_with(OURS));
    for (index, side) in ours.iter().chain(&theirs).enumerate() {
        let faster = |precision: usize| match ours.get(precision) {
            Some(ours) if !side.name.starts_with(OURS) => format!("{:.1}", side.seconds / ours.seconds),
            _ => String::new(),
        };
        let (f32, bf16) = (faster(0), faster(1));
        writeln!(
            text,
            "| {} | {} | {:.0} | {f32} | {bf16} | {:.0} |",
            if index == 0 { name } else { "" },
            side.name,
            n_cells as f64 / side.seconds,
            side.peak_bytes / 1e6,
        )?;
    }
    Ok(())
}

/// What the step would take if one limit of the card were all that held it.
fn write_account(text: &mut String, limits: &Value, work: Arithmetic, seconds: f64) -> Result<()> {
    writeln!(
        text,
        "The pretraining steps above, four, must compute this much, counted on paper; the card's limits are those PyTorch reaches \
         (benches/peers/pytorch/limits.py).\n\n| limit | a second | the steps' | ms at the limit | of our time |\n|---|---:|---:|---:|---:|"
    )?;
    for (name, limit, amount) in [
        ("operations, f32", "f32", work.operations),
        ("operations, tf32", "tf32", work.operations),
        ("operations, bf16", "bf16", work.operations),
        ("exponentials", "exponentials", work.exponentials),
        ("bytes", "bytes", work.bytes),
    ] {
        let limit = limits[limit].as_f64().ok_or("a limit that was not measured")?;
        let at_limit = amount / limit;
        writeln!(
            text,
            "| {name} | {:.3e} | {amount:.3e} | {:.2} | {:.0} % |",
            limit,
            at_limit * 1e3,
            100.0 * at_limit / seconds
        )?;
    }
    Ok(())
}
