//! `cellpatch annotate train`: labelled cells to a model that labels cells.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::backend::Autodiff;
use burn::train::Interrupter;
use cellpatch_analysis::metrics::ConfusionMatrix;
use cellpatch_data::{Existing, GeneVocabulary, Labels, QualityFilter, ShardOptions, ShardSet};
use cellpatch_model::{CellPatchConfig, Checkpoint, ModelBackend};
use cellpatch_train::annotation::{CellLogits, baselines};
use cellpatch_train::{
    AnnotationCard, AnnotationConfig, AnnotationData, AnnotationOutcome, EpochRecord, Execution, Observer,
    RunDirectory, StepRecord, annotate,
};
use serde_json::{Value, json};

use super::options::{TrainOptions, usage};
use super::report;
use super::scores::{self, MethodScores};
use super::split::{self, Files};
use crate::arguments::{AnnotateTrainArguments, annotate_train_keys};
use crate::device::{DeviceChoice, on_device};
use crate::failure::{Category, Failure};
use crate::inputs;
use crate::interrupt;
use crate::model::NamedModel;
use crate::runs;
use crate::settings;
use crate::sources;
use crate::terminal::{Progress, Terminal};

/// Trains a model on labelled cells and judges it.
pub(crate) fn run(terminal: &Terminal, arguments: AnnotateTrainArguments) -> Result<(), Failure> {
    let (options, run) = prepare(terminal, &arguments)?;
    let device = options.device.unwrap_or_default().resolve(terminal)?;
    let interrupter = interrupt::on_ctrl_c()?;
    let files = Files::find(&options).inspect_err(|_| run.discard())?;
    let start = Start::open(&options).inspect_err(|_| run.discard())?;
    let shards = open_shards(terminal, &options, &files, &start, &run).inspect_err(|_| run.discard())?;
    let labels = split::labels(&options, &shards).inspect_err(|_| run.discard())?;
    shards.vocabulary()?.write_parquet(&run.vocabulary())?;
    let job =
        Job { terminal, options: &options, files: &files, start: &start, shards, labels, run: &run, device };
    job.check().inspect_err(|_| run.discard())?;
    on_device!(device, |B, backend_device| job.run::<B>(&backend_device, &interrupter))
}

/// Settings and the run directory they belong to.
fn prepare(
    terminal: &Terminal,
    arguments: &AnnotateTrainArguments,
) -> Result<(TrainOptions, Arc<RunDirectory>), Failure> {
    let keys = annotate_train_keys();
    let options = settings::with_file(terminal, &arguments.options, arguments.config.as_deref(), &keys)?;
    if arguments.resume {
        let path = runs::resumed("annotate", arguments.run_dir.as_deref())?;
        let run = RunDirectory::open(&path)?;
        return Ok((settings::with_run(&options, &path, &keys)?, Arc::new(run)));
    }
    // What can be wrong without reading any cell is found before a folder is made.
    Files::find(&options)?;
    options.fractions()?;
    options.annotation(options.model()?, 2, 0)?;
    let path = arguments.run_dir.clone().unwrap_or_else(|| runs::next("annotate"));
    let run = RunDirectory::create(&path)?;
    settings::write(&run, &options)?;
    Ok((options, Arc::new(run)))
}

/// Where the encoder starts.
struct Start {
    model: CellPatchConfig,
    init: Option<NamedModel>,
}

impl Start {
    fn open(options: &TrainOptions) -> Result<Self, Failure> {
        match options.init.as_deref() {
            None => Ok(Self { model: options.model()?, init: None }),
            Some(path) if path == Path::new("none") => Ok(Self { model: options.model()?, init: None }),
            Some(path) => {
                let init = NamedModel::open(path, options.read.vocabulary.as_deref())?;
                Ok(Self { model: init.checkpoint.config()?, init: Some(init) })
            }
        }
    }

    /// The genes the data's are added to.
    fn vocabulary(&self) -> Option<GeneVocabulary> {
        self.init.as_ref().map(|init| init.vocabulary.clone())
    }

    /// The weights to start from, their gene table fitted to the data's vocabulary.
    fn weights<B: ModelBackend>(
        &self,
        capacity: usize,
        seed: u64,
        device: &B::Device,
    ) -> Result<Option<Checkpoint>, Failure> {
        let Some(init) = &self.init else { return Ok(None) };
        let mut weights = init.checkpoint.clone();
        B::seed(device, seed);
        weights.fit_gene_table::<B>(init.vocabulary.len() + 1, capacity, device)?;
        Ok(Some(weights))
    }
}

/// The cells of all files, none of them filtered: every labelled cell is to be labelled.
fn open_shards(
    terminal: &Terminal,
    options: &TrainOptions,
    files: &Files,
    start: &Start,
    run: &RunDirectory,
) -> Result<Arc<ShardSet>, Failure> {
    if inputs::is_shard_set(&run.shards()) {
        return Ok(Arc::new(ShardSet::open(run.shards())?));
    }
    let default = ShardOptions::default();
    let vocabulary = start.vocabulary();
    let mut obs_columns = vec![options.label().to_owned()];
    obs_columns.extend(options.split_by.clone().filter(|column| column != options.label()));
    let shard_options = ShardOptions {
        seed: options.seed(),
        quality: QualityFilter { min_genes: 0, min_cells: 0 },
        choice: options.read.choice(),
        obs_columns,
        keep_secondary: true,
        max_memory: options.max_memory.map_or(default.max_memory, |size| size.bytes),
        min_match: options.read.min_match.unwrap_or(if vocabulary.is_some() { 0.1 } else { 0.0 }),
        mouse: options.read.mouse(),
        capacity: start.model.gene_capacity,
        vocabulary,
        ..default
    };
    let shards = inputs::write(terminal, &files.paths, &run.shards(), &shard_options)?;
    sources::describe(&shards).iter().for_each(|line| terminal.note(line));
    Ok(shards)
}

/// A training with everything it needs, before the backend is known.
struct Job<'a> {
    terminal: &'a Terminal,
    options: &'a TrainOptions,
    files: &'a Files,
    start: &'a Start,
    shards: Arc<ShardSet>,
    labels: Labels,
    run: &'a Arc<RunDirectory>,
    device: DeviceChoice,
}

/// What one repeat led to.
pub(super) struct Repeat<B: ModelBackend> {
    pub data: AnnotationData,
    pub config: AnnotationConfig,
    pub split: String,
    pub outcome: AnnotationOutcome<B>,
    pub run: Arc<RunDirectory>,
    /// The test cells, where there are any.
    pub confusion: Option<ConfusionMatrix>,
    pub logits: CellLogits,
}

impl<B: ModelBackend> Repeat<B> {
    /// The validation macro-F1 of the best epoch.
    fn validation_score(&self) -> f64 {
        self.outcome
            .best
            .and_then(|best| best.losses.scores)
            .map_or(f64::NEG_INFINITY, |scores| scores.macro_f1)
    }
}

impl Job<'_> {
    /// Finds out whether the labelled cells can be divided, and have two classes to learn, before anything is trained.
    fn check(&self) -> Result<(), Failure> {
        let seed = self.options.seed();
        let (partition, _) =
            split::partition(self.terminal, self.options, self.files, &self.shards, &self.labels, seed)?;
        AnnotationData::classes_to_train(&self.labels, &partition)?;
        Ok(())
    }

    fn run<B>(&self, device: &B::Device, interrupter: &Interrupter) -> Result<(), Failure>
    where
        B: ModelBackend,
        Autodiff<B>: ModelBackend<Device = B::Device>,
    {
        let mut methods: Vec<MethodScores> = Vec::new();
        let mut best: Option<Repeat<B>> = None;
        let mut seconds = 0.0;
        for index in 0..self.options.repeats() {
            let repeat = self.repeat::<B>(device, index, interrupter, &mut methods)?;
            seconds += repeat.outcome.seconds;
            if best.as_ref().is_none_or(|best| repeat.validation_score() > best.validation_score()) {
                best = Some(repeat);
            }
        }
        let best = best.ok_or_else(|| usage("repeats is 0: at least one is needed".into()))?;
        let Some((model, card)) = &best.outcome.model else {
            return Err(usage("no epoch was finished".into()));
        };
        if best.run.path() != self.run.path() {
            self.take_over(&best.run)?;
        }
        let (text, value) = self.summary(&best, card, &methods, seconds)?;
        report::write::<B>(self.terminal, self.options, &best, model, card, &methods, self.run, device)?;
        let json = serde_json::to_string_pretty(&value).unwrap_or_default();
        self.run.write(&self.run.summary(), json.as_bytes())?;
        self.terminal.result(&text, &value);
        Ok(())
    }

    /// Trains and judges once: with other seeds, other cells train, validate and test.
    fn repeat<B>(
        &self,
        device: &B::Device,
        index: usize,
        interrupter: &Interrupter,
        methods: &mut Vec<MethodScores>,
    ) -> Result<Repeat<B>, Failure>
    where
        B: ModelBackend,
        Autodiff<B>: ModelBackend<Device = B::Device>,
    {
        let seed = self.options.seed() + index as u64;
        let (partition, split) =
            split::partition(self.terminal, self.options, self.files, &self.shards, &self.labels, seed)?;
        if index == 0 {
            self.terminal.note(&format!("split: {split}\n{}", partition.report(&self.labels)?));
        }
        let n_classes = AnnotationData::classes_to_train(&self.labels, &partition)?.len();
        let mut model = self.start.model.clone();
        model.gene_capacity = self.shards.manifest().n_genes as usize + 1;
        let mut config = self.options.annotation(model, n_classes, seed)?;
        let run = self.run_of(index)?;
        partition.save(&run.path().join("split.tsv"), Existing::Replace, &self.shards.cell_ids()?)?;
        let data = AnnotationData::open(Arc::clone(&self.shards), &self.labels, partition, &config)?;
        if self.options.epochs.is_none() {
            config.epochs = data.usual_epochs();
        }
        if self.options.baseline.unwrap_or(false) {
            self.baselines(&data, methods)?;
        }
        let outcome = self.train::<B>(device, index, &data, &config, &run, interrupter)?;
        let logits = match (&outcome.model, data.test()) {
            (Some((model, _)), Some(test)) => CellLogits::of_loader(model, test, device)?,
            _ => CellLogits::default(),
        };
        let confusion = data.confusion(&logits.classes())?;
        if let Some(confusion) = &confusion {
            MethodScores::add(methods, "CellPatch", &describe_start(self.options), confusion);
        }
        Ok(Repeat { data, config, split, outcome, run, confusion, logits })
    }

    fn baselines(&self, data: &AnnotationData, methods: &mut Vec<MethodScores>) -> Result<(), Failure> {
        self.terminal.note("fitting baselines");
        for baseline in baselines(data)? {
            if let Some(confusion) = data.confusion(&baseline.classes)? {
                MethodScores::add(methods, baseline.name, &baseline.note, &confusion);
            }
        }
        Ok(())
    }

    fn train<B>(
        &self,
        device: &B::Device,
        index: usize,
        data: &AnnotationData,
        config: &AnnotationConfig,
        run: &Arc<RunDirectory>,
        interrupter: &Interrupter,
    ) -> Result<AnnotationOutcome<B>, Failure>
    where
        B: ModelBackend,
        Autodiff<B>: ModelBackend<Device = B::Device>,
    {
        let of = match self.options.repeats() {
            1 => String::new(),
            repeats => format!(" (repeat {} of {repeats})", index + 1),
        };
        let genes = data.genes().map_or("all".to_owned(), |genes| genes.len().to_string());
        self.terminal.note(&format!(
            "training on {}: {} cells of {} classes, {genes} genes, {} for validation, {} epochs of {} steps{of}",
            self.device,
            data.n_training().iter().sum::<usize>(),
            data.classes().len(),
            data.validation().n_cells(),
            config.epochs,
            data.training().n_batches(),
        ));
        let total = (data.training().n_batches() * config.epochs) as u64;
        let watcher = Arc::new(Watcher { bar: self.terminal.progress("training", total, "steps") });
        let capacity = config.model.model.gene_capacity;
        let weights = self.start.weights::<Autodiff<B>>(capacity, config.seed, device)?;
        let execution = Execution {
            checkpoints: self.options.checkpoints(),
            resume: run.checkpoints().is_dir(),
            interrupter: interrupter.clone(),
        };
        interrupt::can_save(true);
        let outcome = annotate::<Autodiff<B>>(
            device,
            data,
            config,
            self.options.label(),
            weights.as_ref(),
            Arc::clone(run),
            execution,
            Arc::clone(&watcher) as Arc<dyn Observer>,
        )?;
        watcher.bar.finish();
        interrupt::can_save(false);
        if outcome.finish.is_none() {
            let message =
                format!("interrupted after {} steps; saved {}", outcome.steps, outcome.checkpoint.display());
            let help = format!("go on with: annotate train --resume --run-dir {}", self.run.path().display());
            return Err(Failure::new(Category::Interrupted, message).with_help(help));
        }
        Ok(outcome)
    }

    /// The directory of a repeat: the run itself where there is one only.
    fn run_of(&self, index: usize) -> Result<Arc<RunDirectory>, Failure> {
        if self.options.repeats() == 1 {
            return Ok(Arc::clone(self.run));
        }
        let path = self.run.path().join(format!("repeat-{:02}", index + 1));
        if path.join("config.toml").is_file() {
            return Ok(Arc::new(RunDirectory::open(&path)?));
        }
        let run = RunDirectory::create(&path)?;
        settings::write(&run, self.options)?;
        Ok(Arc::new(run))
    }

    /// Makes a repeat's model that of the whole run.
    fn take_over(&self, best: &RunDirectory) -> Result<(), Failure> {
        let split = PathBuf::from("split.tsv");
        let pairs = [
            (best.model(), self.run.model()),
            (best.model_card(), self.run.model_card()),
            (best.path().join(&split), self.run.path().join(&split)),
        ];
        for (from, to) in pairs {
            let bytes =
                std::fs::read(&from).map_err(|error| cellpatch_data::Error::io("read", &from, error))?;
            self.run.write(&to, &bytes)?;
        }
        Ok(())
    }

    fn summary<B: ModelBackend>(
        &self,
        best: &Repeat<B>,
        card: &AnnotationCard,
        methods: &[MethodScores],
        seconds: f64,
    ) -> Result<(String, Value), Failure> {
        let Repeat { data, outcome, confusion, .. } = best;
        let report = data.partition().report(&self.labels)?;
        let validation = card.losses.and_then(|losses| losses.scores);
        let mut text = format!(
            "\ntrained {} epochs on {} cells in {seconds:.0} s on {}; the best was epoch {}\n",
            outcome.epochs,
            data.n_training().iter().sum::<usize>(),
            self.device,
            card.epoch
        );
        if let Some(scores) = validation {
            text.push_str(&format!(
                "validation: accuracy {:.3}, macro-F1 {:.3}\n",
                scores.accuracy, scores.macro_f1
            ));
        }
        for method in methods {
            text.push_str(&format!("test: {}\n", method.text()?));
        }
        if let Some(confusion) = confusion {
            text.push_str(&format!("\n{}\n", scores::per_class_text(confusion)));
        }
        for warning in report::warnings(&report, data) {
            text.push_str(&format!("\nwarning: {warning}"));
        }
        text.push_str(&format!(
            "\n\nmodel      {}\nreport     {}\nsplit      {}\n",
            self.run.model().display(),
            self.run.report().display(),
            self.run.path().join("split.tsv").display()
        ));
        let value = json!({
            "command": "annotate train",
            "version": env!("CARGO_PKG_VERSION"),
            "device": self.device.to_string(),
            "label": self.options.label(),
            "classes": data.classes(),
            "unseen_classes": data.unseen_classes(),
            "cells_train": report.total.train,
            "cells_validation": report.total.validation,
            "cells_test": report.total.test,
            "cells_unlabelled": report.n_unlabelled,
            "rare_classes": report.rare,
            "genes": self.shards.manifest().n_genes,
            "split": best.split,
            "seed": self.options.seed(),
            "epochs": outcome.epochs,
            "best_epoch": card.epoch,
            "seconds": seconds,
            "validation_accuracy": validation.map(|scores| scores.accuracy),
            "validation_macro_f1": validation.map(|scores| scores.macro_f1),
            "accuracy": methods.iter().find(|m| m.name == "CellPatch").map(MethodScores::json).transpose()?.map(|v| v["accuracy"].clone()),
            "macro_f1": methods.iter().find(|m| m.name == "CellPatch").map(MethodScores::json).transpose()?.map(|v| v["macro_f1"].clone()),
            "methods": methods.iter().map(MethodScores::json).collect::<Result<Vec<_>, _>>()?,
            "per_class": confusion.as_ref().map(scores::per_class),
            "confidence": card.confidence,
            "model": self.run.model(),
            "report": self.run.report(),
            "run_dir": self.run.path(),
        });
        Ok((text, value))
    }
}

/// What the model started from, in words.
pub(super) fn describe_start(options: &TrainOptions) -> String {
    match options.init.as_deref().filter(|path| *path != Path::new("none")) {
        Some(path) => format!("encoder from {}", path.display()),
        None => "from scratch".into(),
    }
}

/// Shows a training on the terminal.
struct Watcher {
    bar: Progress,
}

impl Observer for Watcher {
    fn on_step(&self, record: &StepRecord) {
        self.bar.update(record.step, &format!("epoch {} loss {:.4}", record.epoch, record.loss));
    }

    fn on_epoch(&self, record: &EpochRecord) {
        let scores = record.validation_scores.map_or(String::new(), |scores| {
            format!("  accuracy {:.3}  macro-F1 {:.3}", scores.accuracy, scores.macro_f1)
        });
        self.bar.line(&format!(
            "epoch {:>3}/{}  train {:.4}  validation {:.4}{scores}{}",
            record.epoch,
            record.epochs,
            record.train_loss,
            record.validation_loss.unwrap_or(f64::NAN),
            if record.best { "  (the best)" } else { "" },
        ));
    }

    fn on_warning(&self, message: &str) {
        self.bar.warn(message);
    }
}
