//! Annotation of real cells beside logistic regression on the same splits, over several seeds.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::tensor::backend::Backend;
use cellpatch_analysis::metrics::{ConfusionMatrix, MeanInterval};
use cellpatch_data::{
    Fractions, GeneVocabulary, MatrixChoice, MissingNames, Partition, QualityFilter, ShardOptions, ShardSet,
    ValuePolicy, write_shards,
};
use cellpatch_model::{AnnotationHead, AnnotatorConfig, Checkpoint, ExpressionEmbedding, Preset};
use cellpatch_train::annotation::{CellLogits, baselines};
use cellpatch_train::{
    AnnotationConfig, AnnotationData, Execution, Observer, RunDirectory, Schedule, annotate,
};
use clap::Args;
use serde_json::json;

use crate::Result;
use crate::document::write_section;

#[derive(Args)]
pub(crate) struct Options {
    /// The folder with the real data.
    #[arg(long)]
    data: PathBuf,
    /// Only these sets.
    #[arg(long)]
    only: Vec<String>,
    /// A pretraining run to start from, beside from scratch.
    #[arg(long)]
    init: Option<PathBuf>,
    /// Leave out training from scratch.
    #[arg(long)]
    no_scratch: bool,
    /// Leave out the baselines.
    #[arg(long)]
    no_baselines: bool,
    /// Seeds, from 1.
    #[arg(long, default_value_t = 10)]
    repeats: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Share of the cells that have labels to train on; 0.1 validate, the rest tests.
    #[arg(long, default_value_t = 0.8)]
    train_share: f64,
    /// The page whose section on accuracy is written; standard output otherwise.
    #[arg(long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args, Clone)]
struct Settings {
    #[arg(long)]
    epochs: Option<usize>,
    #[arg(long)]
    batch_size: Option<usize>,
    #[arg(long)]
    learning_rate: Option<f64>,
    #[arg(long)]
    weight_decay: Option<f32>,
    #[arg(long)]
    head_dropout: Option<f64>,
    #[arg(long)]
    attention_dropout: Option<f64>,
    #[arg(long)]
    genes_per_class: Option<usize>,
    #[arg(long)]
    gene_dropout: Option<f32>,
    #[arg(long)]
    label_smoothing: Option<f32>,
    #[arg(long)]
    warmup_steps: Option<usize>,
    #[arg(long)]
    cosine: bool,
    #[arg(long)]
    patience: Option<usize>,
    #[arg(long)]
    self_blocks: Option<usize>,
    #[arg(long)]
    freeze: bool,
    #[arg(long)]
    plain_head: bool,
    #[arg(long)]
    projected: bool,
    #[arg(long)]
    binned: bool,
    #[arg(long)]
    average_over: Option<usize>,
    #[arg(long)]
    weights: Option<String>,
}

/// A real set: file, label column, how it is split.
struct Set {
    name: &'static str,
    by: Option<&'static str>,
    normalized: bool,
}

const SETS: [Set; 6] = [
    Set { name: "zheng_purified_ref", by: None, normalized: false },
    Set { name: "baron_h1", by: None, normalized: false },
    Set { name: "kang_muscat_example", by: Some("donor_id"), normalized: false },
    Set { name: "zheng_facs800", by: None, normalized: false },
    Set { name: "pbmc3k_2000hvg", by: None, normalized: true },
    Set { name: "symphony_pbmc_1200", by: None, normalized: true },
];
const LABEL: &str = "cell_type";

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut table = String::from("| cells | method | accuracy | macro-F1 |\n|---|---|---|---|\n");
    for set in SETS {
        if options.only.is_empty() || options.only.iter().any(|name| name == set.name) {
            measure(&set, options, &mut table)?;
        }
    }
    let text = format!(
        "Mean and 95 % interval over {} seeds, each with a split, weights and an order of its own: {:.0} % of the cells train, 10 % \
         validate, {:.0} % test, with every class in all parts; kang_muscat_example is split by donor. All settings are the defaults. \
         The baselines read all genes of the same cells, their C is chosen on the validation cells.\n\n{table}",
        options.repeats,
        options.train_share * 100.0,
        (0.9 - options.train_share) * 100.0,
    );
    match &options.output {
        Some(path) => write_section(path, "Accuracy of annotation", &text),
        None => {
            println!("{text}");
            Ok(())
        }
    }
}

fn measure(set: &Set, options: &Options, table: &mut String) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = options.data.join("cells").join(format!("{}.h5ad", set.name));
    let mut ways: Vec<(&str, Option<&Path>)> = Vec::new();
    if !options.no_scratch {
        ways.push(("scratch", None));
    }
    ways.extend(options.init.as_deref().map(|run| ("pretrained", Some(run))));
    for (index, (way, init)) in ways.into_iter().enumerate() {
        let shards = shard(set, &file, init, &folder.path().join(way))?;
        let mut scores: Vec<(String, Vec<f64>, Vec<f64>)> = Vec::new();
        let mut add = |name: &str, matrix: &ConfusionMatrix| {
            let found = scores.iter().position(|(known, ..)| known == name);
            let at = found.unwrap_or_else(|| {
                scores.push((name.to_owned(), Vec::new(), Vec::new()));
                scores.len() - 1
            });
            scores[at].1.push(matrix.accuracy());
            scores[at].2.push(matrix.macro_f1());
        };
        for seed in options.first..options.first + options.repeats {
            let config = config(&shards, init, &options.settings, seed)?;
            let mut data = open(set, &shards, config, options.train_share)?;
            if options.settings.epochs.is_none() {
                data.1.epochs = data.0.usual_epochs();
            }
            if index == 0 && !options.no_baselines {
                for baseline in baselines(&data.0)? {
                    if let Some(matrix) = data.0.confusion(&baseline.classes)? {
                        add(baseline.name, &matrix);
                    }
                }
            }
            let run = folder.path().join(format!("{way}-{seed}"));
            if let Some(matrix) = train(&data.0, &data.1, init, &run)? {
                add(way, &matrix);
            }
        }
        for (name, accuracy, macro_f1) in scores {
            writeln!(
                table,
                "| {} | {name} | {} | {} |",
                set.name,
                MeanInterval::of(&accuracy)?.to_text(3),
                MeanInterval::of(&macro_f1)?.to_text(3)
            )?;
            eprintln!(
                "{}",
                json!({"set": set.name, "method": name, "accuracy": accuracy, "macro_f1": macro_f1})
            );
        }
    }
    Ok(())
}

fn shard(set: &Set, file: &Path, init: Option<&Path>, out: &Path) -> Result<Arc<ShardSet>> {
    let vocabulary =
        init.map(|run| GeneVocabulary::read_parquet(&run.join("vocabulary.parquet"))).transpose()?;
    let options = ShardOptions {
        quality: QualityFilter { min_genes: 0, min_cells: 0 },
        choice: MatrixChoice {
            values: if set.normalized { ValuePolicy::Normalized } else { ValuePolicy::Counts },
            ..MatrixChoice::default()
        },
        obs_columns: [LABEL].into_iter().chain(set.by).map(String::from).collect(),
        min_match: 0.0,
        keep_secondary: true,
        vocabulary,
        ..ShardOptions::default()
    };
    Ok(Arc::new(write_shards(&[file.to_path_buf()], out, &options, &mut |_| {})?))
}

fn config(
    shards: &ShardSet,
    init: Option<&Path>,
    settings: &Settings,
    seed: u64,
) -> Result<AnnotationConfig> {
    let n_rows = shards.manifest().n_genes as usize + 1;
    let mut model = match init {
        Some(run) => Checkpoint::read(run.join("model.safetensors"))?.config()?,
        None => Preset::Paper.config(),
    };
    model.gene_capacity = n_rows;
    if let Some(n) = settings.self_blocks {
        model.encoder_self_blocks = n;
    }
    if let Some(p) = settings.attention_dropout {
        model.attention_dropout = p;
    }
    if settings.binned {
        model.expression = ExpressionEmbedding::Binned { max_value: 5 };
    }
    let mut annotator = AnnotatorConfig::new(model, 2);
    if let Some(p) = settings.head_dropout {
        annotator.dropout = p;
    }
    if settings.projected {
        annotator.head = AnnotationHead::Projected;
    }
    let mut config = AnnotationConfig::new(annotator);
    let s = settings.clone();
    config.seed = seed;
    config.epochs = s.epochs.unwrap_or(config.epochs);
    config.batch_size = s.batch_size.unwrap_or(config.batch_size);
    config.learning_rate = s.learning_rate.unwrap_or(config.learning_rate);
    config.weight_decay = s.weight_decay.unwrap_or(config.weight_decay);
    if let Some(n) = s.genes_per_class {
        config.genes_per_class = (n > 0).then_some(n);
    }
    config.gene_dropout = s.gene_dropout.unwrap_or(config.gene_dropout);
    config.label_smoothing = s.label_smoothing.unwrap_or(config.label_smoothing);
    config.warmup_steps = s.warmup_steps.unwrap_or(config.warmup_steps);
    config.patience = s.patience.or(config.patience);
    config.freeze_encoder = s.freeze;
    config.average_over = s.average_over.unwrap_or(config.average_over);
    config.normalize_features = !s.plain_head;
    if s.cosine {
        config.schedule = Schedule::Cosine;
    }
    if let Some(weights) = s.weights {
        config.class_weights = serde_json::from_value(json!(weights))?;
    }
    Ok(config)
}

fn open(
    set: &Set,
    shards: &Arc<ShardSet>,
    mut config: AnnotationConfig,
    train_share: f64,
) -> Result<(AnnotationData, AnnotationConfig)> {
    let fractions = Fractions { train: train_share, validation: 0.1, test: 0.9 - train_share };
    let labels = shards.labels(LABEL)?.known(&MissingNames::default());
    let partition = match set.by {
        Some(column) => Partition::by_group(&labels, &shards.labels(column)?, fractions, config.seed)?,
        None => Partition::stratified(&labels, fractions, config.seed)?,
    };
    config.model.n_classes = AnnotationData::classes_to_train(&labels, &partition)?.len();
    Ok((AnnotationData::open(Arc::clone(shards), &labels, partition, &config)?, config))
}

struct Lines(Instant);

impl Observer for Lines {
    fn on_epoch(&self, epoch: &cellpatch_train::EpochRecord) {
        if let Some(scores) = epoch.validation_scores {
            eprintln!(
                "  epoch {:3} {:6.1} s train {:.3} validation {:.3} accuracy {:.3} macro-F1 {:.3}{}",
                epoch.epoch,
                self.0.elapsed().as_secs_f64(),
                epoch.train_loss,
                epoch.validation_loss.unwrap_or(f64::NAN),
                scores.accuracy,
                scores.macro_f1,
                if epoch.best { " *" } else { "" }
            );
        }
    }
}

fn train(
    data: &AnnotationData,
    config: &AnnotationConfig,
    init: Option<&Path>,
    run: &Path,
) -> Result<Option<ConfusionMatrix>> {
    type B = Autodiff<Flex>;
    let device = Default::default();
    let weights = match init {
        Some(run) => {
            let mut weights = Checkpoint::read(run.join("model.safetensors"))?;
            let known = GeneVocabulary::read_parquet(&run.join("vocabulary.parquet"))?.len() + 1;
            B::seed(&device, config.seed);
            weights.fit_gene_table::<B>(known, config.model.model.gene_capacity, &device)?;
            Some(weights)
        }
        None => None,
    };
    let run = Arc::new(RunDirectory::create(run)?);
    let lines = Arc::new(Lines(Instant::now()));
    let outcome =
        annotate::<B>(&device, data, config, LABEL, weights.as_ref(), run, Execution::default(), lines)?;
    let (Some((model, _)), Some(test)) = (outcome.model, data.test()) else { return Ok(None) };
    let logits = CellLogits::of_loader(&model, test, &device)?;
    let matrix = data.confusion(&logits.classes())?;
    if let Some(matrix) = &matrix {
        eprintln!(
            "  {:.1} s, test accuracy {:.3} macro-F1 {:.3}",
            outcome.seconds,
            matrix.accuracy(),
            matrix.macro_f1()
        );
    }
    Ok(matrix)
}
