//! Several processes on this machine that train one model: this program starts itself once a rank.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only functions marked as tests for tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::backend::{Autodiff, Flex};
use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
use cellpatch_data::{ShardOptions, ShardSet, write_shards};
use cellpatch_model::Preset;
use cellpatch_train::collective::{Collective, Membership, Waiting, listen};
use cellpatch_train::{
    CheckpointPolicy, Error, Execution, MetricRecord, PretrainingConfig, PretrainingData, RunDirectory,
    pretrain, pretrain_as_rank, read_metrics,
};
use serde::{Deserialize, Serialize};

type B = Autodiff<Flex>;

/// Where a process that this program starts finds what to do.
const TASK: &str = "CELLPATCH_TEST_RANK";

/// One rank of one training.
#[derive(Clone, Serialize, Deserialize)]
struct Task {
    /// Holds `shards`, and gets everything else.
    folder: PathBuf,
    /// The run directory in it.
    run: String,
    world_size: usize,
    rank: usize,
    epochs: usize,
    dropout: f64,
    resume: bool,
}

impl Task {
    fn new(folder: &Path, run: &str, world_size: usize) -> Self {
        let folder = folder.to_path_buf();
        Self { folder, run: run.into(), world_size, rank: 0, epochs: 2, dropout: 0.0, resume: false }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}-{name}", self.run))
    }

    /// Starts all ranks.
    fn start(&self) -> Vec<Child> {
        let _ = fs::remove_file(self.path("address"));
        (0..self.world_size)
            .map(|rank| {
                let task = serde_json::to_string(&Self { rank, ..self.clone() }).unwrap();
                Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "one_rank", "--ignored", "--nocapture"])
                    .env(TASK, task)
                    .env("RAYON_NUM_THREADS", "1")
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect()
    }

    /// Starts all ranks and waits until they are done; the weights.
    fn train(&self) -> Vec<f32> {
        for (rank, mut child) in self.start().into_iter().enumerate() {
            let status = child.wait().unwrap();
            assert!(status.success(), "rank {rank} of {}: {status}; {}", self.run, self.ending(rank));
        }
        self.weights()
    }

    /// What a rank's training ended with.
    fn ending(&self, rank: usize) -> String {
        fs::read_to_string(self.path(&format!("end-{rank}"))).unwrap_or_default()
    }

    /// All numbers of the model file. (After its header, a safetensors file holds them one after the other.)
    fn weights(&self) -> Vec<f32> {
        let bytes = fs::read(self.folder.join(&self.run).join("model.safetensors")).unwrap();
        let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let (floats, _) = bytes[8 + header..].as_chunks::<4>();
        floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// `metrics.jsonl` without the seconds.
    fn metrics(&self) -> Vec<MetricRecord> {
        let mut records = read_metrics(&self.folder.join(&self.run).join("metrics.jsonl")).unwrap();
        for record in &mut records {
            match record {
                MetricRecord::Step(step) => step.seconds = 0.0,
                MetricRecord::Epoch(epoch) => epoch.seconds = 0.0,
            }
        }
        records
    }
}

fn shards(folder: &Path) {
    let file = folder.join("cells.h5ad");
    write_h5ad(&SyntheticConfig { n_cells: 150, ..Default::default() }, &file).unwrap();
    write_shards(&[file], &folder.join("shards"), &ShardOptions::default(), &mut |_| {}).unwrap();
}

fn config(task: &Task, shards: &Arc<ShardSet>) -> PretrainingConfig {
    let model = Preset::Tiny.config().with_gene_capacity(2_100);
    let model = model.with_attention_dropout(task.dropout).with_output_dropout(task.dropout);
    let mut config = PretrainingConfig::new(model);
    config.epochs = task.epochs;
    config.learning_rate = 1e-3;
    // Small enough that every step is clipped, so that a norm of parts would show.
    config.clip_norm = Some(0.05);
    // The last batch has fewer cells than four ranks, and the others are not divisible by four.
    let n_training = PretrainingData::open(Arc::clone(shards), &config).unwrap().training().n_cells();
    let uneven = |size: &usize| !size.is_multiple_of(4) && (1..4).contains(&(n_training % size));
    config.batch_size = (12..30).find(uneven).unwrap();
    config
}

#[test]
#[ignore = "one rank, which the other tests start"]
fn one_rank() {
    let Ok(task) = std::env::var(TASK) else { return };
    let task: Task = serde_json::from_str(&task).unwrap();
    let ended = train_one_rank(&task);
    let text = ended.as_ref().map_or_else(|error| error.to_string(), |()| "done".into());
    fs::write(task.path(&format!("end-{}", task.rank)), text).unwrap();
    std::process::exit(i32::from(ended.is_err()));
}

fn train_one_rank(task: &Task) -> Result<(), Error> {
    let device = Default::default();
    let shards = Arc::new(ShardSet::open(task.folder.join("shards")).unwrap());
    let config = config(task, &shards);
    let data = PretrainingData::open(shards, &config)?;
    let execution = Execution {
        checkpoints: CheckpointPolicy { every_seconds: f64::INFINITY, every_steps: Some(3), keep: 2 },
        resume: task.resume,
        ..Execution::default()
    };
    let run = || {
        let path = task.folder.join(&task.run);
        if task.resume {
            return RunDirectory::open(&path);
        }
        let run = RunDirectory::create(&path)?;
        run.write(&run.config(), b"")?;
        Ok(run)
    };
    if task.world_size == 1 {
        pretrain::<B>(&device, &data, &config, Arc::new(run()?), execution, Arc::new(()))?;
        return Ok(());
    }
    let me = Membership {
        world_size: task.world_size,
        rank: task.rank,
        job: task.run.clone(),
        fingerprint: data.common::<B>(&device, &config)?,
        join_timeout: Duration::from_secs(60),
    };
    let (collective, run) = match task.rank {
        0 => {
            let listener = listen("127.0.0.1:0")?;
            let partial = task.path("address.partial");
            fs::write(&partial, listener.local_addr().unwrap().to_string()).unwrap();
            fs::rename(&partial, task.path("address")).unwrap();
            (Collective::host(&listener, &me, &Waiting::default())?, Some(Arc::new(run()?)))
        }
        _ => {
            let address = wait_for("rank 0's address", || fs::read_to_string(task.path("address")).ok());
            (Collective::join(&address, &me)?, None)
        }
    };
    pretrain_as_rank::<B>(&device, &data, &config, Arc::new(collective), run, execution, Arc::new(()))?;
    Ok(())
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Relative differences of losses, step by step and epoch by epoch.
fn largest_difference_of_losses(a: &[MetricRecord], b: &[MetricRecord]) -> f64 {
    assert_eq!(a.len(), b.len());
    let losses = |record: &MetricRecord| match record {
        MetricRecord::Step(step) => vec![step.loss, step.cells as f64],
        MetricRecord::Epoch(epoch) => {
            vec![epoch.train_loss, epoch.validation_loss.unwrap(), epoch.validation_loss_gene_mean.unwrap()]
        }
    };
    let pairs = a.iter().zip(b).flat_map(|(a, b)| losses(a).into_iter().zip(losses(b)));
    pairs.map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max)
}

#[test]
fn two_three_and_four_processes_train_to_the_weights_of_one() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path());
    let one = Task::new(folder.path(), "one", 1);
    let (expected, metrics) = (one.train(), one.metrics());
    for world_size in [2, 3, 4] {
        let several = Task::new(folder.path(), &format!("several-{world_size}"), world_size);
        let weights = several.train();
        assert_eq!(weights.len(), expected.len());
        let mut apart: Vec<f32> = weights.iter().zip(&expected).map(|(a, b)| (a - b).abs()).collect();
        apart.sort_by(f32::total_cmp);
        let (most, common) = (apart[apart.len() - 1], apart[apart.len() * 999 / 1000]);
        let losses = largest_difference_of_losses(&metrics, &several.metrics());
        println!(
            "{world_size} processes: weights {most:e} apart at most, {common:e} for 999 of 1,000; losses {losses:e}"
        );
        // Sums in another order differ in their last bits: some 1e-7 of a loss and of most gradients. Adam divides by a
        // gradient's own size, so where a gradient is nothing but rounding, as of key biases, a step may differ by up to
        // the learning rate; a weight of a part or of clipping that is wrong shows in most weights.
        assert!(losses < 1e-5, "{losses:e}");
        assert!(common < 1e-6, "{common:e}");
        assert!(most < 1e-4, "{most:e}");
    }
}

#[test]
fn as_many_processes_train_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path());
    for world_size in [2, 3] {
        let task = |run: &str| Task {
            dropout: 0.2,
            ..Task::new(folder.path(), &format!("{run}-{world_size}"), world_size)
        };
        let (first, second) = (task("first"), task("second"));
        assert!(first.train() == second.train(), "{world_size} processes");
        assert_eq!(first.metrics(), second.metrics());
    }
}

#[test]
fn when_a_process_is_killed_the_others_stop_and_the_run_goes_on_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path());
    let task = |run: &str| Task { epochs: 5, dropout: 0.2, ..Task::new(folder.path(), run, 3) };
    let straight = task("straight");
    let expected = straight.train();
    // One kill of each rank: rank 0, too, can go.
    for lost in [1, 0, 2] {
        let mut killed = task(&format!("killed-{lost}"));
        let mut ranks = killed.start();
        let checkpoint = folder.path().join(&killed.run).join("checkpoints/step-00000006/manifest.json");
        wait_for("a checkpoint", || checkpoint.is_file().then_some(()));
        ranks[lost].kill().unwrap();
        let began = Instant::now();
        for (rank, child) in ranks.iter_mut().enumerate() {
            let status = child.wait().unwrap();
            assert!(!status.success(), "rank {rank} does not go on alone");
            if rank != lost {
                let ending = killed.ending(rank);
                assert!(ending.contains(&format!("rank {lost} was lost")), "rank {rank}: {ending:?}");
            }
        }
        println!("the others ended {:?} after rank {lost} was killed", began.elapsed());
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "far below any timeout of the transport's or the system's"
        );
        killed.resume = true;
        assert!(killed.train() == expected, "after the loss of rank {lost}");
        assert_eq!(killed.metrics(), straight.metrics(), "after the loss of rank {lost}");
    }
}
