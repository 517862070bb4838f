//! Where the time of a pretraining goes on the CPU: loading against training, in the same run.
//!
//! Every row is the median of several runs; the last column is the ratio to the training step, so that noise of the
//! machine cancels.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::train::TrainStep;
use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
use cellpatch_data::{ShardOptions, write_shards};
use cellpatch_model::Preset;
use cellpatch_train::{Pretrainer, PretrainingBatch, PretrainingConfig, PretrainingData};

const RUNS: usize = 5;

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("cells.h5ad");
    write_h5ad(&SyntheticConfig { n_cells: 1_000, ..Default::default() }, &file)?;
    let shards = write_shards(&[file], &folder.path().join("shards"), &ShardOptions::default(), &mut |_| {})?;
    let mut config = PretrainingConfig::new(Preset::Paper.config());
    config.batch_size = 64;
    let data = PretrainingData::open(Arc::new(shards), &config)?;
    let n_cells = data.training().n_cells() as f64;

    let loading = median(|| data.training().epoch(1, 0).try_for_each(|batch| batch.map(drop)))?;
    let unmasked = median(|| data.training().expressions(1, 0).try_for_each(|batch| batch.map(drop)))?;
    let model = Pretrainer::<Autodiff<Flex>>::new(&config, &Default::default())?;
    let batches: Vec<_> = data.training().epoch(1, 0).take(4).collect::<Result<_, _>>()?;
    let n_trained: usize = batches.iter().map(|batch| batch.n_cells()).sum();
    let training = median(|| {
        for (index, cells) in batches.iter().enumerate() {
            drop(model.step(PretrainingBatch { cells: cells.clone(), dropout_seed: index as u64 }));
        }
        Ok::<_, Box<dyn Error>>(())
    })?;

    let rate = n_trained as f64 / training;
    println!("{:34} {:>12} {:>10}", "synthetic cells, 2 000 genes", "cells/s", "x training");
    for (name, cells_per_second) in [
        ("load, decode and mask", n_cells / loading),
        ("load and decode", n_cells / unmasked),
        ("forward and backward, batch 64", rate),
    ] {
        println!("{name:34} {cells_per_second:>12.0} {:>10.1}", cells_per_second / rate);
    }
    Ok(())
}

/// Median seconds of several runs, after one to warm up.
fn median<E: Into<Box<dyn Error>>>(mut work: impl FnMut() -> Result<(), E>) -> Result<f64, Box<dyn Error>> {
    work().map_err(Into::into)?;
    let mut seconds = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        work().map_err(Into::into)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[RUNS / 2])
}
