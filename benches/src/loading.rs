//! Whether training waits for its data: loading alone, training alone, and both together, in the same run.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use cellpatch_data::{ShardOptions, write_shards};
use cellpatch_model::{ModelBackend, Preset};
use cellpatch_train::{PreparedCells, PretrainingConfig, PretrainingData};
use clap::Args;

use crate::Result;
use crate::device::{Device, on_device};
use crate::document::write_section;
use crate::sharding::make;
use crate::training::Pretraining;
use crate::turns::median;

/// Passes over the cells that each row is the median of, after one to warm up.
const RUNS: usize = 3;

#[derive(Args)]
pub(crate) struct Options {
    /// What trains: cpu, wgpu or cuda.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Cells, of 30,000 genes, about 1,500 of them seen in a cell.
    #[arg(long, default_value_t = 2_000)]
    cells: usize,
    /// Cells of a batch.
    #[arg(long, default_value_t = 512)]
    batch: usize,
    /// Where to write the section; standard output otherwise.
    #[arg(long)]
    output: Option<PathBuf>,
}

/// Cells a second, and what of the time was waited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feeding {
    /// Read, masked, padded, sorted by gene and sent to the device, and thrown away.
    loading: f64,
    /// Trained on, all batches being on the device.
    training: f64,
    /// Trained on as they come from the loader.
    together: f64,
    /// Share of that in which the next batch was not there yet.
    waited: f64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let feeding = measure(options.device, options.cells, options.batch)?;
    let text = format!(
        "Written by `cargo xtask bench loading --device {} --output docs/benchmarks.md`: {} synthetic cells of 30,000 genes, batches of {}, \
         the paper's model with dropout 0.1. Medians of {RUNS} passes.\n\n{}",
        options.device,
        options.cells,
        options.batch,
        feeding.table(options.device)?
    );
    match &options.output {
        Some(path) => write_section(path, "Feeding", &text),
        None => {
            println!("## Feeding\n\n{text}");
            Ok(())
        }
    }
}

/// Loads, trains, and does both.
pub(crate) fn measure(device: Device, n_cells: usize, batch_size: usize) -> Result<Feeding> {
    let folder = tempfile::tempdir()?;
    let (cells, _) = make(folder.path(), n_cells, 30_000)?;
    let shards =
        write_shards(&[cells], &folder.path().join("shards"), &ShardOptions::default(), &mut |_| {})?;
    let mut config = PretrainingConfig::new(Preset::Paper.config());
    config.batch_size = batch_size;
    let data = PretrainingData::open(Arc::new(shards), &config)?;
    on_device!(device, |B, device| feed::<B>(&data, &device))
}

fn feed<B>(data: &PretrainingData, device: &B::Device) -> Result<Feeding>
where
    B: ModelBackend,
    Autodiff<B>: ModelBackend<Device = B::Device>,
{
    let n_cells = data.training().n_cells() as f64;
    let mut training = Pretraining::<B>::new(0.1, device)?;
    let preparation = training.preparation();
    let prepared = || {
        let preparation = preparation.clone();
        data.training().finished_epoch(1, 0, move |batch| preparation.prepare(&batch))
    };
    let batches: Vec<PreparedCells> = prepared().collect::<std::result::Result<_, _>>()?;
    let mut shares = Vec::new();
    let loading = median_seconds(|| Ok(prepared().try_for_each(|batch| batch.map(drop))?))?;
    let trained = median_seconds(|| {
        batches.iter().for_each(|batch| training.step(batch.clone()));
        wait::<B>(device)
    })?;
    let together = median_seconds(|| {
        let (start, mut waited) = (Instant::now(), 0.0);
        let mut coming = prepared();
        loop {
            let asked = Instant::now();
            let batch = coming.next();
            waited += asked.elapsed().as_secs_f64();
            let Some(batch) = batch else { break };
            training.step(batch?);
        }
        wait::<B>(device)?;
        shares.push(waited / start.elapsed().as_secs_f64());
        Ok(())
    })?;
    // The first was to warm up.
    shares.remove(0);
    Ok(Feeding {
        loading: n_cells / loading,
        training: n_cells / trained,
        together: n_cells / together,
        waited: median(shares),
    })
}

/// Until the device has done what it was given.
fn wait<B: Backend>(device: &B::Device) -> Result<()> {
    B::sync(device).map_err(|error| format!("the device does not answer: {error:?}").into())
}

/// Median seconds of several runs, after one to warm up.
fn median_seconds(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(median(seconds))
}

impl Feeding {
    pub(crate) fn table(&self, device: Device) -> Result<String> {
        let mut text = String::from("| | cells/s |\n|---|---:|\n");
        for (name, rate) in [
            ("loading alone: read, masked, padded, sorted by gene, sent", self.loading),
            ("training alone, batches on the device", self.training),
            ("training as batches come", self.together),
        ] {
            writeln!(text, "| {name} | {rate:.0} |")?;
        }
        writeln!(
            text,
            "\nLoading is {:.1} times as fast as training on {device}; in training as they come, the next batch was not there yet for {:.1} % of \
             the time.",
            self.loading / self.training,
            100.0 * self.waited
        )?;
        Ok(text)
    }
}
