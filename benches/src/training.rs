//! Training steps as the product takes them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use burn::backend::flex::FlexDevice;
use burn::backend::{Autodiff, Flex};
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, activation};
use burn::train::TrainStep;
use cellpatch_data::ShardSet;
use cellpatch_model::{CellPatch, GeneValues, ModelBackend, Preset};
use cellpatch_train::{
    BatchLoss, CoupledAdam, Preparation, PreparedCells, Pretrainer, PretrainingBatch, PretrainingConfig,
    PretrainingData, STEPS_PER_READ, clip_global_norm, coupled_adam,
};

use crate::Result;

/// A model that is pretrained with the paper's settings.
pub(crate) struct Pretraining<B>
where
    B: ModelBackend,
    Autodiff<B>: ModelBackend<Device = B::Device>,
{
    preparation: Preparation,
    pretrainer: Option<Pretrainer<Autodiff<B>>>,
    optimizer: CoupledAdam<Pretrainer<Autodiff<B>>, Autodiff<B>>,
    seed: u64,
    /// Of the last steps, read together now and then, as the product does.
    unread: Vec<BatchLoss<B>>,
    last_loss: f64,
}

impl<B> Pretraining<B>
where
    B: ModelBackend,
    Autodiff<B>: ModelBackend<Device = B::Device>,
{
    pub(crate) fn new(dropout: f64, device: &B::Device) -> Result<Self> {
        let model = Preset::Paper.config().with_attention_dropout(dropout).with_output_dropout(dropout);
        let config = PretrainingConfig::new(model);
        let pretrainer = Pretrainer::new(&config, device)?;
        let preparation = Preparation::new::<B>(&config, device);
        let optimizer = coupled_adam(5e-5);
        Ok(Self {
            preparation,
            pretrainer: Some(pretrainer),
            optimizer,
            seed: 0,
            unread: Vec::new(),
            last_loss: f64::NAN,
        })
    }

    /// What a loader's threads do with a batch.
    pub(crate) fn preparation(&self) -> Preparation {
        self.preparation.clone()
    }

    /// Mean squared error of the last step; reading it waits for the device.
    pub(crate) fn last_loss(&mut self) -> f64 {
        for loss in self.unread.drain(..) {
            self.last_loss = loss.mean();
        }
        self.last_loss
    }

    pub(crate) fn step(&mut self, cells: PreparedCells) {
        let Some(pretrainer) = self.pretrainer.take() else { return };
        self.seed += 1;
        let output = TrainStep::step(&pretrainer, PretrainingBatch { cells, dropout_seed: self.seed });
        self.pretrainer = Some(pretrainer.optimize(&mut self.optimizer, 1e-4, output.grads));
        self.unread.push(output.item);
        if self.unread.len() >= STEPS_PER_READ {
            self.last_loss();
        }
    }
}

/// An encoder with a classifier behind it.
#[derive(Module, Debug)]
struct Annotator<B: Backend> {
    model: CellPatch<B>,
    head: [Linear<B>; 3],
}

impl<B: ModelBackend> Annotator<B> {
    fn forward(&self, input: &GeneValues<B>) -> Tensor<B, 2> {
        let [first, second, last] = &self.head;
        let patches = self.model.patches(input).flatten(1, 2);
        last.forward(activation::relu(second.forward(activation::relu(first.forward(patches)))))
    }
}

const N_CLASSES: usize = 11;

/// A model that is finetuned to tell classes.
pub(crate) struct Annotating<B>
where
    B: ModelBackend,
    Autodiff<B>: ModelBackend<Device = B::Device>,
{
    annotator: Option<Annotator<Autodiff<B>>>,
    optimizer: CoupledAdam<Annotator<Autodiff<B>>, Autodiff<B>>,
}

impl<B> Annotating<B>
where
    B: ModelBackend,
    Autodiff<B>: ModelBackend<Device = B::Device>,
{
    pub(crate) fn new(dropout: f64, device: &B::Device) -> Self {
        let linear = |n_in, n_out| LinearConfig::new(n_in, n_out).init(device);
        let annotator = Annotator {
            model: Preset::Paper.config().with_attention_dropout(dropout).init(device),
            head: [linear(64 * 32, 512), linear(512, 100), linear(100, N_CLASSES)],
        };
        Self { annotator: Some(annotator), optimizer: coupled_adam(5e-4) }
    }

    pub(crate) fn step(&mut self, input: &GeneValues<Autodiff<B>>) {
        let Some(annotator) = self.annotator.take() else { return };
        let device = input.values.device();
        let classes: Vec<i32> = (0..input.n_cells()).map(|cell| (cell % N_CLASSES) as i32).collect();
        let classes = Tensor::<Autodiff<B>, 1, Int>::from_ints(classes.as_slice(), &device);
        let loss = CrossEntropyLossConfig::new().init(&device).forward(annotator.forward(input), classes);
        let gradients = GradientsParams::from_grads(loss.backward(), &annotator);
        let gradients = clip_global_norm::<Autodiff<B>, _>(&annotator, gradients, 5.0);
        self.annotator = Some(self.optimizer.step(1e-3, annotator, gradients));
    }
}

/// The losses of the first steps of a pretraining without dropout, which each path would draw in its own way.
pub(crate) fn losses(shards: &Path, n_steps: usize) -> Result<Vec<f64>> {
    let mut config = PretrainingConfig::new(Preset::Paper.config());
    config.batch_size = 16;
    let data = PretrainingData::open(Arc::new(ShardSet::open(shards)?), &config)?;
    let device = FlexDevice;
    Autodiff::<Flex>::seed(&device, 7);
    let mut training = Pretraining::<Flex>::new(0.0, &device)?;
    let preparation = training.preparation();
    let prepared = |epoch| {
        let preparation = preparation.clone();
        data.training().finished_epoch(epoch, 0, move |batch| preparation.prepare(&batch))
    };
    let batches = (1..).flat_map(prepared);
    batches
        .take(n_steps)
        .map(|batch| {
            training.step(batch?);
            Ok(training.last_loss())
        })
        .collect()
}

/// Sets the losses by kernels beside those by plain operations, each computed by a process of its own.
pub(crate) fn compare_losses(shards: &Path, n_steps: usize) -> Result<()> {
    let run = |kernels: &str| -> Result<Vec<f64>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["losses", "--steps", &n_steps.to_string(), "--shards"]).arg(shards);
        let output = command.env("CELLPATCH_KERNELS", kernels).stderr(Stdio::inherit()).output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let (fused, plain) = (run("on")?, run("off")?);
    let mut largest = 0.0_f64;
    for (step, (fused, plain)) in fused.iter().zip(&plain).enumerate() {
        largest = largest.max((fused - plain).abs() / plain);
        if step % 20 == 19 || step == 0 {
            println!("step {:4}  kernels {fused:.6}  plain operations {plain:.6}", step + 1);
        }
    }
    println!("largest relative difference over {} steps: {largest:.2e}", fused.len().min(plain.len()));
    Ok(())
}
