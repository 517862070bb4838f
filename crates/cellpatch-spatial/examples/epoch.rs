//! How long an epoch of STAGATE or CellPatch+STAGATE takes on the CPU, and how much memory: forward, loss, backward, clipping
//! and Adam on random expression over a hexagonal grid.
//!
//! CPU seconds are given beside wall seconds, because the latter mean little on a machine that others use too.
//!
//! `epoch stagate|cellpatch|cellpatch-all [SPOTS] [GENES] [EPOCHS]` prints one JSON object.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::error::Error;
use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::optim::GradientsParams;
use burn::tensor::ElementConversion;
use cellpatch_model::CellPatchConfig;
use cellpatch_spatial::graph::{Neighborhood, Position, build};
use cellpatch_spatial::{
    CellPatchInput, CellPatchStagateConfig, Expression, GenesRead, SharedStorage, SpatialInput,
    StagateConfig, step,
};
use cellpatch_train::{clip_global_norm, coupled_adam};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

type B = Autodiff<Flex>;

fn main() -> Result<(), Box<dyn Error>> {
    cellpatch_kernels::allocator::keep_large_blocks();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: usize| arguments.get(index).map_or(Ok(default), |text| text.parse());
    let (n_spots, n_genes, n_epochs) = (number(1, 3592)?, number(2, 3000)?, number(3, 7)?);
    let model = arguments.first().map_or("stagate", String::as_str);
    let graph = build(&hexagons(n_spots), Neighborhood::Radius(1.1))?.graph;
    let neighbours = graph.statistics().mean;
    let input = SpatialInput::<B>::new(graph, random_expression(n_spots, n_genes)?, &Default::default())?;
    let seconds = match model {
        "stagate" => {
            let model = StagateConfig::new(n_genes).init::<B>(&Default::default());
            epochs(n_epochs, model, |model| model.loss(&input))
        }
        _ => {
            let genes_read = if model == "cellpatch" { GenesRead::NonZero } else { GenesRead::All };
            let cell_patch = CellPatchConfig::new().with_attention_dropout(0.0);
            let tokens: Vec<u32> = (0..n_genes as u32).map(|gene| 1 + gene * 20).collect();
            let input = CellPatchInput::new(input.clone(), tokens, cell_patch.gene_capacity)?;
            let config = CellPatchStagateConfig::new(cell_patch, n_genes).with_genes_read(genes_read);
            let model = config.init::<B>(&Default::default());
            epochs(n_epochs, model, |model| model.loss(&input))
        }
    };
    let (wall, cpu): (Vec<f64>, Vec<f64>) = seconds.into_iter().unzip();
    let ((median, least), (median_cpu, least_cpu)) = (median_and_least(wall), median_and_least(cpu));
    println!(
        r#"{{"model":"{model}","spots":{n_spots},"genes":{n_genes},"neighbours":{neighbours:.2},"median_s":{median:.4},"min_s":{least:.4},"cpu_s":{median_cpu:.2},"cpu_min_s":{least_cpu:.2},"peak_rss_mib":{:.0}}}"#,
        peak_mib()?,
    );
    Ok(())
}

/// Wall and CPU seconds of each epoch but the first.
fn epochs<M>(n: usize, mut model: M, loss: impl Fn(&M) -> burn::tensor::Tensor<B, 1>) -> Vec<(f64, f64)>
where
    M: burn::module::AutodiffModule<B> + SharedStorage,
{
    let mut adam = coupled_adam(1e-4);
    let mut seconds = Vec::new();
    for epoch in 0..=n {
        let (start, before) = (Instant::now(), cpu_seconds());
        let loss = loss(&model);
        let value: f64 = loss.clone().into_scalar().elem();
        let forward = start.elapsed().as_secs_f64();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let backward = start.elapsed().as_secs_f64();
        let gradients = clip_global_norm(&model, gradients, 0.1);
        let clip = start.elapsed().as_secs_f64();
        model = step(&mut adam, 1e-4, model, gradients);
        let all = start.elapsed().as_secs_f64();
        if epoch > 0 {
            seconds.push((all, cpu_seconds() - before));
        }
        if std::env::var_os("PARTS").is_some() {
            println!(
                "loss {value:.5} forward {forward:.3} backward {:.3} clip {:.3} adam {:.3}",
                backward - forward,
                clip - backward,
                all - clip
            );
        }
    }
    seconds
}

/// Middle and least of some numbers.
fn median_and_least(mut numbers: Vec<f64>) -> (f64, f64) {
    numbers.sort_by(f64::total_cmp);
    (numbers[numbers.len() / 2], numbers[0])
}

/// CPU seconds of all threads of this process so far, by Linux's count of hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn hexagons(n_spots: usize) -> Vec<Position> {
    let side = (n_spots as f64).sqrt().ceil() as usize;
    let spot = |index: usize| {
        let (row, column) = (index / side, index % side);
        [column as f64 + 0.5 * (row % 2) as f64, row as f64 * 0.75_f64.sqrt()]
    };
    (0..n_spots).map(spot).collect()
}

/// A fifth of the values are not zero, exponentially distributed.
fn random_expression(n_spots: usize, n_genes: usize) -> cellpatch_spatial::Result<Expression> {
    let mut random = StdRng::seed_from_u64(0);
    let (mut starts, mut genes, mut values) = (vec![0], Vec::new(), Vec::new());
    for _ in 0..n_spots {
        for gene in 0..n_genes as u32 {
            if random.random_range(0.0..1.0_f32) < 0.2 {
                genes.push(gene);
                values.push(-random.random_range(f32::EPSILON..1.0_f32).ln());
            }
        }
        starts.push(genes.len());
    }
    Expression::from_sparse(starts, genes, values, n_genes)
}

/// The most memory this process has held.
fn peak_mib() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    let kib: f64 = line.split_whitespace().next().unwrap_or("0").parse()?;
    Ok(kib / 1024.0)
}
