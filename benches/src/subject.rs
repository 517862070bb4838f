//! One task of ours on request: the counterpart of `peers/pytorch/peer.py`.

use std::io::BufRead;
use std::path::PathBuf;
use std::time::Instant;

use burn::backend::Flex;
use cellpatch_data::MaskedBatch;
use cellpatch_model::{CellPatch, GeneValues, Preset};
use clap::{Args, ValueEnum};

use crate::Result;
use crate::cells;
use crate::slices;
use crate::training::{Annotating, Pretraining};

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Task {
    Pretrain,
    Infer,
    Annotate,
    Stagate,
    CellpatchStagate,
}

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    task: Task,
    /// A file with a line "genes targets" for each cell.
    #[arg(long)]
    cells: PathBuf,
    #[arg(long)]
    batch: usize,
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let sizes = cells::read(&options.cells)?;
    // Of a slice, whose spots have the same genes.
    let (n_spots, n_genes) = (sizes.len(), sizes.first().map_or(0, |size| size.n_genes));
    let batches = || cells::batches(&sizes, options.batch);
    match options.task {
        Task::Pretrain => {
            let (batches, mut training) = (batches(), Pretraining::new(options.dropout)?);
            answer(|| batches.iter().for_each(|batch| training.step(batch.clone())))
        }
        Task::Annotate => {
            let mut annotating = Annotating::new(options.dropout);
            let inputs: Vec<_> = batches().iter().map(input).collect::<Result<_>>()?;
            answer(|| inputs.iter().for_each(|batch| annotating.step(batch)))
        }
        Task::Infer => {
            let model: CellPatch<Flex> = Preset::Paper.config().init(&Default::default());
            let inputs: Vec<_> = batches().iter().map(input).collect::<Result<_>>()?;
            answer(|| inputs.iter().for_each(|batch| drop(model.latent(model.patches(batch)))))
        }
        Task::Stagate => answer(slices::stagate(n_spots, n_genes)?),
        Task::CellpatchStagate => answer(slices::cellpatch_stagate(n_spots, n_genes, options.dropout)?),
    }
}

/// A batch's genes and values on the device.
pub(crate) fn input<B: burn::tensor::backend::Backend>(batch: &MaskedBatch) -> Result<GeneValues<B>> {
    let (genes, values): (Vec<_>, Vec<_>) = (0..batch.n_cells()).map(|cell| batch.input(cell)).unzip();
    Ok(GeneValues::pad(&genes, &values, &Default::default())?)
}

fn answer(mut task: impl FnMut()) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        task();
        println!("{{\"seconds\": {}}}", start.elapsed().as_secs_f64());
    }
    println!("{{\"peak_bytes\": {}}}", peak_bytes());
    Ok(())
}

/// The most memory this process ever had.
fn peak_bytes() -> i64 {
    // SAFETY: the kernel fills the structure, whose fields are all numbers.
    #[expect(unsafe_code, reason = "there is no safe interface to getrusage")]
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    usage.ru_maxrss * 1024
}
