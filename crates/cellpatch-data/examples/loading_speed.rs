//! How fast cells load: `loading_speed CELLS SHARDS [THREADS] [EPOCHS]`.
//!
//! Shards CELLS (any input) into the folder SHARDS unless they are there, and prints cells a second, and cells a second of
//! processor time, for decoding alone, with masking, and with padding to what a model takes. Processor time is what counts
//! on a machine that others use too.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cellpatch_data::{
    Loader, LoaderOptions, Masking, QualityFilter, RowSelection, ShardOptions, ShardSet, write_shards,
};

/// Clock ticks a second in /proc, a constant of Linux' interface.
const TICKS: f64 = 100.0;
/// What widths are padded to a multiple of.
const PAD_TO: usize = 8;

/// Processor seconds of this process, where the system tells.
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the name in parentheses: user and system time are the 12th and 13th field.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cells, folder, more @ ..] = arguments.as_slice() else {
        return Err("give an input and a folder for its shards".into());
    };
    let number = |at: usize, usual: usize| more.get(at).map_or(Ok(usual), |text: &String| text.parse());
    let (threads, epochs) = (number(0, 2)?, number(1, 3)?);
    let folder = Path::new(folder);
    let shards = if folder.join("manifest.json").is_file() {
        ShardSet::open(folder)?
    } else {
        let options = ShardOptions { quality: QualityFilter::OFF, ..ShardOptions::default() };
        write_shards(&[cells.into()], folder, &options, &mut |_| {})?
    };
    let shards = Arc::new(shards);
    let n_cells = shards.n_cells();
    println!("{n_cells} cells, {threads} threads, {epochs} epochs after one to warm up");
    let loader = |masking: Masking| {
        let options = LoaderOptions { threads, masking, length_buckets: true, ..LoaderOptions::default() };
        Loader::new(Arc::clone(&shards), RowSelection::all(n_cells as u64), options)
    };
    let (whole, masked) =
        (loader(Masking { max_input: usize::MAX, ..Masking::default() })?, loader(Masking::default())?);
    type Stage<'a> = (&'a str, Box<dyn Fn(u64) -> cellpatch_data::Result<usize> + 'a>);
    let stages: [Stage<'_>; 3] = [
        (
            "decode",
            Box::new(|epoch| {
                whole.expressions(epoch, 0).try_fold(0, |sum, batch| Ok(sum + batch?.genes.len()))
            }),
        ),
        (
            "decode, mask",
            Box::new(|epoch| {
                masked.epoch(epoch, 0).try_fold(0, |sum, batch| Ok(sum + batch?.input_genes.len()))
            }),
        ),
        (
            "decode, mask, collate",
            Box::new(|epoch| {
                masked.epoch(epoch, 0).try_fold(0, |sum, batch| {
                    let batch = batch?;
                    Ok(sum + batch.pad_inputs(PAD_TO).genes.len() + batch.pad_targets(PAD_TO).genes.len())
                })
            }),
        ),
    ];
    for (name, run) in &stages {
        run(0)?;
        let (start, before) = (Instant::now(), processor_seconds());
        let mut n_genes = 0;
        for epoch in 1..=epochs as u64 {
            n_genes += run(epoch)?;
        }
        let loaded = (n_cells * epochs) as f64;
        let per_second = loaded / start.elapsed().as_secs_f64();
        let busy = processor_seconds().zip(before).map(|(after, before)| loaded / (after - before));
        let busy = busy.map_or("unknown".into(), |rate| format!("{rate:.0}"));
        let genes = n_genes as f64 / loaded;
        println!(
            "{name:24} {per_second:>9.0} cells/s, {busy:>9} a processor second, {genes:.0} genes a cell"
        );
    }
    Ok(())
}
