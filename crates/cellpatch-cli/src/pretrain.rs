//! `cellpatch pretrain`: settings, shards, training, report.

use std::sync::Arc;

use burn::backend::Autodiff;
use cellpatch_data::ShardSet;
use cellpatch_model::ModelBackend;
use cellpatch_train::{
    EpochRecord, Execution, Observer, PretrainingConfig, PretrainingData, PretrainingOutcome, RunDirectory,
    StepRecord, pretrain,
};

use crate::arguments::{PretrainArguments, pretrain_keys};
use crate::builtin;
use crate::device::{DeviceChoice, on_device};
use crate::failure::{Category, Failure};
use crate::inputs::{self, Input};
use crate::interrupt;
use crate::options::{PretrainOptions, overlay, read_config};
use crate::report::{self, Summary};
use crate::runs;
use crate::sources;
use crate::terminal::{Progress, Terminal};

/// Pretrains a model on a user's cells, or on built-in ones.
pub(crate) fn run(terminal: &Terminal, arguments: PretrainArguments) -> Result<(), Failure> {
    let (options, run) = prepare(terminal, &arguments)?;
    let config = options.pretraining()?;
    let device = options.device.unwrap_or_default().resolve(terminal)?;
    let interrupter = interrupt::on_ctrl_c()?;
    let data = open_data(terminal, &options, &config, &run).inspect_err(|_| run.discard())?;
    terminal.note(&format!(
        "pretraining on {device}: {} cells ({} for validation), {} genes, {} epochs of {} steps",
        data.training().n_cells(),
        data.validation().n_cells(),
        data.shards().manifest().n_genes,
        config.epochs,
        data.training().n_batches(),
    ));
    let execution =
        Execution { checkpoints: options.checkpoints(), resume: run.checkpoints().is_dir(), interrupter };
    interrupt::can_save(true);
    let job = Job { terminal, options: &options, config: &config, data: &data, run: &run, device };
    on_device!(device, |B, backend_device| job.run::<B>(&backend_device, execution))
}

/// Settings and the run directory they belong to.
fn prepare(
    terminal: &Terminal,
    arguments: &PretrainArguments,
) -> Result<(PretrainOptions, Arc<RunDirectory>), Failure> {
    let keys = pretrain_keys();
    let mut options = arguments.options.clone();
    if let Some(path) = &arguments.config {
        let (file, warnings) = read_config(path, &keys)?;
        warnings.iter().for_each(|warning| terminal.warn(warning));
        options = overlay(&options, &file)?;
    }
    if arguments.resume {
        let path = match &arguments.run_dir {
            Some(path) => path.clone(),
            None => runs::newest("pretrain")?,
        };
        let run = RunDirectory::open(&path)?;
        let (stored, _) = read_config(&run.config(), &keys)?;
        return Ok((overlay(&options, &stored)?, Arc::new(run)));
    }
    if options.data.data.is_none() {
        options = overlay(&options, &builtin::options()?)?;
    }
    options.pretraining()?;
    if let Some(paths) = &options.data.data {
        inputs::find(paths)?;
    }
    let path = arguments.run_dir.clone().unwrap_or_else(|| runs::next("pretrain"));
    let run = RunDirectory::create(&path)?;
    let text = toml::to_string(&options).map_err(|error| Failure::new(Category::Usage, error.to_string()))?;
    run.write(&run.config(), text.as_bytes())?;
    Ok((options, Arc::new(run)))
}

/// The cells of a run, split and ready; the run gets their vocabulary.
fn open_data(
    terminal: &Terminal,
    options: &PretrainOptions,
    config: &PretrainingConfig,
    run: &RunDirectory,
) -> Result<PretrainingData, Failure> {
    let shards = open_shards(terminal, options, config, run)?;
    shards.vocabulary()?.write_parquet(&run.vocabulary())?;
    Ok(PretrainingData::open(shards, config)?)
}

/// The shard set of a run: the user's, or one made from the user's files or from built-in cells.
fn open_shards(
    terminal: &Terminal,
    options: &PretrainOptions,
    config: &PretrainingConfig,
    run: &RunDirectory,
) -> Result<Arc<ShardSet>, Failure> {
    let input = options.data.data.as_deref().map(inputs::find).transpose()?;
    if let Some(Input::Shards(path)) = &input {
        return Ok(Arc::new(options.cache.open(path)?));
    }
    if inputs::is_shard_set(&run.shards()) {
        return Ok(Arc::new(ShardSet::open(run.shards())?));
    }
    let generated;
    let files = match input {
        Some(Input::Files(files)) => files,
        _ => {
            generated = builtin::write_cells(terminal, options)?;
            vec![generated.path().join(builtin::FILE)]
        }
    };
    let capacity = config.model.gene_capacity;
    let shard_options = inputs::shard_options(&files, &options.data, capacity, &options.required_columns())?;
    let shards = inputs::write(terminal, &files, &run.shards(), &shard_options)?;
    sources::describe(&shards).iter().for_each(|line| terminal.note(line));
    Ok(shards)
}

/// A training with everything it needs, before the backend is known.
struct Job<'a> {
    terminal: &'a Terminal,
    options: &'a PretrainOptions,
    config: &'a PretrainingConfig,
    data: &'a PretrainingData,
    run: &'a Arc<RunDirectory>,
    device: DeviceChoice,
}

impl Job<'_> {
    fn run<B>(&self, device: &B::Device, execution: Execution) -> Result<(), Failure>
    where
        B: ModelBackend,
        Autodiff<B>: ModelBackend<Device = B::Device>,
    {
        let total = (self.data.training().n_batches() * self.config.epochs) as u64;
        let watcher = Arc::new(Watcher { bar: self.terminal.progress("training", total, "steps") });
        let outcome = pretrain::<Autodiff<B>>(
            device,
            self.data,
            self.config,
            Arc::clone(self.run),
            execution,
            Arc::clone(&watcher) as Arc<dyn Observer>,
        )?;
        watcher.bar.finish();
        interrupt::can_save(false);
        if outcome.finish.is_none() {
            return Err(self.interrupted(&outcome));
        }
        let summary = Summary::new(self.data, &outcome, self.run, self.device);
        report::write::<B>(&summary, self.options, self.config, self.data, self.run, device)?;
        let value = summary.to_json();
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        self.run.write(&self.run.summary(), text.as_bytes())?;
        self.terminal.result(&summary.text(), &value);
        Ok(())
    }

    fn interrupted(&self, outcome: &PretrainingOutcome) -> Failure {
        let saved =
            outcome.checkpoint.as_ref().map_or(String::new(), |path| format!("; saved {}", path.display()));
        Failure::new(Category::Interrupted, format!("interrupted after {} steps{saved}", outcome.steps))
            .with_help(format!("go on with: pretrain --resume --run-dir {}", self.run.path().display()))
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
        self.bar.line(&format!(
            "epoch {:>3}/{}  train {:.4}  validation {:.4}  gene means {:.4}  R2 {:.3}{}",
            record.epoch,
            record.epochs,
            record.train_loss,
            record.validation_loss.unwrap_or(f64::NAN),
            record.validation_loss_gene_mean.unwrap_or(f64::NAN),
            record.validation_r2.unwrap_or(f64::NAN),
            if record.best { "" } else { "  (not the best)" },
        ));
    }

    fn on_warning(&self, message: &str) {
        self.bar.warn(message);
    }
}
