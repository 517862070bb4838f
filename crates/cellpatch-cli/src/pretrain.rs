//! `cellpatch pretrain`: settings, shards, training, report.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use burn::train::Interrupter;
use cellpatch_data::ShardSet;
use cellpatch_model::{ModelBackend, set_precision};
use cellpatch_train::{
    EpochRecord, Execution, Observer, PretrainingConfig, PretrainingData, PretrainingMemory,
    PretrainingOutcome, RunDirectory, StepRecord, pretrain, pretrain_as_rank,
};

use crate::arguments::{PretrainArguments, pretrain_keys};
use crate::builtin;
use crate::device::{DeviceChoice, on_device};
use crate::failure::{Category, Failure};
use crate::inputs::{self, Input};
use crate::interrupt;
use crate::options::PretrainOptions;
use crate::ranks::{self, Rank};
use crate::report::{self, Summary};
use crate::runs;
use crate::settings;
use crate::sources;
use crate::terminal::{Progress, Terminal};

/// Pretrains a model on a user's cells, or on built-in ones.
pub(crate) fn run(terminal: &Terminal, arguments: PretrainArguments) -> Result<(), Failure> {
    let rank = arguments.ranks.resolve(&|name| std::env::var(name).ok())?;
    // Only rank 0 tells how it goes; all say what went wrong.
    let is_first = rank.as_ref().is_none_or(|rank| rank.rank == 0);
    let terminal = &Terminal { quiet: terminal.quiet || !is_first, ..*terminal };
    let start = Start::prepare(terminal, &arguments, rank)?;
    let interrupter = interrupt::on_ctrl_c()?;
    if arguments.ranks.follow {
        ranks::follow(interrupter.clone());
    }
    match arguments.ranks.processes {
        Some(processes) => start.launch(terminal, processes, &interrupter),
        None => start.train(terminal, interrupter),
    }
}

/// What a training begins with, in this process.
struct Start {
    options: PretrainOptions,
    config: PretrainingConfig,
    /// The run's folder, where this process knows one.
    folder: Option<PathBuf>,
    /// The same, where this process writes into it: not on a rank other than 0.
    run: Option<Arc<RunDirectory>>,
    /// None where it trains alone, and where it is to start those who do not.
    rank: Option<Rank>,
}

impl Start {
    /// Settings and the run directory they belong to.
    fn prepare(
        terminal: &Terminal,
        arguments: &PretrainArguments,
        rank: Option<Rank>,
    ) -> Result<Self, Failure> {
        let keys = pretrain_keys();
        let writes = rank.as_ref().is_none_or(|rank| rank.rank == 0);
        let mut options =
            settings::with_file(terminal, &arguments.options, arguments.config.as_deref(), &keys)?;
        if arguments.resume {
            let path = runs::resumed("pretrain", arguments.run_dir.as_deref())?;
            let run = if writes { Some(Arc::new(RunDirectory::open(&path)?)) } else { None };
            let options = settings::with_run(&options, &path, &keys)?;
            return Ok(Self { config: options.pretraining()?, options, folder: Some(path), run, rank });
        }
        if options.data.data.is_none() {
            options = settings::overlay(&options, &builtin::options()?)?;
        }
        let config = options.pretraining()?;
        if let Some(paths) = &options.data.data {
            inputs::find(paths)?;
        }
        if !writes {
            return Ok(Self { options, config, folder: None, run: None, rank });
        }
        let path = arguments.run_dir.clone().unwrap_or_else(|| runs::next("pretrain"));
        let run = RunDirectory::create(&path)?;
        settings::write(&run, &options)?;
        Ok(Self { options, config, folder: Some(path), run: Some(Arc::new(run)), rank })
    }

    /// Trains, alone or as one of several.
    fn train(self, terminal: &Terminal, interrupter: Interrupter) -> Result<(), Failure> {
        let Self { options, config, run, rank, .. } = &self;
        let device = options.device.unwrap_or_default().resolve(terminal)?;
        let device = device.for_rank(rank.as_ref().map_or(0, |rank| rank.local_rank));
        let data = self.open_data(terminal).inspect_err(|_| self.discard())?;
        terminal.note(&format!(
            "pretraining on {device}: {} cells ({} for validation), {} genes, {} epochs of {} steps",
            data.training().n_cells(),
            data.validation().n_cells(),
            data.shards().manifest().n_genes,
            config.epochs,
            data.training().n_batches(),
        ));
        let resume = run.as_ref().is_some_and(|run| run.checkpoints().is_dir());
        let execution = Execution { checkpoints: options.checkpoints(), resume, interrupter };
        interrupt::can_save(true);
        let job = Job { terminal, start: &self, data: &data, device };
        on_device!(device, |B, backend_device| job.run::<B>(&backend_device, execution))
    }

    /// Starts other processes that train, once there is something to train on.
    fn launch(
        self,
        terminal: &Terminal,
        processes: NonZeroUsize,
        interrupter: &Interrupter,
    ) -> Result<(), Failure> {
        self.open_data(terminal).inspect_err(|_| self.discard())?;
        let unwritable = |error: std::io::Error| {
            Failure::new(Category::Environment, format!("could not write settings: {error}"))
        };
        let mut settings = tempfile::NamedTempFile::new().map_err(unwritable)?;
        let text = toml::to_string(&self.options)
            .map_err(|error| Failure::new(Category::Usage, error.to_string()))?;
        settings.write_all(text.as_bytes()).map_err(unwritable)?;
        let Self { folder: Some(folder), run, .. } = self else { return Ok(()) };
        // Rank 0 works in it now.
        drop(run);
        interrupt::can_save(true);
        ranks::launch(terminal, processes, &folder, settings.path(), interrupter)
    }

    /// A run that could not begin leaves nothing.
    fn discard(&self) {
        self.run.iter().for_each(|run| run.discard());
    }

    /// The cells of a run, split and ready; the run gets their vocabulary.
    fn open_data(&self, terminal: &Terminal) -> Result<PretrainingData, Failure> {
        let shards = self.open_shards(terminal)?;
        if let Some(run) = &self.run {
            shards.vocabulary()?.write_parquet(&run.vocabulary())?;
        }
        Ok(PretrainingData::open(shards, &self.config)?)
    }

    /// The shard set of a run: the user's, or one made from the user's files or from built-in cells.
    fn open_shards(&self, terminal: &Terminal) -> Result<Arc<ShardSet>, Failure> {
        let options = &self.options;
        let input = options.data.data.as_deref().map(inputs::find).transpose()?;
        if let Some(Input::Shards(path)) = &input {
            return Ok(Arc::new(options.cache.open(path)?));
        }
        let own = self.folder.as_ref().map(|folder| folder.join(RunDirectory::SHARDS));
        if let Some(own) = own.filter(|own| inputs::is_shard_set(own)) {
            return Ok(Arc::new(ShardSet::open(own)?));
        }
        let (Some(run), None) = (&self.run, &self.rank) else {
            return Err(Failure::new(Category::Usage, "several processes read one shard set, and there is none")
                .with_help("make one with `shard`, where all of them can read it, and give it by --data; or let --processes start them"));
        };
        let generated;
        let files = match input {
            Some(Input::Files(files)) => files,
            _ => {
                generated = builtin::write_cells(terminal, options)?;
                vec![generated.path().join(builtin::FILE)]
            }
        };
        let capacity = self.config.model.gene_capacity;
        let shard_options =
            inputs::shard_options(&files, &options.data, capacity, &options.required_columns())?;
        let shards = inputs::write(terminal, &files, &run.shards(), &shard_options)?;
        sources::describe(&shards).iter().for_each(|line| terminal.note(line));
        Ok(shards)
    }
}

/// A training with everything it needs, before the backend is known.
struct Job<'a> {
    terminal: &'a Terminal,
    start: &'a Start,
    data: &'a PretrainingData,
    device: DeviceChoice,
}

impl Job<'_> {
    fn run<B>(&self, device: &B::Device, execution: Execution) -> Result<(), Failure>
    where
        B: ModelBackend,
        Autodiff<B>: ModelBackend<Device = B::Device>,
    {
        let Start { options, config, run, .. } = self.start;
        let outcome = self.train::<Autodiff<B>>(device, execution)?;
        interrupt::can_save(false);
        if outcome.finish.is_none() {
            return Err(self.interrupted(&outcome));
        }
        // What is left behind is rank 0's.
        let Some(run) = run else { return Ok(()) };
        let summary = Summary::new(self.data, &outcome, run, self.device, self.start.rank.as_ref());
        report::write::<B>(&summary, options, config, self.data, run, device)?;
        let value = summary.to_json();
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        run.write(&run.summary(), text.as_bytes())?;
        self.terminal.result(&summary.text(), &value);
        Ok(())
    }

    fn train<B>(&self, device: &B::Device, execution: Execution) -> Result<PretrainingOutcome, Failure>
    where
        B: AutodiffBackend + ModelBackend,
        B::InnerBackend: ModelBackend,
    {
        let Start { options, config, run, rank, .. } = self.start;
        set_precision::<B>(options.precision.unwrap_or_default(), device)?;
        if let Some(bytes) = self.device.memory() {
            let n_genes = self.data.shards().manifest().n_genes as usize;
            let needed = PretrainingMemory::new::<B>(config, n_genes);
            check_memory(&needed, self.device, usize::try_from(bytes).unwrap_or(usize::MAX))?;
        }
        let ranks = match rank {
            Some(rank) => {
                let interrupter = execution.interrupter.clone();
                let common = self.data.common::<B>(device, config)?;
                Some(rank.meet(self.terminal, common, &|| interrupter.should_stop())?)
            }
            None => None,
        };
        let total = (self.data.training().n_batches() * config.epochs) as u64;
        let watcher = Arc::new(Watcher { bar: self.terminal.progress("training", total, "steps") });
        let observer = Arc::clone(&watcher) as Arc<dyn Observer>;
        let outcome = match (ranks, run) {
            (Some(ranks), run) => pretrain_as_rank::<B>(
                device,
                self.data,
                config,
                Arc::new(ranks),
                run.clone(),
                execution,
                observer,
            )?,
            (None, Some(run)) => {
                pretrain::<B>(device, self.data, config, Arc::clone(run), execution, observer)?
            }
            (None, None) => return Err(Failure::new(Category::Usage, "a training without a run directory")),
        };
        watcher.bar.finish();
        Ok(outcome)
    }

    fn interrupted(&self, outcome: &PretrainingOutcome) -> Failure {
        let saved =
            outcome.checkpoint.as_ref().map_or(String::new(), |path| format!("; saved {}", path.display()));
        let failure =
            Failure::new(Category::Interrupted, format!("interrupted after {} steps{saved}", outcome.steps));
        match &self.start.folder {
            Some(folder) => {
                failure.with_help(format!("go on with: pretrain --resume --run-dir {}", folder.display()))
            }
            None => failure,
        }
    }
}

/// Refuses what a card's memory cannot hold, before anything is allocated there.
///
/// - bytes: that the card has
fn check_memory(needed: &PretrainingMemory, device: DeviceChoice, bytes: usize) -> Result<(), Failure> {
    // Allocators round up, backends keep pages, and the driver has a part for itself.
    let usable = bytes / 5 * 4;
    if needed.peak() <= usable {
        return Ok(());
    }
    let gib = |bytes: usize| bytes as f64 / (1 << 30) as f64;
    let message = format!(
        "a part of a batch may need about {:.1} GiB on {device}, which has {:.1} GiB, of which {:.1} can be counted on",
        gib(needed.peak()),
        gib(bytes),
        gib(usable)
    );
    let help = match needed.max_scores_that_fit(usable).map(|scores| scores / 1_000_000) {
        Some(millions) if millions > 0 => {
            format!(
                "--max-scores {millions} computes batches in parts that fit, with the same result; --precision bf16 halves most of it"
            )
        }
        _ => "not even one cell fits beside the batches that wait: give a smaller --batch-size, fewer --max-input and \
              --max-targets, or a smaller --gene-capacity"
            .to_owned(),
    };
    Err(Failure::new(Category::Environment, message).with_help(help))
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

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use cellpatch_model::Preset;

    use super::*;

    #[test]
    fn what_a_card_cannot_hold_is_refused_with_what_it_can() {
        let config = PretrainingConfig::new(Preset::Paper.config());
        let needed = |config: &PretrainingConfig| PretrainingMemory::new::<Flex>(config, 60_000);
        let card = DeviceChoice::Cuda(0);
        check_memory(&needed(&config), card, 80 << 30).unwrap();
        // Of which a fifth is not counted on.
        let small = needed(&config).peak();
        let refused = check_memory(&needed(&config), card, small).unwrap_err();
        let text = refused.render();
        let (_, rest) = text.split_once("--max-scores ").unwrap();
        let millions: usize = rest.split(' ').next().unwrap().parse().unwrap();
        let smaller = PretrainingConfig { max_scores: millions * 1_000_000, ..config.clone() };
        check_memory(&needed(&smaller), card, small).unwrap();
        let text = check_memory(&needed(&config), card, 1 << 20).unwrap_err().render();
        assert!(text.contains("not even one cell"), "{text}");
    }
}
