//! `cellpatch spatial`: slices, trainings, domains.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::train::Interrupter;
use cellpatch_analysis::Consensus;
use cellpatch_model::CellPatchConfig;
use cellpatch_spatial::SpatialBackend;
use cellpatch_spatial::training::{SpatialCard, SpatialOutcome, train};
use cellpatch_train::{Execution, Observer, RunDirectory, StepRecord, write_json};

use super::domains::{self, Domains};
use super::method::Method;
use super::options::SpatialOptions;
use super::scores::Results;
use super::slice::{LoadedSlice, PatchStart, SliceAndTokens};
use super::{output, report};
use crate::arguments::{SpatialArguments, spatial_keys};
use crate::device::{DeviceChoice, on_device};
use crate::failure::{Category, Failure};
use crate::interrupt;
use crate::model::NamedModel;
use crate::runs;
use crate::settings;
use crate::terminal::{Progress, Terminal};

/// Finds domains on one or more slices.
pub(crate) fn run(terminal: &Terminal, arguments: SpatialArguments) -> Result<(), Failure> {
    let (options, run) = prepare(terminal, &arguments)?;
    let device = options.device.unwrap_or_default().resolve(terminal)?;
    let interrupter = interrupt::on_ctrl_c()?;
    let job = Job::open(terminal, &options, &run, device).inspect_err(|_| run.discard())?;
    on_device!(device, |B, backend_device| job.run::<B>(&backend_device, &interrupter))
}

/// Settings and the run directory they belong to.
fn prepare(
    terminal: &Terminal,
    arguments: &SpatialArguments,
) -> Result<(SpatialOptions, Arc<RunDirectory>), Failure> {
    let keys = spatial_keys();
    let options = settings::with_file(terminal, &arguments.options, arguments.config.as_deref(), &keys)?;
    if arguments.resume {
        let path = runs::resumed("spatial", arguments.run_dir.as_deref())?;
        let run = RunDirectory::open(&path)?;
        let options = settings::with_run(&options, &path, &keys)?;
        output::check(&options)?;
        return Ok((options, Arc::new(run)));
    }
    options.check()?;
    output::check(&options)?;
    let path = arguments.run_dir.clone().unwrap_or_else(|| runs::next("spatial"));
    let run = RunDirectory::create(&path)?;
    settings::write(&run, &options)?;
    Ok((options, Arc::new(run)))
}

/// Slices with everything that is to be done with them, before the backend is known.
pub(super) struct Job<'a> {
    pub terminal: &'a Terminal,
    pub options: &'a SpatialOptions,
    pub run: &'a Arc<RunDirectory>,
    pub device: DeviceChoice,
    pub slices: Vec<LoadedSlice>,
    model_tokens: Vec<Vec<u32>>,
    start: PatchStart,
    cell_patch: CellPatchConfig,
}

/// Domains of a slice, by one training or by several together.
pub(super) struct Unit {
    /// Which of the job's slices.
    pub slice: usize,
    pub method: Method,
    /// That of the first training; the others have the next.
    pub seed: u64,
    /// Mean squared error at the end; of several trainings, its mean.
    pub loss: f64,
    pub epochs: usize,
    /// Of all trainings.
    pub seconds: f64,
    /// [spots, latent_dim]; of several trainings, that of the one that agrees best with the others.
    pub embedding: Vec<f32>,
    /// [spots, genes], where it was asked for; of the same training.
    pub denoised: Option<Vec<f32>>,
    pub domains: Domains,
    /// That of the same training.
    pub run: Arc<RunDirectory>,
}

/// One training.
struct Trained {
    loss: f64,
    epochs: usize,
    seconds: f64,
    /// [spots, latent_dim]
    embedding: Vec<f32>,
    /// [spots, genes], where it was asked for.
    denoised: Option<Vec<f32>>,
    run: Arc<RunDirectory>,
}

impl<'a> Job<'a> {
    fn open(
        terminal: &'a Terminal,
        options: &'a SpatialOptions,
        run: &'a Arc<RunDirectory>,
        device: DeviceChoice,
    ) -> Result<Self, Failure> {
        let mut cell_patch = options.cell_patch()?;
        let start = match (options.methods().contains(&Method::CellPatchStagate), options.init()) {
            (false, _) => PatchStart::Unused,
            (true, None) => {
                terminal.warn(
                    "without --init CellPatch's first layer starts from chance, as nothing in the paper does",
                );
                PatchStart::Fresh
            }
            (true, Some(path)) => {
                let model = NamedModel::open(path, options.vocabulary.as_deref())?;
                cell_patch = model.checkpoint.config()?;
                PatchStart::Pretrained(Box::new(model))
            }
        };
        let (mut slices, mut model_tokens): (Vec<LoadedSlice>, Vec<_>) = (Vec::new(), Vec::new());
        for path in options.data.iter().flatten() {
            let SliceAndTokens { mut slice, model_tokens: tokens } =
                SliceAndTokens::load(terminal, options, path, &start)?;
            domains::check(options, &slice)?;
            output::check_slice(options, &slice)?;
            let same = slices.iter().filter(|other| other.name == slice.name).count();
            if same > 0 {
                slice.name = format!("{}-{}", slice.name, slices.len() + 1);
            }
            slices.push(slice);
            model_tokens.push(tokens);
        }
        Ok(Self { terminal, options, run, device, slices, model_tokens, start, cell_patch })
    }

    /// All domains there are to be: slice, method, seed of the first training.
    fn units(&self) -> Vec<(usize, Method, u64)> {
        let mut units = Vec::new();
        for slice in 0..self.slices.len() {
            for method in self.options.methods() {
                let firsts = (0..self.options.repeats()).map(|repeat| repeat * self.options.ensemble());
                let seeds = firsts.map(|first| self.options.seed() + first as u64);
                units.extend(seeds.map(|seed| (slice, method, seed)));
            }
        }
        units
    }

    fn run<B>(&self, device: &B::Device, interrupter: &Interrupter) -> Result<(), Failure>
    where
        B: SpatialBackend,
        Autodiff<B>: SpatialBackend<Device = B::Device>,
    {
        let (units, n_members) = (self.units(), self.options.ensemble());
        let n_trainings = units.len() * n_members;
        let mut done = Vec::with_capacity(units.len());
        for (index, (slice, method, seed)) in units.into_iter().enumerate() {
            let mut members = Vec::with_capacity(n_members);
            for member in 0..n_members {
                let of = match n_trainings {
                    1 => String::new(),
                    n => format!(" ({} of {n})", index * n_members + member + 1),
                };
                let seed = seed + member as u64;
                let run = self.run_of(n_trainings, slice, method, seed)?;
                members.push(self.training::<B>(device, slice, method, seed, run, interrupter, &of)?);
            }
            done.push(self.unit(slice, method, seed, members)?);
        }
        let results = Results::new(self, done)?;
        let written = output::write(self, &results)?;
        report::write(self, &results)?;
        let value = results.json(self, written.as_deref())?;
        write_json(&self.run.summary(), &value)?;
        self.terminal.result(&results.text(self, written.as_deref()), &value);
        Ok(())
    }

    /// The directory of a training: the run itself where there is one only.
    fn run_of(
        &self,
        n_trainings: usize,
        slice: usize,
        method: Method,
        seed: u64,
    ) -> Result<Arc<RunDirectory>, Failure> {
        if n_trainings == 1 {
            return Ok(Arc::clone(self.run));
        }
        let folder = format!("{}-{}-seed-{seed}", self.slices[slice].name, method.key());
        let path = self.run.path().join(folder);
        if path.join("config.toml").is_file() {
            return Ok(Arc::new(RunDirectory::open(&path)?));
        }
        let run = RunDirectory::create(&path)?;
        settings::write(&run, self.options)?;
        Ok(Arc::new(run))
    }

    #[expect(clippy::too_many_arguments, reason = "each is a thing of its own, and there is one caller")]
    fn training<B>(
        &self,
        device: &B::Device,
        index: usize,
        method: Method,
        seed: u64,
        run: Arc<RunDirectory>,
        interrupter: &Interrupter,
        of: &str,
    ) -> Result<Trained, Failure>
    where
        B: SpatialBackend,
        Autodiff<B>: SpatialBackend<Device = B::Device>,
    {
        let slice = &self.slices[index];
        let mut cell_patch = self.cell_patch.clone();
        cell_patch.gene_capacity = slice.n_patch_genes.unwrap_or(0) + 1;
        let config = self.options.training(method, slice.genes.len(), cell_patch, seed)?;
        let batches = slice.data.batches(&config)?;
        let neighborhood = self.options.neighborhood();
        let mut card = SpatialCard::new(config, neighborhood, slice.genes.clone(), &slice.data);
        card.between_radius = self.options.between_radius;
        let n_steps = cellpatch_train::BatchSource::n_batches(&batches) * card.config.epochs;
        self.terminal.note(&format!(
            "training {} on {} of {}: {} epochs, {n_steps} steps{of}",
            method.name(),
            self.device,
            slice.name,
            card.config.epochs
        ));
        let watcher = Arc::new(Watcher { bar: self.terminal.progress("training", n_steps as u64, "steps") });
        let execution = Execution {
            checkpoints: self.options.checkpoints(),
            resume: run.checkpoints().is_dir(),
            interrupter: interrupter.clone(),
        };
        let weights = match method {
            Method::Stagate => None,
            Method::CellPatchStagate => self.start.weights(&self.model_tokens[index])?,
        };
        interrupt::can_save(true);
        let outcome: SpatialOutcome<B> = train::<Autodiff<B>>(
            device,
            &slice.data,
            card,
            weights.as_ref(),
            Arc::clone(&run),
            execution,
            Arc::clone(&watcher) as Arc<dyn Observer>,
        )?;
        watcher.bar.finish();
        interrupt::can_save(false);
        let Some(model) = &outcome.model else { return Err(self.interrupted(&outcome)) };
        let embedding = model.embed(&batches, device)?;
        if let Some(spot) = embedding.iter().position(|value| !value.is_finite()) {
            let spot = spot * slice.n_spots() / embedding.len();
            return Err(Failure::new(
                Category::Input,
                format!("the embedding of spot {} of {} is no number", slice.cell_ids[spot], slice.name),
            )
            .with_help("lower --learning-rate"));
        }
        let wants_denoised = self.options.denoised.unwrap_or(false);
        Ok(Trained {
            loss: outcome.loss.unwrap_or(f64::NAN),
            epochs: outcome.epochs,
            seconds: outcome.seconds,
            denoised: wants_denoised.then(|| model.denoise(&batches, device)).transpose()?,
            embedding,
            run,
        })
    }

    /// What trainings lead to together: the domains that most of them find, and all else of the one that agrees best with the
    /// others.
    fn unit(
        &self,
        index: usize,
        method: Method,
        seed: u64,
        mut members: Vec<Trained>,
    ) -> Result<Unit, Failure> {
        let slice = &self.slices[index];
        let of_member = |member: &Trained| Domains::of_embedding(self.options, slice, &member.embedding);
        let found: Vec<Vec<usize>> = members.iter().map(of_member).collect::<Result<_, _>>()?;
        let consensus = Consensus::of(&found.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let domains = Domains::finish(self.options, slice, consensus.groups().to_vec())?;
        let loss = members.iter().map(|member| member.loss).sum::<f64>() / members.len() as f64;
        let seconds = members.iter().map(|member| member.seconds).sum();
        let Trained { epochs, embedding, denoised, run, .. } = members.swap_remove(consensus.medoid());
        Ok(Unit { slice: index, method, seed, loss, epochs, seconds, embedding, denoised, domains, run })
    }

    fn interrupted<B: SpatialBackend>(&self, outcome: &SpatialOutcome<B>) -> Failure {
        let message =
            format!("interrupted after {} steps; saved {}", outcome.steps, outcome.checkpoint.display());
        Failure::new(Category::Interrupted, message)
            .with_help(format!("go on with: spatial --resume --run-dir {}", self.run.path().display()))
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

    fn on_warning(&self, message: &str) {
        self.bar.warn(message);
    }
}
