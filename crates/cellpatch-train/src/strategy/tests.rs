use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::backend::{Autodiff, Flex};
use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use cellpatch_model::Held;

use super::*;
use crate::batches::{Batch, BatchIterator};
use crate::checkpoint::Fingerprint;
use crate::metrics::{MetricRecord, Observer, read_metrics};
use crate::run::RunDirectory;
use crate::setup::CheckpointPolicy;

type B = Autodiff<Flex>;

/// Moves three numbers towards 1, 2 and 3, with noise of the batch's seed.
#[derive(Module, Debug)]
struct Numbers<B: Backend> {
    values: Param<Tensor<B, 1>>,
}

impl<B: Backend> Numbers<B> {
    fn new() -> Self {
        crate::numbered(Self { values: Param::from_tensor(Tensor::zeros([3], &Default::default())) })
    }

    fn error(&self, batch: &Batch<f32>) -> Tensor<B, 1> {
        let noise = (batch.dropout_seed % 7) as f32 * 0.01;
        let goal = Tensor::from_floats([1.0 + noise, 2.0, 3.0], &self.values.device());
        (self.values.val() - goal).powi_scalar(2).sum() * batch.cells
    }
}

impl TrainStep for Numbers<B> {
    type Input = Batch<f32>;
    type Output = BatchLoss<Flex>;

    fn step(&self, batch: Batch<f32>) -> TrainOutput<BatchLoss<Flex>> {
        let error = self.error(&batch);
        let item = BatchLoss {
            sums: vec![error.clone().inner()],
            weight: 3.0,
            classified: Vec::new(),
            held: Held::default(),
        };
        TrainOutput { grads: GradientsParams::from_grads(error.backward(), self), item }
    }
}

impl InferenceStep for Numbers<Flex> {
    type Input = Batch<f32>;
    type Output = BatchLoss<Flex>;

    fn step(&self, batch: Batch<f32>) -> BatchLoss<Flex> {
        BatchLoss {
            sums: vec![self.error(&batch)],
            weight: 3.0,
            classified: Vec::new(),
            held: Held::default(),
        }
    }
}

impl Trainee<B> for Numbers<B> {
    type Source = Weights;
    type Frozen = Numbers<Flex>;
}

/// As many batches an epoch as there are weights.
#[derive(Debug, Clone)]
struct Weights(Vec<f32>);

impl BatchSource for Weights {
    type Cells = f32;

    fn n_batches(&self) -> usize {
        self.0.len()
    }

    fn n_cells(&self) -> usize {
        5 * self.0.len()
    }

    fn read(&self, _epoch: u64, first_batch: usize) -> BatchIterator<'_, f32> {
        Box::new(self.0[first_batch..].iter().map(|&weight| Ok(weight)))
    }

    fn cells_in(_: &f32) -> usize {
        5
    }
}

/// Ends the training after a step.
#[derive(Default)]
struct Stopper {
    interrupter: Interrupter,
    after: u64,
    checkpoints: AtomicU64,
}

impl Observer for Stopper {
    fn on_checkpoint(&self, step: u64, _folder: &Path) {
        self.checkpoints.fetch_add(1, Ordering::SeqCst);
        if step >= self.after {
            self.interrupter.stop(None);
        }
    }
}

fn setup(run: &Arc<RunDirectory>, n_batches: usize, observer: Arc<dyn Observer>) -> TrainingSetup<Weights> {
    TrainingSetup {
        training: Weights((1..=n_batches).map(|batch| batch as f32).collect()),
        validation: None,
        epochs: 30,
        patience: None,
        weight_decay: 1e-4,
        seed: 5,
        policy: CheckpointPolicy { every_seconds: f64::INFINITY, every_steps: None, keep: 2 },
        resume: run.checkpoints().is_dir(),
        interrupter: Interrupter::new(),
        run: Some(Arc::clone(run)),
        collective: None,
        fingerprint: Fingerprint { config: String::new(), data: String::new(), backend: String::new() },
        observer,
        validation_loss_gene_mean: None,
    }
}

fn run(path: &Path, setup: TrainingSetup<Weights>) -> (TrainingState, String) {
    let model_file = path.join("model.txt");
    let state = train(
        &Default::default(),
        Numbers::<B>::new(),
        setup,
        |_, done| LearningRate::new(1e-2, 0.0, crate::Schedule::Constant, 0, 0, done),
        move |model: &Numbers<Flex>, state| {
            let text = format!("{} {}", state.step, model.values.val().into_data());
            fs::write(&model_file, text).map_err(|error| Error::Batch(error.into()))
        },
    )
    .unwrap();
    (state, fs::read_to_string(path.join("model.txt")).unwrap())
}

/// `metrics.jsonl` without the seconds.
fn metrics(run: &RunDirectory) -> Vec<MetricRecord> {
    let mut records = read_metrics(&run.metrics()).unwrap();
    for record in &mut records {
        match record {
            MetricRecord::Step(step) => step.seconds = 0.0,
            MetricRecord::Epoch(epoch) => epoch.seconds = 0.0,
        }
    }
    records
}

#[test]
fn without_validation_the_newest_weights_are_kept_and_epochs_write_no_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let run_directory = Arc::new(RunDirectory::create(folder.path()).unwrap());
    let watcher = Arc::new(Stopper { after: u64::MAX, ..Stopper::default() });
    let (state, model) = run(folder.path(), setup(&run_directory, 1, watcher.clone()));
    assert_eq!((state.finished, state.step, state.cells), (Some(Finish::Completed), 30, 150));
    assert_eq!(state.best.map(|best| best.epoch), Some(30));
    assert!(model.starts_with("30 "), "{model}");
    assert_eq!(watcher.checkpoints.load(Ordering::SeqCst), 1, "only the one at the end");

    let records = metrics(&run_directory);
    assert_eq!(records.len(), 60);
    let MetricRecord::Epoch(last) = &records[59] else { panic!("the epoch's end comes last") };
    let MetricRecord::Step(step) = &records[58] else { panic!("its step comes before") };
    assert_eq!((last.epoch, last.train_loss, last.validation_loss), (30, step.loss, None));
    assert!(last.train_loss < 14.0 / 3.0);
}

#[test]
fn without_validation_a_stopped_run_goes_on_to_the_same_bits() {
    for n_batches in [1, 3] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let whole = Arc::new(RunDirectory::create(&path("whole")).unwrap());
        let (expected_state, expected) = run(&path("whole"), setup(&whole, n_batches, Arc::new(())));
        let cut = Arc::new(RunDirectory::create(&path("cut")).unwrap());
        // Some stops fall on the last batch of an epoch, some between batches.
        for after in [4, 11, 24] {
            let stopper = Arc::new(Stopper { after, ..Stopper::default() });
            let mut setup = setup(&cut, n_batches, stopper.clone());
            setup.interrupter = stopper.interrupter.clone();
            setup.policy.every_steps = Some(4);
            let (state, model) = run(&path("cut"), setup);
            assert_eq!(state.finished, None);
            assert!(model.starts_with(&format!("{} ", state.step)), "{model}");
        }
        let (state, model) = run(&path("cut"), setup(&cut, n_batches, Arc::new(())));
        assert_eq!(model, expected);
        assert_eq!(
            TrainingState { seconds: 0.0, seconds_waited: 0.0, metrics_bytes: 0, ..state },
            TrainingState { seconds: 0.0, seconds_waited: 0.0, metrics_bytes: 0, ..expected_state }
        );
        assert_eq!(metrics(&cut), metrics(&whole));
    }
}
