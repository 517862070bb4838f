//! One task of ours on request: the counterpart of `peers/pytorch/peer.py`.

use std::io::BufRead;
use std::path::PathBuf;
use std::time::Instant;

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use cellpatch_data::MaskedBatch;
use cellpatch_model::{CellPatch, GeneValues, Precision, Preset, set_precision};
use cellpatch_spatial::SpatialBackend;
use clap::{Args, ValueEnum};

use crate::Result;
use crate::cells;
use crate::device::{Device, on_device};
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
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// How a card's kernels store what lies inside blocks.
    #[arg(long, default_value = "f32")]
    precision: Precision,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    on_device!(options.device, |B, device| run_on::<B>(options, &device))
}

fn run_on<B>(options: &Options, device: &B::Device) -> Result<()>
where
    B: SpatialBackend,
    Autodiff<B>: SpatialBackend<Device = B::Device>,
{
    set_precision::<Autodiff<B>>(options.precision, device)?;
    let sizes = cells::read(&options.cells)?;
    // Of a slice, whose spots have the same genes.
    let (n_spots, n_genes) = (sizes.len(), sizes.first().map_or(0, |size| size.n_genes));
    let batches = || cells::batches(&sizes, options.batch);
    let mut answer = Answer::<B> { device, choice: options.device };
    match options.task {
        Task::Pretrain => {
            let mut training = Pretraining::<B>::new(options.dropout, device)?;
            let preparation = training.preparation();
            let prepared: Vec<_> = batches().iter().map(|batch| preparation.prepare(batch)).collect();
            answer.each(|| prepared.iter().for_each(|batch| training.step(batch.clone())))
        }
        Task::Annotate => {
            let mut annotating = Annotating::<B>::new(options.dropout, device);
            let inputs: Vec<_> = batches().iter().map(|batch| input(batch, device)).collect::<Result<_>>()?;
            answer.each(|| inputs.iter().for_each(|batch| annotating.step(batch)))
        }
        Task::Infer => {
            let model: CellPatch<B> = Preset::Paper.config().init(device);
            let inputs: Vec<_> = batches().iter().map(|batch| input(batch, device)).collect::<Result<_>>()?;
            answer.each(|| inputs.iter().for_each(|batch| drop(model.latent(model.patches(batch)))))
        }
        Task::Stagate => answer.each(slices::stagate::<B>(n_spots, n_genes, device)?),
        Task::CellpatchStagate => {
            answer.each(slices::cellpatch_stagate::<B>(n_spots, n_genes, options.dropout, device)?)
        }
    }
}

/// A batch's genes and values on the device.
pub(crate) fn input<B: Backend>(batch: &MaskedBatch, device: &B::Device) -> Result<GeneValues<B>> {
    let (genes, values): (Vec<_>, Vec<_>) = (0..batch.n_cells()).map(|cell| batch.input(cell)).unzip();
    Ok(GeneValues::pad(&genes, &values, device)?)
}

/// Answers requests with the seconds a task took.
struct Answer<'a, B: Backend> {
    device: &'a B::Device,
    choice: Device,
}

impl<B: Backend> Answer<'_, B> {
    fn each(&mut self, mut task: impl FnMut()) -> Result<()> {
        for line in std::io::stdin().lock().lines() {
            line?;
            let start = Instant::now();
            task();
            B::sync(self.device).map_err(|error| format!("the device does not answer: {error:?}"))?;
            println!("{{\"seconds\": {}}}", start.elapsed().as_secs_f64());
        }
        let peak = self.choice.reserved_bytes().unwrap_or_else(peak_bytes);
        println!("{{\"peak_bytes\": {peak}}}");
        Ok(())
    }
}

/// The most memory this process ever had.
fn peak_bytes() -> u64 {
    // SAFETY: the kernel fills the structure, whose fields are all numbers.
    #[expect(unsafe_code, reason = "there is no safe interface to getrusage")]
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    usage.ru_maxrss as u64 * 1024
}
