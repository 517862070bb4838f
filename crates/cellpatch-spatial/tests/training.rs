//! Trainings in run directories: what they leave, and that they go on where they were stopped.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only functions marked as tests for tests, and here the helpers are most of them"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::backend::{Autodiff, Flex};
use burn::tensor::TensorData;
use burn::tensor::backend::Backend;
use burn::train::Interrupter;
use cellpatch_model::weights::named_tensors;
use cellpatch_model::{Checkpoint, Preset};
use cellpatch_spatial::graph::{Neighborhood, Position, build};
use cellpatch_spatial::training::{
    PatchGenes, SliceData, SpatialCard, SpatialModel, SpatialModelConfig, SpatialOutcome,
    SpatialTrainingConfig, train,
};
use cellpatch_spatial::{
    CellPatchInput, CellPatchStagateConfig, Error, Expression, SpatialInput, StagateConfig,
};
use cellpatch_train::{
    CheckpointPolicy, Execution, Finish, MetricRecord, Observer, RunDirectory, read_metrics,
};

const N_SPOTS: usize = 90;
const N_GENES: usize = 12;
const CAPACITY: usize = 64;
const NEIGHBORHOOD: Neighborhood = Neighborhood::Nearest(4);

/// Two halves of a tissue that express other genes; the third spot expresses nothing.
fn expression(noise: f32) -> Expression {
    let value = |spot: usize, gene: usize| match (spot, (spot * 7 + gene * 3) % 5) {
        (2, _) | (_, 0) => 0.0,
        _ => {
            noise * ((spot * 31 + gene * 17) % 11) as f32
                + if (spot % 10 < 5) == (gene < 6) { 2.0 } else { 0.5 }
        }
    };
    let values: Vec<f32> =
        (0..N_SPOTS).flat_map(|spot| (0..N_GENES).map(move |gene| value(spot, gene))).collect();
    Expression::from_dense(&values, N_GENES).unwrap()
}

fn slice(noise: f32) -> SliceData {
    let positions: Vec<Position> =
        (0..N_SPOTS).map(|spot| [(spot % 10) as f64, (spot / 10) as f64]).collect();
    let graph = build(&positions, NEIGHBORHOOD).unwrap().graph;
    SliceData::new(graph, expression(noise), positions).unwrap()
}

/// The first genes only have a token.
fn with_patch_genes(slice: SliceData) -> SliceData {
    let known: Vec<f32> =
        expression(0.05).to_dense().chunks_exact(N_GENES).flat_map(|row| row[..8].to_vec()).collect();
    let tokens: Vec<u32> = (0..8).map(|gene| 5 * gene + 3).collect();
    let genes = PatchGenes::new(Expression::from_dense(&known, 8).unwrap(), tokens, CAPACITY).unwrap();
    slice.with_patch_genes(genes).unwrap()
}

fn stagate() -> SpatialTrainingConfig {
    let model = StagateConfig::new(N_GENES).with_hidden_dim(8).with_latent_dim(3);
    SpatialTrainingConfig { epochs: 30, ..SpatialTrainingConfig::new(SpatialModelConfig::Stagate(model)) }
}

fn cellpatch_stagate() -> SpatialTrainingConfig {
    let cell_patch = Preset::Tiny.config().with_gene_capacity(CAPACITY).with_attention_dropout(0.1);
    let model = CellPatchStagateConfig::new(cell_patch, N_GENES).with_hidden_dim(8).with_latent_dim(3);
    let model = SpatialModelConfig::CellPatchStagate(model);
    SpatialTrainingConfig { epochs: 30, ..SpatialTrainingConfig::new(model) }
}

fn in_tiles(config: SpatialTrainingConfig) -> SpatialTrainingConfig {
    SpatialTrainingConfig { whole_slice_spots: 50, spots_per_tile: 12, tiles_per_batch: 3, ..config }
}

/// Stops a training at its first checkpoint from a step on.
struct Stopper {
    interrupter: Interrupter,
    after: u64,
}

impl Observer for Stopper {
    fn on_checkpoint(&self, step: u64, _folder: &Path) {
        if step >= self.after {
            self.interrupter.stop(None);
        }
    }
}

fn run(
    folder: &Path,
    config: SpatialTrainingConfig,
    data: &SliceData,
    stop_after: Option<u64>,
) -> cellpatch_spatial::Result<SpatialOutcome<Flex>> {
    let run = match folder.join("config.toml").is_file() {
        true => RunDirectory::open(folder)?,
        false => {
            let run = RunDirectory::create(folder)?;
            run.write(&run.config(), b"")?;
            run
        }
    };
    let interrupter = Interrupter::new();
    let execution = Execution {
        checkpoints: CheckpointPolicy { every_steps: stop_after.map(|_| 4), ..CheckpointPolicy::default() },
        resume: run.checkpoints().is_dir(),
        interrupter: interrupter.clone(),
    };
    let stopper = Stopper { interrupter, after: stop_after.unwrap_or(u64::MAX) };
    let genes = (0..N_GENES).map(|gene| format!("GENE{gene}")).collect();
    let card = SpatialCard::new(config, NEIGHBORHOOD, genes, data);
    train::<Autodiff<Flex>>(
        &Default::default(),
        data,
        card,
        None,
        Arc::new(run),
        execution,
        Arc::new(stopper),
    )
}

#[test]
fn a_training_lowers_the_loss_and_says_in_its_card_what_it_made() {
    let data = with_patch_genes(slice(0.05));
    for config in [stagate(), cellpatch_stagate(), in_tiles(stagate()), in_tiles(cellpatch_stagate())] {
        let config = SpatialTrainingConfig { learning_rate: 1e-2, clip_norm: Some(5.0), ..config };
        let folder = tempfile::tempdir().unwrap();
        let outcome = run(folder.path(), config.clone(), &data, None).unwrap();
        assert_eq!((outcome.finish, outcome.epochs), (Some(Finish::Completed), 30));
        let records = read_metrics(&folder.path().join("metrics.jsonl")).unwrap();
        let epochs: Vec<f64> = records
            .iter()
            .filter_map(|record| match record {
                MetricRecord::Epoch(epoch) => Some(epoch.train_loss),
                MetricRecord::Step(_) => None,
            })
            .collect();
        assert_eq!(epochs.len(), 30);
        assert_eq!(outcome.loss, epochs.last().copied());
        assert!(epochs[29] < 0.7 * epochs[0], "{epochs:?}");

        let card = SpatialCard::read(&folder.path().join("model.json")).unwrap();
        assert_eq!((card.config.clone(), card.epoch, card.steps), (config.clone(), 30, outcome.steps));
        assert_eq!((card.spots, card.edges, card.genes.len()), (N_SPOTS, 5 * N_SPOTS, N_GENES));
        assert_eq!(card.loss, outcome.loss);

        let (model, device) = (outcome.model.unwrap(), Default::default());
        let whole = SpatialTrainingConfig { whole_slice_spots: usize::MAX, ..config.clone() };
        let by_tiles = model.embed(&data.batches(&config).unwrap(), &device).unwrap();
        let at_once = model.embed(&data.batches(&whole).unwrap(), &device).unwrap();
        assert_eq!(by_tiles.len(), N_SPOTS * 3);
        assert!(by_tiles.iter().all(|value| value.is_finite()));
        assert!(by_tiles.iter().zip(&at_once).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0)));
        let denoised = model.denoise(&data.batches(&config).unwrap(), &device).unwrap();
        assert_eq!(denoised.len(), N_SPOTS * N_GENES);
    }
}

#[test]
fn a_stopped_training_goes_on_to_the_same_bits() {
    let data = with_patch_genes(slice(0.05));
    for config in [stagate(), cellpatch_stagate(), in_tiles(cellpatch_stagate())] {
        let folder = tempfile::tempdir().unwrap();
        let [whole, cut] = ["whole", "cut"].map(|name| folder.path().join(name));
        let expected = run(&whole, config.clone(), &data, None).unwrap();
        for after in [3, 14] {
            let outcome = run(&cut, config.clone(), &data, Some(after)).unwrap();
            assert!(outcome.finish.is_none() && outcome.model.is_none());
        }
        let outcome = run(&cut, config, &data, None).unwrap();
        assert_eq!((outcome.steps, outcome.loss), (expected.steps, expected.loss));
        let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
        assert!(weights(&whole) == weights(&cut));
    }
}

#[test]
fn a_run_goes_on_with_its_own_slice_only() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), stagate(), &slice(0.05), Some(3)).unwrap();
    let refused = run(folder.path(), stagate(), &slice(0.06), None);
    let Err(Error::Train(cellpatch_train::Error::CheckpointMismatch { what, .. })) = refused else {
        panic!("another slice was taken")
    };
    assert_eq!(what, "the data");
}

#[test]
fn patches_without_genes_are_refused_before_the_run_has_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let refused = run(folder.path(), cellpatch_stagate(), &slice(0.05), None);
    assert!(matches!(refused, Err(Error::NoPatchGenes)));
    assert!(!folder.path().join("checkpoints").exists());
}

#[test]
fn frozen_patches_stay_as_they_are() {
    let data = with_patch_genes(slice(0.05));
    let config = |freeze_patches| SpatialTrainingConfig { freeze_patches, epochs: 2, ..cellpatch_stagate() };
    let tensor = |tensors: &BTreeMap<String, TensorData>, part: &str| {
        let (_, values) = tensors.iter().find(|(name, _)| name.contains(part)).unwrap();
        values.iter::<f32>().collect::<Vec<_>>()
    };
    let device = Default::default();
    Autodiff::<Flex>::seed(&device, config(true).seed);
    let fresh = match config(true).model.init::<Autodiff<Flex>>(&device) {
        SpatialModel::CellPatchStagate(model) => named_tensors(&model),
        SpatialModel::Stagate(_) => panic!("it has patches"),
    };
    for freeze in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), config(freeze), &data, None).unwrap();
        let trained = Checkpoint::read(folder.path().join("model.safetensors")).unwrap().tensors;
        let unmoved = |part: &str| tensor(&trained, part) == tensor(&fresh, part);
        assert_eq!(unmoved("gene2vector"), freeze);
        assert_eq!(unmoved("pathway_token"), freeze);
        assert!(!unmoved("conv1"));
    }
}

/// Genes without a token change what the autoencoder reads, and nothing of the patches.
#[test]
fn patches_read_the_genes_that_have_a_token() {
    let data = with_patch_genes(slice(0.05));
    let SpatialModelConfig::CellPatchStagate(config) = cellpatch_stagate().model else { panic!("it is") };
    let device = Default::default();
    let model = config.init::<Flex>(&device);
    let batches = data.batches(&cellpatch_stagate()).unwrap();
    let batch = cellpatch_train::BatchSource::read(&batches, 1, 0).next().unwrap().unwrap();
    let found = model.patches(&batch.cellpatch_input::<Flex>(&device).unwrap()).into_data();

    let genes = data.patch_genes().unwrap();
    let alone = SpatialInput::new(data.slice().graph().clone(), genes.expression().clone(), &device).unwrap();
    let alone = CellPatchInput::new(alone, genes.tokens().to_vec(), CAPACITY).unwrap();
    assert_eq!(found, model.patches(&alone).into_data());
}
